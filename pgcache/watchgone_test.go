package pgcache_test

import (
	"strings"
	"testing"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// The watch of a table that is gone ends by any name that the table would have.
func TestWatch_UnwatchesWhatIsGone(t *testing.T) {
	t.Parallel()
	db := pgcachetest.DB(t) // its search_path says where the tables are
	var schema string
	if err := db.QueryRowContext(t.Context(), "SELECT current_schema()").Scan(&schema); err != nil {
		t.Fatal(err)
	}
	c, err := pgcache.New(db, pgcache.Options{Channel: schema})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	watches := func() (n int) {
		t.Helper()
		if err := db.QueryRowContext(t.Context(), "SELECT count(*) FROM cache_watches").Scan(&n); err != nil {
			t.Fatal(err)
		}
		return n
	}
	for watched, names := range map[string][]string{
		"gone":       {"gone", "GONE", schema + ".gone", strings.ToUpper(schema) + ".Gone"},
		`"Gone now"`: {`"Gone now"`, schema + `."Gone now"`},
	} {
		for _, name := range names {
			exec("CREATE TABLE " + watched + " (id int)")
			if err := c.WatchTable(t.Context(), pgcache.TableWatch{Table: watched, Keys: []string{"{id}"}}); err != nil {
				t.Fatal(err)
			}
			exec("DROP TABLE " + watched)
			for _, other := range []string{"elsewhere." + watched, "gon", watched[:2] + `x"`} {
				if err := c.UnwatchTable(t.Context(), other); err == nil && watches() != 1 {
					t.Fatalf("%s unwatches %s", other, watched)
				}
			}
			if err := c.UnwatchTable(t.Context(), name); err != nil || watches() != 0 {
				t.Errorf("%s is still watched after UnwatchTable of %s: %v", watched, name, err)
				exec("DELETE FROM cache_watches")
			}
		}
	}
}
