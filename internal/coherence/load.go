package coherence

import (
	"context"
	"sync"

	"github.com/pgcache/go/internal/store"
)

// A Load is one run of a loader for one key, shared by the callers of this process that miss it at the same time. A run
// for many keys is one Load a key with one Run.
type Load struct {
	t   *Tracker
	Key Key
	Run *Run

	done chan struct{}
	out  Loaded
}

// Loaded is how a load ended.
type Loaded struct {
	Row   store.Row // what callers get
	Found bool      // the loader knew this key
	Err   error
	All   bool // Err is of the whole run

	// Since is the step of the run that shows Row to be new enough: the statement that read it, or stored it behind its
	// fence, or else the call of the loader. It is not for callers that came after that step had begun: a Delete may have
	// been done by then that they must see.
	Since int
}

// A Run is one call of a loader. It ends when its last waiter has left.
type Run struct {
	Ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	waiters int
	steps   int // begun so far
}

// NewRun returns a run under ctx with one waiter, the caller.
func NewRun(ctx context.Context) *Run {
	r := &Run{waiters: 1}
	r.Ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// join adds a waiter and says how many steps had begun when it came. It fails when the last waiter has left.
func (r *Run) join() (steps int, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiters == 0 {
		return 0, false
	}
	r.waiters++
	return r.steps, true
}

// Leave takes a waiter off; the last one ends the run.
func (r *Run) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiters--; r.waiters == 0 {
		r.cancel(context.Canceled)
	}
}

// Step begins a step: a statement that reads or stores, or the loader. It returns its number, for Loaded.Since.
func (r *Run) Step() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.steps++
	return r.steps
}

// Join joins the load of k that is under way, or begins one for run: then leader is true and the caller must see to it
// that End is called. What the load brings is for this caller only if its Since is more than steps.
func (t *Tracker) Join(k Key, run *Run) (l *Load, leader bool, steps int) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.loads[k]; l != nil {
		if steps, ok := l.Run.join(); ok {
			return l, false, steps
		}
	}
	l = &Load{t: t, Key: k, Run: run, done: make(chan struct{})}
	s.loads[k] = l
	return l, true, 0
}

// End ends the load; nobody joins it any more.
func (l *Load) End(out Loaded) {
	s := l.t.shard(l.Key)
	s.mu.Lock()
	if s.loads[l.Key] == l {
		delete(s.loads, l.Key)
	}
	s.mu.Unlock()
	l.out = out
	close(l.done)
}

// Done is closed when the load has ended; then Result says how.
func (l *Load) Done() <-chan struct{} { return l.done }

// Result returns how the load ended.
func (l *Load) Result() Loaded { return l.out }
