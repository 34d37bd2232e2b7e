package listener_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// fleet makes Caches of one table.
type fleet struct {
	t    *testing.T
	opts pgcache.Options
	db   *sql.DB
}

func newFleet(t *testing.T) *fleet {
	t.Helper()
	return &fleet{t, pgcache.Options{Schema: testdb.Schema(t), Prefix: "p_", Logger: slog.New(slog.DiscardHandler), CleanupInterval: -1}, testdb.DB(t)}
}

// start returns a Cache that listens in this way; nil polls every 10 ms.
func (f *fleet) start(listen func(db *sql.DB) pgcache.Listener) *pgcache.Cache {
	f.t.Helper()
	db, o := testdb.DB(f.t), f.opts
	o.Listener = listener.Poll(10 * time.Millisecond)
	if listen != nil {
		o.Listener = listen(db)
	}
	c, err := pgcache.New(db, o)
	if err != nil {
		f.t.Fatal(err)
	}
	f.t.Cleanup(func() { c.Close() })
	if err := c.Migrate(f.t.Context()); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fleet) ready(c *pgcache.Cache) *pgcache.Cache {
	f.t.Helper()
	ctx, cancel := context.WithTimeout(f.t.Context(), patience)
	defer cancel()
	if err := c.Ready(ctx); err != nil {
		f.t.Fatal(err)
	}
	return c
}

func (f *fleet) object(name string) string { return f.opts.Schema + "." + f.opts.Prefix + name }

func (f *fleet) exec(query string, args ...any) {
	f.t.Helper()
	if _, err := f.db.ExecContext(f.t.Context(), query, args...); err != nil {
		f.t.Fatal(err)
	}
}

func scan[T any](f *fleet, query string, args ...any) (v T) {
	f.t.Helper()
	if err := f.db.QueryRowContext(f.t.Context(), query, args...).Scan(&v); err != nil {
		f.t.Fatal(err)
	}
	return v
}

func (f *fleet) set(c *pgcache.Cache, key string, v int) {
	f.t.Helper()
	if err := c.Set(f.t.Context(), key, v); err != nil {
		f.t.Fatal(err)
	}
}

// get waits until c has v under key, in memory.
func (f *fleet) get(c *pgcache.Cache, key string, v int) {
	f.t.Helper()
	f.wait(fmt.Sprintf("%d in memory under %s", v, key), func() bool {
		before := c.Stats().LocalHits
		var got int
		found, err := c.Get(f.t.Context(), key, &got)
		return err == nil && found && got == v && c.Stats().LocalHits > before
	})
}

func (f *fleet) wait(what string, ok func() bool) {
	f.t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			f.t.Fatalf("%s: not within %v", what, patience)
		}
	}
}
