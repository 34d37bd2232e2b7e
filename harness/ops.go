package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/pgcache"
)

// write does one writing operation for the writes numbers[i] of keys[i], and notes how it went.
func (w *worker) write(keys, numbers []int, do func() error) {
	start := clock()
	err := do()
	w.add(&w.writes, clock()-start)
	if err != nil {
		w.book.fail(err) // and its writes stay open: they may yet come to pass
		return
	}
	for i, key := range keys {
		raise(&w.own[key], int64(w.keys[key].done(numbers[i])))
	}
}

func (w *worker) set(ctx context.Context, key int) { w.setFor(ctx, key, w.anyTTL()) }

func (w *worker) setFor(ctx context.Context, key int, ttl time.Duration) {
	h := w.keys[key]
	n := h.begin(w.id, false, ttl)
	w.write([]int{key}, []int{n}, func() error {
		if w.keepsOut(key) {
			return w.views.never.Set(ctx, h.name, h.valueOf(n), ttlOption(ttl))
		}
		return w.cache.Set(ctx, h.name, h.valueOf(n), ttlOption(ttl))
	})
}

// keepsOut says whether key is now written through a view with LocalNever: always, or now and then, so that rows become of that kind and
// cease to be.
func (w *worker) keepsOut(key int) bool {
	return w.cfg.more && key < w.plantedAt && (key%5 == 0 || rand.N(4) == 0)
}

func (w *worker) remove(ctx context.Context, key int) {
	h := w.keys[key]
	n := h.begin(w.id, true, 0)
	w.write([]int{key}, []int{n}, func() error { return w.cache.Delete(ctx, h.name) })
}

func (w *worker) setMany(ctx context.Context, key int) {
	keys := w.some(key, 4, func(k int) bool {
		return (kindOf(k) == shared || kindOf(k) == owned && w.first && w.owner(k) == w.id) && !w.resting(k)
	})
	ttl := w.anyTTL()
	numbers := make([]int, len(keys))
	values := make(map[string]value, len(keys))
	for i, k := range keys {
		numbers[i] = w.keys[k].begin(w.id, false, ttl)
		values[w.keys[k].name] = w.keys[k].valueOf(numbers[i])
	}
	w.write(keys, numbers, func() error {
		if w.keepsOut(key) {
			return w.views.never.SetMany(ctx, values, ttlOption(ttl))
		}
		return w.typed.SetMany(ctx, values, ttlOption(ttl))
	})
}

// update changes the source, then deletes the key: the usual order.
func (w *worker) update(ctx context.Context, key int) {
	h := w.keys[key]
	n := h.update(w.id, w.sourceTTL())
	w.write([]int{key}, []int{n}, func() error { return w.cache.Delete(ctx, h.name) })
}

func (w *worker) sourceTTL() time.Duration { return w.cfg.ttl / 2 }

// ask begins a read.
func (w *worker) ask(op string, key int) read {
	r := read{node: w.id, op: op, start: clock()}
	r.own, r.seen = time.Duration(w.own[key].Load()), time.Duration(w.seen[key].Load())
	r.bounds = w.bounds(w.keys[key].name, w.logged(w.keys[key].kind))
	return r
}

// judge ends a read and has it judged.
func (w *worker) judge(key int, r read, v value, found bool) {
	r.found, r.value = found, v
	r.applied, r.down, r.moving = r.of(w.shardOf(w.keys[key].name))
	verdict := w.keys[key].judge(r)
	if verdict.breach != nil {
		w.book.breach(verdict.breach)
		return
	}
	raise(&w.seen[key], int64(verdict.seen))
	w.add(&w.behind, verdict.behind)
}

// read does one reading operation, which returns what it found of keys.
func (w *worker) read(op string, keys []int, do func() (map[int]value, error)) {
	reads := make([]read, len(keys))
	for i, key := range keys {
		reads[i] = w.ask(op, key)
	}
	values, err := do()
	end := clock()
	w.add(&w.reads, end-reads[0].start)
	if err != nil {
		w.book.fail(fmt.Errorf("node %d: %w", w.id, err))
		return
	}
	for i, key := range keys {
		reads[i].end = end
		v, found := values[key]
		w.judge(key, reads[i], v, found)
	}
}

