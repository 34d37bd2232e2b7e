package main

import (
	"context"
	"errors"
	"strings"
	"time"
)

// planted has scenarios in which something is wrong, each of which must be noticed. Their names begin with the promise.
var planted = []scenario{
	{name: "P2: a node keeps what was replaced", lie: onKey(1, func(h *history, q *read) int { return 0 }), least: 7 * time.Second},
	{name: "P3: a node does not find its own write", lie: onKey(0, func(h *history, q *read) int { return q.own - 1 })},
	{name: "P4: a node goes back", lie: onKey(1, everySecond)},
	{name: "P5: a node answers from memory although its listener is down", inject: terminate(listeners), pause: often, lie: stale},
	{name: "P7: a value that nobody wrote", lie: onKey(1, func(h *history, q *read) int { return 1_000_000 })},
	{name: "P8: a rollback leaves a trace", lie: onKey(1, func(*history, *read) int { return rolledBack })},
	{name: "P6: an old value is stored over a newer one", inject: storeOld, pause: often},
	{name: "P2: a write that is never published", inject: writeUnseen, hold: 12 * time.Second, pause: often, least: 8 * time.Second},
}

// onKey has one node's reads of the first key, which node 0 writes, return wrong values.
func onKey(id int, lie func(h *history, q *read) int) func(n *node, h *history, q *read) {
	return func(n *node, h *history, q *read) {
		if n.id != id || h != n.keys[0] {
			return
		}
		wrong := lie(h, q)
		h.mu.Lock()
		defer h.mu.Unlock()
		for ; wrong > 0 && wrong < len(h.writes) && h.writes[wrong].gone; wrong-- { // a Delete has no value
		}
		q.found, q.value = true, h.value(max(wrong, 0))
	}
}

// stale is the answer of a node that does not notice that its listener is down: what was there before the last write.
func stale(n *node, h *history, q *read) {
	if n == h.owner || !q.down || q.seen >= 0 || h.kind == sourced {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	q.found, q.value = true, h.value(0)
}

// everySecond lie goes back.
func everySecond(_ *history, q *read) int {
	if q.value.N%2 == 0 {
		return q.value.N
	}
	return q.seen - 1
}

// silently changes a row as a statement of the library does that publishes nothing.
const silently = "value = $2, version = version + 1, stamp = version + 1"

func (r *run) silently(ctx context.Context, h *history, n int) error {
	res, err := r.admin.ExecContext(ctx, "UPDATE "+r.table("entries")+" SET "+silently+" WHERE key = $1 AND value IS NOT NULL AND NOT "+r.table("dead")+"(key, tags, seen)", h.name, h.value(n).encoded())
	if err == nil {
		if done, _ := res.RowsAffected(); done == 0 {
			err = errors.New("there is no row")
		}
	}
	return err
}

// coldKey is one that is written seldom.
func (r *run) coldKey() *history {
	for {
		if h := some(r.keys); h.kind == cold {
			return h
		}
	}
}

// storeOld puts an old value back.
func storeOld(ctx context.Context, r *run) (func() error, error) {
	h := r.coldKey()
	h.writing.Lock()
	defer h.writing.Unlock()
	if len(h.writes) < 2 || h.writes[0].gone || h.writes[0].acked == never {
		return nil, errors.New("it has no old value")
	}
	return nil, r.silently(ctx, h, 0)
}

// writeUnseen writes a value that nobody receives of, and keeps its writer from writing another.
func writeUnseen(ctx context.Context, r *run) (func() error, error) {
	h := r.coldKey()
	h.writing.Lock()
	n := h.begin(false)
	if err := r.silently(ctx, h, n); err != nil {
		h.writing.Unlock()
		return nil, err
	}
	h.done(n)
	return func() error { h.writing.Unlock(); return nil }, nil
}

// noticed says whether a violation of the promise was noticed that the scenario's name begins with.
func (r *result) noticed() bool {
	promise, _, _ := strings.Cut(r.scenario, ":")
	if r.err != nil || r.book == nil {
		return false
	}
	for _, line := range r.book.lines {
		if strings.HasPrefix(line, promise+": ") {
			return true
		}
	}
	return false
}
