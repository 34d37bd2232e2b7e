package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/shardmap"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/localcache"
)

// Two things that change one after the other, and what comes in between: here the second is made to come where no test from outside can
// stop a goroutine.

// A Get that has asked who has the key, and whose node then follows another map, takes nothing from the memory of who had it before.
func TestShardsHitAfterAMove(t *testing.T) {
	t.Parallel()
	k := localcache.Key{Name: "k"}
	s := &Shards{}
	for _, name := range []string{"a", "b"} {
		local := coherence.New(localcache.New(localcache.Options{MaxEntries: 10}), time.Hour)
		local.AlwaysOn()
		s.shards = append(s.shards, &shard{name: name, c: &Cache{local: local}})
		local.BeginReadAlone(k).Finish(store.Row{Version: 1}, nil, &localcache.Entry{Version: 1, Deadline: coherence.Now() + int64(time.Hour)})
	}
	follow := func(epoch int64, names ...string) *routes {
		s.install(&routes{epoch: epoch, now: s.table(names), names: names})
		return s.routes.Load()
	}
	r := follow(2, "a")
	if s.hit(r, 0, k, coherence.Now()) == nil {
		t.Fatal("memory has nothing")
	}
	follow(4, "b")
	if s.shards[0].c.local.Hit(k, coherence.Now()) == nil {
		t.Fatal("who has given the key away has forgotten it: this tests nothing")
	}
	if s.hit(r, 0, k, coherence.Now()) != nil {
		t.Error("a hit by a map that has ended")
	}
	if i, ok := s.routes.Load().settled(shardmap.Hash(0, "k")); !ok || i != 1 || s.hit(s.routes.Load(), i, k, coherence.Now()) != nil {
		t.Error("who takes the key over has something of it")
	}
}

// lateListener says that it is trusted, and once more when it is to end.
type lateListener struct{ trusted, late, leave chan struct{} }

func (l lateListener) Listen(ctx context.Context, _ string, sub Subscriber) error {
	sub.Trust(time.Now().Add(time.Hour))
	close(l.trusted)
	<-ctx.Done()
	sub.Trust(time.Now().Add(time.Hour)) // a heartbeat was answered just then
	close(l.late)
	<-l.leave
	return nil
}

// A listener that is restarted, because it is connected to another server than the pool, does not bring memory back while it ends.
func TestListenerThatEnds(t *testing.T) {
	t.Parallel()
	db, err := sql.Open("pgx", "host=/nowhere")
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	l := lateListener{make(chan struct{}), make(chan struct{}), make(chan struct{})}
	c, err := New(db, Options{Listener: l, CleanupInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer close(l.leave)
	<-l.trusted
	if !c.local.Listening() {
		t.Fatal("it is not trusted")
	}
	c.restartListener(errors.New("another server"))
	<-l.late
	if c.local.Listening() {
		t.Error("it is trusted again")
	}
}

// A look at the schema that was under way while the tables were made anew may note their old id last: then messages of the new ones would be
// ignored. The next pulse notices.
func TestLookFromBeforeNewTables(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	c, err := New(db, Options{CleanupInterval: -1})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	pulse := func(id string) {
		t.Helper()
		p := store.Pulse{State: store.State{Version: schemaVersion, Channel: c.store.Names.Channel, ID: id}, Incarnation: 1}
		if err := c.verify(t.Context(), p, time.Now(), false); err != nil {
			t.Fatal(err)
		}
		if now := c.schema.id.Load(); now == nil || *now != id {
			t.Errorf("after a pulse of %s: %v", id, now)
		}
	}
	c.local.TrustListener(time.Now().Add(time.Hour)) // what is forgotten counts only if it could be served
	c.local.TrustPulse(time.Now().Add(time.Hour))
	pulse("old")
	pulse("new")
	forgotten, old := c.local.Forgets.Load(), "old"
	c.schema.id.Store(&old)
	pulse("new")
	if c.local.Forgets.Load() != forgotten+1 {
		t.Error("what may have changed unheard is kept")
	}
	pulse("new")
	if c.local.Forgets.Load() != forgotten+1 {
		t.Error("it forgets without a reason")
	}
}
