package pgcache

import (
	"context"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/coherence"
)

// SoftTimeout and HardTimeout end the wait of one caller; the load goes on until LoadTimeout.

// hasTimeouts says that callers may go before a load has ended.
func (v *view) hasTimeouts() bool {
	return v.resilience != nil && (v.resilience.soft > 0 || v.resilience.hard > 0)
}

// withHardTimeout returns the context of a read, which ends when HardTimeout is over for the caller that came at arrived.
func (v *view) withHardTimeout(ctx context.Context, arrived int64) (context.Context, context.CancelFunc) {
	if v.resilience == nil || v.resilience.hard == 0 {
		return ctx, func() {}
	}
	return context.WithTimeout(ctx, v.resilience.hard-time.Duration(coherence.Now()-arrived))
}

// waitWithTimeouts is waitFor for views with a SoftTimeout or a HardTimeout. When the first of the two is over, it takes a stale value if
// one was offered, or looks for one. HardTimeout ends the wait; a look that it has begun may take lastLook longer.
func (v *view) waitWithTimeouts(ctx context.Context, w waiter, dst any) (g answer, answered bool, err error) {
	r := v.resilience
	option, look, most := optionSoft, r.soft, r.hard
	if r.stale > 0 && r.hard > 0 && (r.soft == 0 || r.soft >= r.hard) {
		option, look, most = optionHard, r.hard, r.hard+lastLook
	}
	// Who joins a load that has been under way for SoftTimeout need not wait for it again.
	soft, hard := timerAt(min(w.arrived, w.load.Began()), look), timerAt(w.arrived, most)
	defer soft.Stop()
	defer hard.Stop()
	var looked <-chan struct{}
	for {
		select {
		case <-w.load.Done():
			return answer{}, false, nil
		case <-ctx.Done():
			return answer{}, false, ctx.Err()
		case <-soft.C:
			if w.offered() == nil {
				looked = v.lookAgain(w)
				continue
			}
		case <-looked:
			looked = nil
		case <-hard.C:
			return answer{}, false, r.timedOut(optionHard)
		}
		if g, ok := v.takeOffer(w, dst, r.timedOut(option)); ok {
			return g, true, nil
		}
		if option == optionHard {
			return answer{}, false, r.timedOut(optionHard)
		}
	}
}

// lastLook is how much longer than HardTimeout a caller waits for a look that is under way.
const lastLook = 100 * time.Millisecond

// timerAt goes off d after since; never, if d is 0.
func timerAt(since int64, d time.Duration) *time.Timer {
	if d == 0 {
		d = 1 << 62
		since = coherence.Now()
	}
	return time.NewTimer(d - time.Duration(coherence.Now()-since))
}

// lookAgain reads the row for a caller that joined the load after its row was read, and offers what it finds; callers that come
// meanwhile share that.
//
//	load begins: reads v1, stale       Delete elsewhere        a caller joins
//	                                                           <- what the load has read says v1; the row read now: nothing
func (v *view) lookAgain(w waiter) (done <-chan struct{}) {
	c, with := v.c, *v // a copy: the look may go on after the call that v belongs to
	l, ended := w.load, make(chan struct{})
	if !c.goDo(func() {
		defer close(ended)
		l.Looking.Lock()
		defer l.Looking.Unlock()
		if w.offered() != nil {
			return
		}
		step, sent := l.Run.Step(), coherence.Now()
		if c.null {
			with.offerMemory(l, nil, step)
			return
		}
		statement, cancel := c.statement(c.ctx)
		defer cancel()
		looked, err := c.store.Look(statement, []string{l.Key.Row()}, true)
		if err != nil {
			with.offerMemory(l, nil, step)
			return
		}
		with.offer(l, looked.Rows[0], nil, step, sent)
	}) {
		close(ended)
	}
	return ended
}

// timeoutError says which timeout of the caller's was over. It is an ErrLoadTimeout.
type timeoutError struct {
	option optionKind
	after  time.Duration
}

func (e *timeoutError) Error() string {
	return fmt.Sprintf("the loader did not return within %s (%v), it goes on", e.option, e.after)
}

// Is says that the error is ErrLoadTimeout.
func (e *timeoutError) Is(target error) bool { return target == ErrLoadTimeout } //nolint:errorlint // Is compares

// timedOut is the error of a caller that has waited for as long as option says.
func (r *resilience) timedOut(option optionKind) error {
	d := r.hard
	if option == optionSoft {
		d = r.soft
	}
	return &timeoutError{option, d}
}
