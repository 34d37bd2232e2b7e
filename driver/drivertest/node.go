package drivertest

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"testing"

	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// node is one process's share of a cache: a pool and a listener of its own.
type node struct {
	*pgcache.Cache
	db   *sql.DB
	name string // of its sessions
}

// start returns a node that may not be ready. change may be nil.
func (b *bundle) start(change func(*pgcache.Options)) node {
	b.t.Helper()
	b.nodes++
	n := node{name: fmt.Sprint(b.name, "_", b.nodes)}
	dsn := b.dsnFor(fmt.Sprint(b.nodes))
	n.db = b.factory.Open(b.t, dsn)
	o := pgcache.Options{
		Schema: b.name, Prefix: prefix, Codec: raw{}, Listener: b.factory.Listener(b.t, n.db, dsn),
		InvalidationWindow: b.window, Logger: slog.New(slog.DiscardHandler),
		Timeout: patience, LockTimeout: patience, // a busy machine may be slow
	}
	if b.factory.Options != nil {
		b.factory.Options(&o)
	}
	if change != nil {
		change(&o)
	}
	c, err := pgcache.New(n.db, o)
	if err != nil {
		b.t.Fatal(err)
	}
	n.Cache = c
	b.t.Cleanup(func() { c.Close() })
	return n
}

// node returns a node that is ready.
func (b *bundle) node(change func(*pgcache.Options)) node {
	b.t.Helper()
	n := b.start(change)
	must(b.t, n.Migrate(b.t.Context()))
	n.ready(b.t)
	return n
}

func (n node) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	must(t, n.Ready(ctx))
}

// forgetful makes a node that keeps nothing in memory and receives nothing: what it returns comes from the database.
func forgetful(o *pgcache.Options) { o.Local, o.Listener = localcache.None(), nil }

// want fails unless n has value under key. nil: no value.
func (n node) want(t *testing.T, key string, value []byte) {
	t.Helper()
	var got []byte
	found, err := n.Get(t.Context(), key, &got)
	if err != nil || found != (value != nil) || !bytes.Equal(got, value) {
		t.Errorf("Get(%.60q) returns %.60q, %v, %v; want %.60q", key, got, found, err, value)
	}
}

// sees waits until n has value under key. nil: no value.
func (n node) sees(t *testing.T, key string, value []byte) {
	t.Helper()
	var got []byte
	var err error
	eventually(t, fmt.Sprintf("Get(%.60q) returns %.60q", key, value), func() bool {
		var found bool
		got = nil
		found, err = n.Get(t.Context(), key, &got)
		must(t, err)
		return found == (value != nil) && bytes.Equal(got, value)
	})
}

// inMemory waits until n answers for key from memory.
func (n node) inMemory(t *testing.T, key string) {
	t.Helper()
	eventually(t, fmt.Sprintf("%.60q is in memory", key), func() bool {
		before := n.Stats().LocalHits
		var got []byte
		_, err := n.Get(t.Context(), key, &got)
		must(t, err)
		return n.Stats().LocalHits > before
	})
}

// wantMany fails unless view has exactly want under keys.
func wantMany(t *testing.T, view *pgcache.Typed[[]byte], keys []string, want map[string][]byte) {
	t.Helper()
	got, err := view.GetMany(t.Context(), keys)
	must(t, err)
	sameMany(t, got, want)
}

// sameMany fails unless got is want.
func sameMany(t *testing.T, got, want map[string][]byte) {
	t.Helper()
	for key := range got {
		if _, ok := want[key]; !ok {
			t.Errorf("%.60q: got %.60q, want none", key, got[key])
		}
	}
	for key, value := range want {
		if g, ok := got[key]; !ok || !bytes.Equal(g, value) {
			t.Errorf("%.60q: got %.60q (%d bytes), %v; want %.60q (%d bytes)", key, g, len(g), ok, value, len(value))
		}
	}
}

// connect opens as many connections as n is going to need.
func (n node) connect(t *testing.T, many int) {
	t.Helper()
	n.db.SetMaxOpenConns(many)
	n.db.SetMaxIdleConns(many)
	conns := make([]*sql.Conn, many)
	for i := range conns {
		var err error
		conns[i], err = n.db.Conn(t.Context())
		must(t, err)
	}
	for _, c := range conns {
		c.Close()
	}
}
