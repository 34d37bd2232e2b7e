package window

import (
	"context"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
)

// Log is the change log as a Window needs it.
type Log interface {
	// Flush drains the log and tells what was in it. When it returns without an error, all that was committed before it
	// was sent has been told. It returns how many changes it found and how many bytes the log takes.
	Flush(ctx context.Context, node uint32) (changes, bytes int64, err error)
	// Vacuum removes the log's dead rows.
	Vacuum(ctx context.Context) error
	// Drain flushes and empties the log, for a moment alone in it.
	Drain(ctx context.Context, node uint32) error
}

// Run flushes when it is due, until ctx ends, and then once more for what is still to be told.
func (w *Window) Run(ctx context.Context) {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			w.last(ctx)
			return
		case <-w.wake:
		case <-timer.C:
		}
		next := w.next()
		for next <= mono.Now() && ctx.Err() == nil {
			_ = w.flush(ctx) // an error has set when to try again
			next = w.next()
		}
		if next == math.MaxInt64 {
			timer.Stop()
		} else {
			timer.Reset(time.Duration(next - mono.Now()))
		}
	}
}

// last waits for the writes that are under way, and flushes what this node wrote and nobody has told: others would have
// to find it by a sweep. It takes a second at the most.
func (w *Window) last(ctx context.Context) {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	flushed := false
	for {
		w.mu.Lock()
		underWay, acked, unknown, retry := 0, 0, 0, w.retry
		for _, m := range w.pending {
			switch {
			case m.due == 0:
				underWay++
			case m.acked:
				acked++
			default:
				unknown++
			}
		}
		w.mu.Unlock()
		switch owed := acked > 0 || (unknown > 0 && !flushed); {
		case owed && retry == 0:
			flushed = w.flush(ctx) == nil || flushed
			continue
		case owed:
		case underWay > 0:
			retry = closeTimeout
		default:
			return
		}
		timer := time.NewTimer(retry)
		select {
		case <-w.wake:
		case <-timer.C:
			w.mu.Lock()
			w.retry = 0
			w.mu.Unlock()
		case <-ctx.Done():
			timer.Stop()
			return
		}
		timer.Stop()
	}
}

// next is when this node's next flush is due.
func (w *Window) next() int64 {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if t >= w.earliest {
		w.earliest = math.MaxInt64
		for v, m := range w.pending {
			switch {
			case m.due == 0: // its reply is yet to come
			case !m.acked && t-m.born > int64(unknownFor):
				delete(w.pending, v)
			case m.acked && w.beats(t) && t-m.due > int64(overdue):
				delete(w.pending, v)
			default:
				w.earliest = min(w.earliest, m.due)
			}
		}
	}
	next := w.earliest
	switch {
	case w.beating:
		next = w.flushed + int64(w.window)
	case next != math.MaxInt64:
		next = w.after(next, t)
	}
	// Half a second spreads a fleet: the first to sweep does so for the others only if it finds something.
	spread := int64(w.node) % (int64(sweepSoon) / 2)
	if w.dirty != 0 {
		next = min(next, w.dirty+w.soon()+spread)
	}
	if w.late != 0 {
		next = min(next, w.late+spread)
	}
	if w.full {
		next = min(next, w.flushed+int64(vacuumEvery)) // nothing else would notice that the log has shrunk
	}
	if w.retry > 0 {
		next = max(next, w.flushed+int64(w.retry))
	}
	w.planned = next
	return next
}

// after puts off what is due at due as long as somebody else keeps the beat.
func (w *Window) after(due, t int64) int64 {
	if w.beats(t) {
		return max(due, w.heard+int64(w.patience))
	}
	return due
}

// soon is how long after a notification the log is swept. A write may leave a change up to three windows after it, and
// its statement takes a while.
func (w *Window) soon() int64 { return max(int64(sweepSoon)/2, 4*int64(w.window)) }

// flush flushes once, and takes off what it has told.
func (w *Window) flush(ctx context.Context) error {
	sent := mono.Now()
	w.mu.Lock()
	// Before the statement is sent: a write that is acknowledged while the flush is under way may have been committed
	// after the flush took its snapshot.
	var acked []int64
	for v, m := range w.pending {
		if m.acked {
			acked = append(acked, v)
		}
	}
	w.mu.Unlock()

	changes, bytes, err := w.log.Flush(ctx, w.node)

	t := mono.Now()
	w.mu.Lock()
	w.flushed = t
	if err != nil {
		w.retry = min(max(2*w.retry, w.window), maxRetry)
		w.mu.Unlock()
		return err
	}
	w.retry, w.earliest = 0, math.MinInt64
	for _, v := range acked {
		delete(w.pending, v)
	}
	for _, m := range w.pending {
		if !m.acked && m.due != 0 && m.due <= t {
			m.wait = min(2*m.wait, maxRetry)
			m.due = t + int64(m.wait)
		}
	}
	if w.late != 0 && sent >= w.late {
		w.late = 0
	}
	if changes > 0 {
		w.beating, w.empty = true, 0
		w.tell(t)
		w.drained(t)
	} else {
		if w.empty++; w.empty >= emptyBeats {
			w.beating = false
		}
		// What was told a moment ago may still be followed by a change.
		if w.drained(w.told); sent-w.told >= w.soon() {
			w.dirty = 0
		}
	}
	w.mu.Unlock()
	w.keepSmall(ctx, bytes)
	return nil
}

// The ladder that keeps the log small. A flush's DELETE leaves dead rows, and the next flush's scan reads them all.
const (
	vacuumAt, vacuumEvery = 1 << 20, time.Second
	drainAt, drainEvery   = 8 << 20, 10 * time.Second
	fullAt                = 32 << 20
)

// ladder is when its rungs were last used.
type ladder struct{ vacuumed, drained int64 }

// keepSmall takes the rung that bytes ask for. VACUUM comes first because draining stops all writers for a moment; it
// can't help while a long transaction, or a missing right, keeps it from removing anything. Where a dump forbids
// draining too, writes tell at once, and leave nothing in the log, until it has shrunk.
func (w *Window) keepSmall(ctx context.Context, bytes int64) {
	t := mono.Now()
	since := func(last int64) time.Duration {
		if last == 0 {
			return math.MaxInt64
		}
		return time.Duration(t - last)
	}
	w.mu.Lock()
	w.full = bytes > fullAt
	vacuum := bytes > vacuumAt && since(w.ladder.vacuumed) >= vacuumEvery
	drain := bytes > drainAt && since(w.ladder.drained) >= drainEvery && w.ladder.vacuumed != 0
	switch {
	case drain:
		w.ladder.drained = t
	case vacuum:
		w.ladder.vacuumed = t
	}
	w.mu.Unlock()
	// What fails here fails for good reasons (a lock held, a right missing): the next rung is the answer.
	switch {
	case drain:
		_ = w.log.Drain(ctx, w.node)
	case vacuum:
		_ = w.log.Vacuum(ctx)
	}
}
