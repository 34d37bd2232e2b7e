package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

// kind says how a key is used.
type kind string

const (
	owned   kind = "owned"   // one node writes it: the order of its values is known
	shared  kind = "shared"  // all writing nodes do, at the same time
	sourced kind = "sourced" // loaded by GetOrSet from a source that one node changes, and deletes behind the change
)

func kindOf(key int) kind { return []kind{owned, shared, owned, sourced}[key%4] }

// The further kinds, whose keys come behind those that every fleet has; -more=false leaves them out.
const (
	grouped   kind = "grouped"   // one node writes it, with tags; every writing node removes its team, by tag or by prefix; also in transactions
	fromTable kind = "watched"   // loaded from a table that others change by SQL, and that is watched
	resilient kind = "resilient" // loaded from a source that may fail or have nothing; stale values and background loads are allowed
	exclusive kind = "exclusive" // written by SetIfAbsent of all writing nodes, which delete it too
)

const (
	teams         = 4
	teamSize      = 4
	watchedKeys   = 8
	resilientKeys = 6
	exclusives    = 3
	counters      = 3
)

// activity counts what a run did beside reads and writes, for the report.
type activity struct {
	removals, commits, rollbacks, updates, stale, nones, counted, touched, moves, keysMoved atomic.Int64
}

// moreKeys makes the keys of the further kinds.
func (f *fleet) moreKeys() (keys []*history) {
	for i := range teams * teamSize {
		keys = append(keys, &history{name: fmt.Sprintf("team%d:%d", i%teams, i), kind: grouped, team: i % teams})
	}
	for i := range resilientKeys {
		keys = append(keys, &history{name: fmt.Sprint("resilient:", i), kind: resilient, source: &source{}})
	}
	for i := range exclusives {
		keys = append(keys, &history{name: fmt.Sprint("exclusive:", i), kind: exclusive})
	}
	if f.cfg.shards > 0 {
		return keys // transactions and watched tables need the data on one server, and counters begin anew where they move to
	}
	for i := range watchedKeys {
		keys = append(keys, &history{name: fmt.Sprint("watched:", i), kind: fromTable, source: &source{}})
	}
	for i := range counters {
		f.counters = append(f.counters, newCounter(fmt.Sprint("counter:", i), f.cfg.writers+f.cfg.readers))
	}
	return keys
}

// of are the keys of a kind that pass; nil: all of them.
func (f *fleet) of(k kind, pass func(key int) bool) (keys []int) {
	for key, h := range f.keys {
		if h.kind == k && (pass == nil || pass(key)) {
			keys = append(keys, key)
		}
	}
	return keys
}

// views are a node's, of the further kinds.
type views struct {
	counts    view[int64]
	never     view[value] // of shared and owned keys
	resilient view[value]
}

func (f *fleet) viewsOf(n *node) views {
	return views{
		counts: viewOf[int64](n, pgcache.WithCodec(codec.JSON{}), pgcache.TTL(pgcache.NoExpiry)),
		never:  viewOf[value](n, pgcache.LocalNever()),
		resilient: viewOf[value](n, pgcache.TTL(f.cfg.ttl/8), pgcache.StaleFor(f.cfg.ttl), pgcache.SoftTimeout(5*time.Millisecond),
			pgcache.RefreshAfter(0.5), pgcache.NegativeTTL(f.cfg.ttl/4)),
	}
}

// workMore does one operation on a key of the further kinds.
func (w *worker) workMore(ctx context.Context) {
	writes := w.id < len(w.writers)
	dice := rand.N(100)
	key := w.cfg.keys + rand.N(len(w.keys)-w.cfg.keys)
	switch {
	case dice < 12 && w.counters != nil:
		w.count(ctx, w.counters[rand.N(len(w.counters))], writes)
	case !writes || dice < 40:
		w.lookMore(ctx, key)
	case dice < 44:
		w.removeTeam(ctx, rand.N(teams))
	case dice < 60 && w.single != nil:
		w.inTx(ctx)
	default:
		w.changeMore(ctx, key)
		w.lookMore(ctx, key)
	}
}

func (w *worker) lookMore(ctx context.Context, key int) {
	switch h := w.keys[key]; {
	case h.kind == fromTable && rand.N(3) > 0:
		w.loadWatched(ctx, key)
	case h.kind == resilient && rand.N(4) > 0:
		w.fetch(ctx, key)
	case h.kind == grouped && rand.N(4) == 0:
		w.getTeam(ctx, h.team)
	case key < w.plantedAt:
		w.get(ctx, key)
	}
}

func (w *worker) changeMore(ctx context.Context, key int) {
	h := w.keys[key]
	if w.resting(key) || key >= w.plantedAt {
		return
	}
	switch {
	case h.kind == grouped && w.ownsMore(key):
		w.setGrouped(ctx, key)
	case h.kind == resilient:
		w.changeSource(ctx, key)
	case h.kind == exclusive && rand.N(3) == 0:
		w.remove(ctx, key)
	case h.kind == exclusive:
		w.setIfAbsent(ctx, key)
	}
}
