package window

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/pgcache/go/internal/mono"
)

// Log is the change log as a Window needs it.
type Log interface {
	// Flush publishes what is in the log and deletes it there. When it returns without an error, all that was committed before
	// it was sent has been published. It returns how many changes it found and how many bytes the log takes. ErrBusy says
	// that another flush is under way and that nothing was done.
	Flush(ctx context.Context, sender string) (changes, bytes int64, err error)
	// Pending reports whether there is anything to flush.
	Pending(ctx context.Context) (bool, error)
	// Oldest returns how long ago the oldest change in the log was made; below 0: there is none.
	Oldest(ctx context.Context) (time.Duration, error)
	// Vacuum removes the log's dead rows.
	Vacuum(ctx context.Context) error
	// Drain is a flush that locks the log and truncates it. Writers wait for some milliseconds.
	Drain(ctx context.Context, sender string) error
}

// ErrBusy is returned by Log.Flush while another flush holds the lock.
var ErrBusy = errors.New("another flush is under way")

// Run flushes when a flush is due, until ctx ends, and then once more for what is still to be published, which takes a second at
// the most. Call it once. Errors of flushes are not reported: they are tried again.
func (w *Window) Run(ctx context.Context) {
	defer w.upkeep.running.Wait()
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			w.finish(ctx)
			return
		case <-w.wake:
		case <-timer.C:
		}
		next := w.next()
		for next <= mono.Now() && ctx.Err() == nil {
			switch { // an error has set w.retry
			case w.watching.lookNext:
				_ = w.look(ctx)
			case w.askNext:
				_ = w.ask(ctx)
			default:
				_ = w.flush(ctx)
			}
			next = w.next()
		}
		if next == math.MaxInt64 {
			timer.Stop()
		} else {
			timer.Reset(time.Duration(next - mono.Now()))
		}
	}
}

// finish waits for the writes that are under way, and flushes what this node wrote and nobody has published: else a pulse
// would have to find it. It takes a second at the most.
func (w *Window) finish(ctx context.Context) {
	w.mu.Lock()
	w.closing = true
	w.mu.Unlock()
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), closeTimeout)
	defer cancel()
	for ctx.Err() == nil {
		w.mu.Lock()
		underWay, owed, pause, watching := 0, 0, w.retry, mono.Now() < w.watching.ends()
		for _, c := range w.pending {
			if c.acked {
				owed++
			} else {
				underWay++
			}
		}
		w.mu.Unlock()
		switch {
		case owed > 0 && pause == 0:
			_ = w.flush(ctx) // an error has set w.retry
			continue
		case owed > 0:
		case underWay > 0:
			pause = closeTimeout
		case watching:
			_ = w.look(ctx) // for what has been committed in a transaction or on a watched table since the last look
			return
		default:
			return
		}
		timer := time.NewTimer(pause)
		select {
		case <-w.wake:
		case <-timer.C:
			w.mu.Lock()
			w.retry = 0
			w.mu.Unlock()
		case <-ctx.Done():
		}
		timer.Stop()
	}
}

// next plans: it returns when the next flush or look of this node is due, and sets watching.lookNext and askNext, which say what Run
// does then. It also drops pending changes that the leader must have published: see overdue.
func (w *Window) next() int64 {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	if t >= w.earliest {
		w.earliest = math.MaxInt64
		for v, c := range w.pending {
			switch {
			case c.due == 0: // its reply is yet to come
			case w.led(t) && w.leader.seen-c.due > int64(overdue+2*w.leader.current):
				delete(w.pending, v)
			default:
				w.earliest = min(w.earliest, c.due)
			}
		}
	}
	next := w.earliest
	switch {
	case w.leading:
		next = w.flushedAt + int64(w.current)
	case next != math.MaxInt64:
		next = w.after(next, t)
	}
	if w.full {
		next = min(next, w.flushedAt+int64(vacuumEvery)) // only a flush measures the log
	}
	look := w.nextLook(t)
	w.watching.lookNext = look < next
	w.askNext = w.unnotified.yes && !w.full
	next = min(next, look)
	if w.retry > 0 {
		next = max(next, w.flushedAt+int64(w.retry))
	}
	w.planned = next
	return next
}

// busyTries and busyPause bound how long FlushNow waits for another flush: about 150 ms, then it returns ErrBusy. The pauses
// double: after a server has answered nobody for a while the pulses of a whole fleet find old changes at once.
const (
	busyTries = 5
	busyPause = 10 * time.Millisecond
)

// FlushNow flushes whatever is in the log, whoever left it there. When it returns nil, all that was committed before it was called
// has been published.
func (w *Window) FlushNow(ctx context.Context) error {
	// It may have made this node lead, or have found the log too large: Run has to plan what follows. Others that have received the flush
	// leave to it what they log next.
	defer w.signal()
	for try := 1; ; try++ {
		err := w.flush(ctx)
		if !errors.Is(err, ErrBusy) || try == busyTries {
			return err
		}
		timer := time.NewTimer(busyPause << (try - 1))
		select {
		case <-timer.C:
		case <-ctx.Done():
			timer.Stop()
			return ctx.Err()
		}
	}
}

// flush flushes once. Of one node one flush is under way at a time.
func (w *Window) flush(ctx context.Context) error {
	select {
	case w.flushing <- struct{}{}:
		defer func() { <-w.flushing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	sender, acked := w.beginFlush()
	changes, bytes, err := w.log.Flush(ctx, sender)
	leadEnded := w.endFlush(acked, changes, err)
	if err == nil {
		w.keepSmall(bytes, leadEnded)
	}
	return err
}

// beginFlush returns what the messages of the flush that is about to be sent say of this node, and the versions that it will have
// published if it succeeds.
func (w *Window) beginFlush() (sender string, acked []int64) {
	w.mu.Lock()
	defer w.mu.Unlock()
	// Only what is acknowledged by now: a write that is acknowledged while the flush is under way may have been committed after the
	// flush took its snapshot.
	for v, c := range w.pending {
		if c.acked {
			acked = append(acked, v)
		}
	}
	t := mono.Now()
	if !w.leading {
		w.adoptWindow(t)
	}
	w.adapt(t)
	return w.sender(w.announce(t), w.number), acked
}

// endFlush notes what came of a flush: what is not pending any more, whether this node leads, and when it tries again after an
// error. leadEnded says that it has just stopped leading.
func (w *Window) endFlush(acked []int64, changes int64, err error) (leadEnded bool) {
	t := mono.Now()
	w.mu.Lock()
	defer w.mu.Unlock()
	w.flushedAt = t
	if w.echo.number == w.number && !w.echo.came && (err != nil || changes == 0) {
		w.echo = echo{} // this flush has published nothing, so no notification of it will come
	}
	switch {
	case errors.Is(err, ErrBusy):
		// The other will soon be over, and may or may not publish what is pending here.
		w.retry = min(max(2*w.retry, w.window/4, time.Millisecond), w.window)
	case err != nil:
		w.retry = min(max(2*w.retry, w.window), maxRetry)
	}
	if err != nil {
		if !w.leading {
			w.follow() // takes back the window that adoptWindow has set
		}
		return false
	}
	w.retry, w.earliest = 0, math.MinInt64
	for _, v := range acked {
		delete(w.pending, v)
	}
	if changes > 0 && !w.unnotified.yes {
		w.lead(t)
	} else if w.empty++; !w.leading || w.empty >= emptyFlushes {
		leadEnded = w.leading
		w.follow()
	}
	return leadEnded
}
