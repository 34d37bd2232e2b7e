package main

import (
	"context"

	"github.com/pgcache/go/pgcache"
)

// This file has what workers do with keys that only SetIfAbsent writes.

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
