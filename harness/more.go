package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

// More kinds of keys, which come behind those that every fleet has.
const (
	grouped   kind = "grouped"   // one node writes it, with tags; every writing node removes its team, by tag or by prefix; also in transactions
	fromTable kind = "watched"   // loaded from a table that others change by SQL, and that is watched
	resilient kind = "resilient" // loaded from a source that may fail or have nothing; stale values and background loads are allowed
	exclusive kind = "exclusive" // written by SetIfAbsent of all writing nodes, which delete it too
)

const (
	teams        = 4
	teamSize     = 4
	watchedKeys  = 8
	resilientKey = 6
	exclusives   = 3
	counters     = 3
)

// done counts what a run did beside reads and writes, for the report.
type done struct {
	removals, commits, rollbacks, updates, stale, nones, counted, touched, moves, keysMoved atomic.Int64
}

// more makes the keys of the further kinds.
func (f *fleet) more() (keys []*history) {
	for i := range teams * teamSize {
		keys = append(keys, &history{name: fmt.Sprintf("team%d:%d", i%teams, i), kind: grouped, team: i % teams})
	}
	for i := range resilientKey {
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

// of are the keys of a kind that pass.
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
	resilient view[value]
}

func (f *fleet) viewsOf(n *node) views {
	return views{
		counts: viewOf[int64](n, pgcache.WithCodec(codec.JSON{}), pgcache.TTL(pgcache.NoExpiry)),
		resilient: viewOf[value](n, pgcache.TTL(f.cfg.ttl/8), pgcache.StaleFor(f.cfg.ttl), pgcache.SoftTimeout(5*time.Millisecond),
			pgcache.RefreshAfter(0.5), pgcache.NegativeTTL(f.cfg.ttl/4)),
	}
}

func tagsOf(h *history) pgcache.Option {
	return pgcache.Tags(teamTag(h.team), "some")
}

func teamTag(team int) string { return fmt.Sprint("team:", team) }

// mores does one operation on a key of the further kinds.
func (w *worker) mores(ctx context.Context) {
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

// ownsMore says whether this worker alone writes a grouped key.
func (w *worker) ownsMore(key int) bool { return w.first && w.owner(2*key) == w.id }

// setGrouped stores a value with tags in one of the ways that there are.
func (w *worker) setGrouped(ctx context.Context, key int) {
	h := w.keys[key]
	if rand.N(8) == 0 {
		// The value stays, and so does its team.
		if _, err := w.typed.Touch(ctx, h.name, pgcache.NoExpiry); err != nil {
			w.book.fail(err)
		}
		w.did.touched.Add(1)
		return
	}
	n := h.begin(w.id, false, 0)
	v := h.valueOf(n)
	never := pgcache.TTL(pgcache.NoExpiry)
	switch rand.N(5) {
	case 0:
		w.write([]int{key}, []int{n}, func() error {
			_, err := w.typed.Update(ctx, h.name, func(value, bool) (value, error) { return v, nil }, never, tagsOf(h))
			return err
		})
	case 1:
		w.tryAbsent(ctx, key, n, tagsOf(h))
	case 2:
		w.write([]int{key}, []int{n}, func() error {
			return w.typed.SetMany(ctx, map[string]value{h.name: v}, never, tagsOf(h))
		})
	default:
		w.write([]int{key}, []int{n}, func() error { return w.cache.Set(ctx, h.name, v, never, tagsOf(h)) })
	}
}

// tryAbsent is SetIfAbsent, which may find a value.
func (w *worker) tryAbsent(ctx context.Context, key, n int, opts ...pgcache.Option) {
	h := w.keys[key]
	start := clock()
	stored, err := w.typed.SetIfAbsent(ctx, h.name, h.valueOf(n), append(opts, pgcache.TTL(pgcache.NoExpiry))...)
	w.add(&w.writes, clock()-start)
	switch {
	case err != nil:
		w.book.fail(err)
	case stored:
		raise(&w.own[key], int64(h.done(n)))
	default:
		h.undone(n)
	}
}

func (w *worker) setIfAbsent(ctx context.Context, key int) {
	h := w.keys[key]
	w.tryAbsent(ctx, key, h.begin(w.id, false, 0))
	if b := h.twice(); b != nil {
		w.book.breach(b)
	}
}

// twice says whether the last two values that were stored although only one may be there had no Delete between them.
func (h *history) twice() *breach {
	h.mu.Lock()
	defer h.mu.Unlock()
	var values []int
	for i := len(h.acks) - 1; i >= 0 && len(values) < 2; i-- {
		if n := h.acks[i].n; !h.writes[n].gone {
			values = append(values, n)
		}
	}
	if len(values) < 2 {
		return nil
	}
	second, first := h.writes[values[0]], h.writes[values[1]]
	for _, w := range h.writes {
		if w.gone && w.begun <= second.acked && w.acked >= first.begun {
			return nil
		}
	}
	return h.breach("absent", read{op: "SetIfAbsent", start: second.begun, end: second.acked, found: true, value: h.value(values[0])}, "it to be refused: "+h.describe(values[1])+" was there")
}

// removeTeam removes all keys of a team, which is a Delete of each.
func (w *worker) removeTeam(ctx context.Context, team int) {
	keys := w.of(grouped, func(k int) bool { return w.keys[k].team == team })
	if w.restingTeam(team) {
		return
	}
	numbers := make([]int, len(keys))
	for i, k := range keys {
		numbers[i] = w.keys[k].begin(w.id, true, 0)
	}
	w.write(keys, numbers, func() error {
		if rand.N(2) == 0 {
			return w.cache.DeletePrefix(ctx, fmt.Sprintf("team%d:", team))
		}
		return w.cache.DeleteTags(ctx, teamTag(team), "nobody's")
	})
	w.did.removals.Add(1)
	w.getTeam(ctx, team)
}

func (w *worker) restingTeam(team int) bool {
	return slices.ContainsFunc(w.of(grouped, nil), func(k int) bool { return w.keys[k].team == team && w.resting(k) })
}

func (w *worker) getTeam(ctx context.Context, team int) {
	keys := w.of(grouped, func(k int) bool { return w.keys[k].team == team })
	w.read("GetMany", keys, func() (map[int]value, error) {
		byName, names := w.named(keys, func(name string) string { return name })
		found, err := w.typed.GetMany(ctx, names)
		return byKey(found, byName), err
	})
}

// inTx writes in a transaction, which commits or is rolled back.
func (w *worker) inTx(ctx context.Context) {
	mine := w.of(grouped, func(k int) bool { return k < w.plantedAt && w.ownsMore(k) && !w.resting(k) })
	rand.Shuffle(len(mine), func(i, j int) { mine[i], mine[j] = mine[j], mine[i] })
	mine = mine[:min(len(mine), 1+rand.N(3))]
	slices.Sort(mine)
	removed := rand.N(3 * teams)
	if removed < teams && w.restingTeam(removed) || removed >= teams && len(mine) == 0 {
		return
	}
	level := []sql.IsolationLevel{sql.LevelDefault, sql.LevelRepeatableRead}[rand.N(2)]
	snapshot := clock()
	tx, err := w.parts[0].db.BeginTx(ctx, &sql.TxOptions{Isolation: level})
	if err != nil {
		w.book.fail(err)
		return
	}
	defer tx.Rollback() //nolint:errcheck // it is over, or there is another error
	x := pgcache.For[value](w.single).WithTx(tx)
	var keys, numbers []int
	note := func(key int, gone bool) int {
		if level == sql.LevelDefault {
			snapshot = clock() // of each statement
		}
		n := w.keys[key].prepare(w.id, gone, snapshot)
		keys, numbers = append(keys, key), append(numbers, n)
		return n
	}
	err = func() error {
		if removed < teams {
			for _, k := range w.of(grouped, func(k int) bool { return w.keys[k].team == removed && !slices.Contains(mine, k) }) {
				note(k, true)
			}
			if err := x.DeleteTags(ctx, teamTag(removed)); err != nil {
				return err
			}
		}
		for _, k := range mine {
			h, gone := w.keys[k], rand.N(4) == 0
			n := note(k, gone)
			if gone {
				err = x.Delete(ctx, h.name)
			} else {
				err = x.Set(ctx, h.name, h.valueOf(n), pgcache.TTL(pgcache.NoExpiry), tagsOf(h))
			}
			if err != nil {
				return err
			}
			v, found, err := x.Get(ctx, h.name)
			if err != nil {
				return err
			}
			// A removal that commits meanwhile is about what has not seen it, in its own transaction too.
			removable := level == sql.LevelDefault && !gone
			if found == gone && !removable || found && v != h.valueOf(n) {
				w.book.breach(h.breach("P8", read{node: w.id, op: "Get in the transaction", found: found, value: v}, "what the transaction has written"))
			}
			w.get(ctx, k) // outside of it: as before
		}
		return nil
	}()
	if err != nil {
		if !serialization(err) {
			w.book.fail(fmt.Errorf("node %d: in a transaction: %w", w.id, err))
		}
		return
	}
	time.Sleep(rand.N(20 * time.Millisecond))
	if rand.N(3) == 0 {
		if err := tx.Rollback(); err != nil {
			w.book.fail(err)
		}
		w.did.rollbacks.Add(1)
	} else {
		for i, k := range keys {
			w.keys[k].start(numbers[i])
		}
		w.write(keys, numbers, tx.Commit)
		w.did.commits.Add(1)
	}
	for _, k := range keys { // the moment that it is over
		w.get(ctx, k)
	}
}

// fetch reads a key of the resilient view, whose loader may fail, take its time, or find nothing.
func (w *worker) fetch(ctx context.Context, key int) {
	h := w.keys[key]
	r := w.ask("Fetch", key)
	res, err := w.views.resilient.Fetch(ctx, h.name, func(context.Context, *pgcache.Load[value]) (value, error) {
		v, gone := h.lookUp()
		time.Sleep(rand.N(15 * time.Millisecond))
		switch {
		case rand.N(4) == 0:
			return value{}, errSource
		case gone:
			return value{}, pgcache.ErrNotFound
		}
		return v, nil
	})
	r.end = clock()
	w.add(&w.reads, r.end-r.start)
	switch {
	case errors.Is(err, errSource):
		return
	case errors.Is(err, pgcache.ErrNotFound):
		r.none = true
		w.did.nones.Add(1)
	case err != nil:
		w.book.fail(fmt.Errorf("node %d: %w", w.id, err))
		return
	}
	if res.Stale {
		w.did.stale.Add(1)
	}
	w.judge(key, r, res.Value, err == nil)
}

var errSource = errors.New("the source does not answer")

// changeSource changes what the loader of a resilient key finds, then deletes the key. At times there is nothing to be found.
func (w *worker) changeSource(ctx context.Context, key int) {
	h := w.keys[key]
	n := h.begin(w.id, rand.N(4) == 0, 0)
	h.source.current.Store(int64(n))
	w.write([]int{key}, []int{n}, func() error { return w.cache.Delete(ctx, h.name) })
}