// get reads shared keys in the form of bytes that are decoded at every hit, all others as values that hits hand out.
func (w *worker) get(ctx context.Context, key int) {
	w.read("Get", []int{key}, func() (map[int]value, error) {
		var v value
		var found bool
		var err error
		if name := w.keys[key].name; w.keys[key].kind == shared {
			found, err = w.cache.Get(ctx, name, &v)
		} else {
			v, found, err = w.typed.Get(ctx, name)
		}
		if !found {
			return nil, err
		}
		return map[int]value{key: v}, err
	})
}

func (w *worker) getMany(ctx context.Context, key int) {
	keys := w.some(key, 8, func(int) bool { return true })
	w.read("GetMany", keys, func() (map[int]value, error) {
		byName, names := w.named(keys, func(name string) string { return name })
		found, err := w.typed.GetMany(ctx, names)
		return byKey(found, byName), err
	})
}

func (w *worker) getOrSet(ctx context.Context, key int) {
	loads := &loads{fleet: w.fleet}
	w.read("GetOrSet", []int{key}, func() (map[int]value, error) {
		view, name := w.typed, w.keys[key].name
		if rand.N(2) == 0 {
			view, name = w.sourced, bare(name)
		}
		v, err := view.GetOrSet(ctx, name, func(context.Context) (value, error) {
			return loads.load(key), nil
		}, pgcache.TTL(w.sourceTTL()))
		return map[int]value{key: v}, err
	})
	loads.over()
}

func (w *worker) getOrSetMany(ctx context.Context, key int) {
	keys := w.some(key, 3, func(k int) bool { return kindOf(k) == sourced })
	loads := &loads{fleet: w.fleet}
	w.read("GetOrSetMany", keys, func() (map[int]value, error) {
		byName, names := w.named(keys, bare)
		found, err := w.sourced.GetOrSetMany(ctx, names, func(_ context.Context, missing []string) (map[string]value, error) {
			values := map[string]value{}
			for _, name := range missing {
				values[name] = loads.load(byName[name])
			}
			return values, nil
		}, pgcache.TTL(w.sourceTTL()))
		return byKey(found, byName), err
	})
	loads.over()
}

// named are the names of keys, and the way back.
func (f *fleet) named(keys []int, name func(string) string) (byName map[string]int, names []string) {
	byName = make(map[string]int, len(keys))
	for _, k := range keys {
		n := name(f.keys[k].name)
		byName[n], names = k, append(names, n)
	}
	return byName, names
}

func byKey(values map[string]value, byName map[string]int) map[int]value {
	out := make(map[int]value, len(values))
	for name, v := range values {
		out[byName[name]] = v
	}
	return out
}

// bare is a key as a view in its namespace has it.
func bare(name string) string {
	_, name, _ = strings.Cut(name, ":")
	return name
}

// loads are the loader's runs on behalf of one call.
type loads struct {
	*fleet
	mu   sync.Mutex
	done []load
}

type load struct {
	of *history
	n  int
}

// load looks at the source first and takes its time then: what it returns may be old by then.
func (l *loads) load(key int) value {
	v := l.keys[key].load()
	l.mu.Lock()
	l.done = append(l.done, load{l.keys[key], v.N})
	l.mu.Unlock()
	pause := rand.N(15 * time.Millisecond)
	if rand.N(10) == 0 {
		pause += 60 * time.Millisecond
	}
	time.Sleep(pause)
	return v
}

// over is called when the call has returned.
func (l *loads) over() {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range l.done {
		d.of.stored(d.n)
	}
}

func ttlOption(ttl time.Duration) pgcache.Option {
	if ttl == 0 {
		return pgcache.TTL(pgcache.NoExpiry)
	}
	return pgcache.TTL(ttl)
}
