package main

import (
	"testing"

	"go.uber.org/goleak"

	"github.com/pgcache/go/pgcachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgcachetest.Main(m)) }

func TestTour(t *testing.T) {
	said := 0
	err := tour(t.Context(), pgcachetest.DSN(t), func(format string, args ...any) {
		said++
		t.Logf(format, args...)
	})
	if err != nil || said != len(steps)+1 {
		t.Errorf("%d lines for %d steps, %v", said, len(steps), err)
	}
	var left int
	err = pgcachetest.DB(t).QueryRowContext(t.Context(), "SELECT count(*) FROM pg_namespace WHERE nspname LIKE 'quickstart%'").Scan(&left)
	if err != nil || left != 0 {
		t.Errorf("%d schemas are left behind, %v", left, err)
	}
}
