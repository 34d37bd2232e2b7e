package main

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/pgcache/go/pgcache"
)

// This file has what workers do with keys whose loader may fail or find nothing.

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
		w.activity.nones.Add(1)
	case err != nil:
		w.book.fail(fmt.Errorf("node %d: %w", w.id, err))
		return
	}
	if res.Stale {
		w.activity.stale.Add(1)
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
