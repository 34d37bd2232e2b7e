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
	Row    store.Row // what callers get
	Found  bool      // the loader knew this key
	Err    error
	All    bool // Err is of the whole run
	Fenced bool // a Set, a Delete or a Clear came between: the value was handed out but not stored
}

// A Run is one call of a loader. It ends when its last waiter has left.
type Run struct {
	Ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	waiters int
	began   bool // the loader may have looked at its source
}

// NewRun returns a run under ctx with one waiter, the caller.
func NewRun(ctx context.Context) *Run {
	r := &Run{waiters: 1}
	r.Ctx, r.cancel = context.WithCancelCause(ctx)
	return r
}

// join adds a waiter. early says that it came before the loader began, so that whatever is loaded is new to it. It
// fails when the last waiter has left.
func (r *Run) join() (early, ok bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiters == 0 {
		return false, false
	}
	r.waiters++
	return !r.began, true
}

// Leave takes a waiter off; the last one ends the run.
func (r *Run) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiters--; r.waiters == 0 {
		r.cancel(context.Canceled)
	}
}

// Begin says that the loader begins now.
func (r *Run) Begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.began = true
}

// Join joins the load of k that is under way, or begins one for run: then leader is true and the caller must see to it
// that End is called. Early is told of the caller that joined.
func (t *Tracker) Join(k Key, run *Run) (l *Load, leader, early bool) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if l := s.loads[k]; l != nil {
		if early, ok := l.Run.join(); ok {
			return l, false, early
		}
	}
	l = &Load{t: t, Key: k, Run: run, done: make(chan struct{})}
	s.loads[k] = l
	return l, true, true
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
