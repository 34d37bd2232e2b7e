package integration

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"slices"
	"testing"

	"github.com/pgcache/go/driver/drivertest"
)

// TestPostgres runs the drivers' suite against every major version that can be had here, one after the other. The oldest
// and the newest see all configurations of the drivers, and the listeners' suite; those between see the default of each
// driver and pgx's simple protocol: what could differ there is the server, not the way to it.
func TestPostgres(t *testing.T) {
	some := false
	for _, major := range supported {
		ends := major == supported[0] || major == supported[len(supported)-1]
		t.Run(fmt.Sprint(major), func(t *testing.T) {
			s, err := start(t, major)
			if errors.Is(err, errNone) {
				ran.miss(major)
				t.Skipf("PostgreSQL %d is not run: %v", major, err) // and the last line says so
			}
			if err != nil {
				t.Fatal(err)
			}
			some = true
			t.Run("drivers", func(t *testing.T) { // ends when all of them have
				modes := []drivertest.Factory{pgxModes[0], pgxModes[1], pqModes[0]}
				if ends {
					modes = append(slices.Clone(pgxModes), pqModes...)
				}
				for _, f := range modes {
					drivertest.Exercise(t, s.dsn, f)
				}
			})
			if ends {
				t.Run("listeners", func(t *testing.T) { listeners(t, s) })
			}
		})
	}
	if !some && !t.Failed() {
		t.Fatalf("no PostgreSQL to run against: %s", howTo)
	}
}

// listeners runs the listeners' tests of the module around this one, which take their server from the environment.
func listeners(t *testing.T, s *server) {
	cmd := exec.CommandContext(t.Context(), "go", "test", "-count=1", "-run", "^TestListener", "./driver/...")
	cmd.Dir = ".."
	cmd.Env = append(os.Environ(), "PGCACHE_DSN="+s.dsn)
	out, err := cmd.CombinedOutput()
	t.Logf("%s", out)
	if err != nil {
		t.Errorf("%v: %v", cmd, err)
	}
}
