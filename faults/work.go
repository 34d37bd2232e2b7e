package main

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync/atomic"
	"time"
)

// keyWriter is the one writer of a key, until ctx ends.
func (r *run) keyWriter(ctx context.Context, i int, h *history) {
	pauses := map[kind]time.Duration{hot: 5 * r.pause, sourced: 20 * r.pause, cold: 2 * time.Second}
	for wait(ctx, spread(pauses[h.kind])) {
		h.writing.Lock()
		r.write(h)
		h.writing.Unlock()
		r.read(h.owner, i, h.owner.keys)
	}
}

// write does one write. The caller holds h.writing.
func (r *run) write(h *history) {
	ctx := context.Background() // what was called off would be unknown
	gone := !r.quiet && h.kind != sourced && len(h.writes) > 0 && rand.N(8) == 0
	byHand := r.hand != nil && rand.N(2) == 0
	n := h.begin(gone)
	start := clock()
	var err error
	name := "by hand"
	switch {
	case byHand:
		err = r.hand(ctx, r, h, n)
	case gone || h.kind == sourced:
		name, err = r.remove(ctx, h)
	default:
		name, err = r.set(ctx, h, n)
	}
	r.operation(h.owner, name, start, err)
	if err != nil {
		return
	}
	h.done(n)
	if !byHand {
		raise(&h.owner.own[h.index()], n)
	}
}

// operation notes one that has ended.
func (r *run) operation(n *node, name string, start time.Duration, err error) {
	took := clock() - start
	if n.child != nil {
		took = 0 // a stopped process takes as long as it was stopped
	}
	r.book.operation(fmt.Sprintf("%s of %v", name, n), took, err, !r.mayFail(n, name))
}

// mayFail says whether an operation of a node may return an error.
func (r *run) mayFail(n *node, name string) bool {
	reads := name == "Get" || name == "GetMany"
	switch {
	case r.settling.Load():
		return false
	case r.fails == all:
		return true
	case name == "GetOrSet":
		return false
	case r.fails == victims:
		return n.victim.Load()
	case r.fails == writes:
		return !reads
	}
	return r.fails == allButGetOrSet
}

// reader reads on a node until ctx ends.
func (r *run) reader(ctx context.Context, n *node) {
	for wait(ctx, spread(r.pause)) {
		i := rand.N(len(n.keys))
		switch h, dice := n.keys[i], rand.N(10); {
		case h.kind == sourced && dice < 6 && n.child == nil:
			r.load(n, i)
		case dice < 2:
			r.readMany(n, []int{i, rand.N(len(n.keys)), rand.N(len(n.keys)), rand.N(len(n.keys))})
		default:
			r.read(n, i, n.keys)
		}
	}
}

// ask begins a read.
func (r *run) ask(n *node, op string, i int) read {
	l, here := n.cache.(*local)
	return read{
		down: here && !l.recorder.live.Load(),
		who:  fmt.Sprintf("%v: %s", n, op), start: clock(), bound: r.bound,
		own: int(n.own[i].Load()) - 1, seen: int(n.seen[i].Load()) - 1,
	}
}

// judge ends a read and has it judged.
func (r *run) judge(n *node, i int, q read, v value, found bool) {
	q.end, q.found, q.value = clock(), found, v
	if r.lie != nil {
		r.lie(n, n.keys[i], &q)
	}
	verdict := n.keys[i].judge(q)
	if !q.isRow {
		r.book.behind(verdict.lag)
	}
	if verdict.violation != nil {
		r.book.violate(verdict.violation)
		return
	}
	raise(&n.seen[i], verdict.seen)
}

func (r *run) read(n *node, i int, keys []*history) {
	q := r.ask(n, "Get", i)
	v, found, err := n.Get(context.Background(), keys[i].name)
	r.operation(n, "Get", q.start, err)
	if err == nil {
		r.judge(n, i, q, v, found)
	}
}

func (r *run) readMany(n *node, keys []int) {
	qs, names := make([]read, len(keys)), make([]string, len(keys))
	for j, i := range keys {
		qs[j], names[j] = r.ask(n, "GetMany", i), n.keys[i].name
	}
	values, err := n.GetMany(context.Background(), names)
	r.operation(n, "GetMany", qs[0].start, err)
	for j, i := range keys {
		if err == nil {
			v, found := values[names[j]]
			r.judge(n, i, qs[j], v, found)
		}
	}
}

// load is a GetOrSet. The loader looks at the source first and takes its time then.
func (r *run) load(n *node, i int) {
	h := n.keys[i]
	q := r.ask(n, "GetOrSet", i)
	v, err := n.GetOrSet(context.Background(), h.name, func(context.Context) (value, error) {
		h.loads.Add(1)
		v := h.value(int(h.current.Load()))
		pause := rand.N(15 * time.Millisecond)
		if rand.N(8) == 0 {
			pause += 80 * time.Millisecond
		}
		time.Sleep(pause)
		return v, nil
	})
	r.operation(n, "GetOrSet", q.start, err)
	if err == nil {
		r.judge(n, i, q, v, true)
	}
}

// judgeRows holds the table against the histories: it is never older than the last acknowledged write.
func (r *run) judgeRows(ctx context.Context) error {
	for prefix, nodes := range r.byPrefix() {
		rows, start, err := r.rows(ctx, prefix)
		if err != nil {
			return err
		}
		end := clock()
		for _, h := range nodes[0].keys {
			v, found := rows[h.name]
			verdict := h.judge(read{who: "the table", start: start, end: end, own: -1, seen: -1, isRow: true, found: found, value: v})
			if verdict.violation != nil {
				r.book.violate(verdict.violation)
			}
		}
	}
	return nil
}

func (f *fleet) byPrefix() map[string][]*node {
	by := map[string][]*node{}
	for _, n := range f.nodes {
		by[n.Prefix] = append(by[n.Prefix], n)
	}
	return by
}

func (h *history) index() int {
	for i, k := range h.owner.keys {
		if k == h {
			return i
		}
	}
	panic("a key that its owner does not have")
}

// raise notes write n in a, where 0 is none.
func raise(a *atomic.Int64, n int) {
	for {
		old := a.Load()
		if old >= int64(n+1) || a.CompareAndSwap(old, int64(n+1)) {
			return
		}
	}
}

// spread is a pause of d on average.
func spread(d time.Duration) time.Duration {
	return min(time.Duration(rand.ExpFloat64()*float64(d)), 4*d)
}

// wait returns false when ctx has ended.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
		return false
	case <-timer.C:
		return true
	}
}
