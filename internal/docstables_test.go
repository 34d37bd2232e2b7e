package internal_test

import (
	"fmt"
	"regexp"
	"strings"
	"testing"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// TestDocsTables: tables.md has every table and every column of entries, and cli.md the migrations.
func TestDocsTables(t *testing.T) {
	t.Parallel()
	all := pages(t)
	db := pgcachetest.DB(t)
	c, err := pgcache.New(db, pgcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	var names string
	if err := db.QueryRowContext(t.Context(), `SELECT string_agg(x.name, ' ') FROM (
		SELECT relname::text AS name FROM pg_class WHERE relnamespace = current_schema()::regnamespace AND relkind = 'r'
		UNION ALL SELECT attname FROM pg_attribute WHERE attrelid = 'cache_entries'::regclass AND attnum > 0 AND NOT attisdropped) x`).Scan(&names); err != nil {
		t.Fatal(err)
	}
	if len(strings.Fields(names)) < 15 {
		t.Fatalf("only %s", names)
	}
	for _, name := range strings.Fields(names) {
		if !regexp.MustCompile("(?m)^\\|[^|]*`" + name + "`[^|]*\\|").MatchString(all["docs/tables.md"]) {
			t.Errorf("docs/tables.md has no row for %s", name)
		}
	}
	var version int
	if err := db.QueryRowContext(t.Context(), "SELECT schema_version FROM cache_state").Scan(&version); err != nil {
		t.Fatal(err)
	}
	for _, text := range []string{fmt.Sprintf("migrated from version 0 to %d:", version), fmt.Sprintf("version %d of %[1]d\n", version)} {
		if !strings.Contains(all["docs/cli.md"], text) {
			t.Errorf("docs/cli.md does not say %q", text)
		}
	}
}
