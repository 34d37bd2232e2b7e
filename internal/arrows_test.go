package internal_test

import (
	"os/exec"
	"strings"
	"testing"
)

const module = "github.com/pgcache/go/"

// TestArrows keeps the arrows of the house: what a package needs, itself and through others, in a user's program.
func TestArrows(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		pkg   string
		never []string
	}{
		{"pgcache", []string{"github.com/lib/pq", "github.com/jackc/pgx", "github.com/vmihailenco/msgpack", module + "driver", module + "listener", module + "internal/testdb", module + "internal/pgserver"}},
		{"codec", []string{"github.com/", module + "pgcache", module + "internal/store"}},
		{"codec/msgpack", []string{module + "pgcache", "github.com/lib/pq", "github.com/jackc/pgx"}},
		{"localcache", []string{module + "pgcache", module + "internal", "github.com/lib/pq", "github.com/jackc/pgx"}},
		{"listener", []string{"github.com/lib/pq", "github.com/jackc/pgx", module + "driver"}},
		{"driver/pgxdriver", []string{"github.com/lib/pq", module + "driver/pqdriver"}},
		{"driver/pqdriver", []string{"github.com/jackc/pgx", module + "driver/pgxdriver"}},
		{"pgcachetest", []string{"go.uber.org/goleak", module + "internal/testdb", module + "driver/pqdriver"}},
		{"internal/dbsqlc", []string{"github.com/lib/pq", module + "internal/store"}},
	} {
		t.Run(c.pkg, func(t *testing.T) {
			t.Parallel()
			out, err := exec.CommandContext(t.Context(), "go", "list", "-deps", module+c.pkg).Output()
			if err != nil {
				t.Fatal(err)
			}
			for _, dep := range strings.Fields(string(out)) {
				if own := dep == module+c.pkg || strings.HasPrefix(dep, module+c.pkg+"/"); own {
					continue
				}
				for _, p := range c.never {
					if strings.HasPrefix(dep, p) && (p != "github.com/" || !strings.HasPrefix(dep, module)) {
						t.Errorf("%s needs %s", c.pkg, dep)
					}
				}
			}
		})
	}
}
