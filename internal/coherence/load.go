package coherence

import (
	"context"
	"sync"
	"sync/atomic"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/store"
)

// A Load is one run of a loader for one key, shared by the callers of this process that miss it at the same time (singleflight).
// A loader that is called for many keys has one Run, and a Load for each key.
type Load struct {
	t   *Tracker
	Key Key
	Run *Run

	began     int64 // when, by Now
	overtaken bool  // the key may have changed since it began: who comes now must not join it; under the stripe's lock
	done      chan struct{}
	out       Loaded                 // before done is closed
	offer     atomic.Pointer[Loaded] // see Offer; nil: none yet

	Looking sync.Mutex // held while a goroutine reads the row again for an Offer, so that one does so at a time
}

// Loaded is how a load ended.
type Loaded struct {
	Row   store.Row // what callers get
	Found bool      // Row has a value: the loader knew this key, or a row was found
	Err   error
	All   bool // Err is of the whole run, not of this key

	Loader  bool // Row is what the loader returned
	Memory  bool // Row is from the local cache
	Stale   bool // Row has expired, and may be handed out until Until where the load fails or is slow: see Load.Offer
	Failed  bool // Err is what a loader returned: a stale row may be handed out instead
	Skipped bool // no loader was called: it failed a moment ago with Err, or an early load had no lock or found nothing due

	// Since is the number, from Run.Step, of the step that shows Row to be current: the statement that read Row, or stored it after checking
	// that nothing had changed since the loader began, or else the call of the loader. See Load.Answers.
	Since int

	// Until is set of a row that was found, not loaded: until when it may be handed out. That is its expiry, or, if it is Stale, the
	// end of the time for which a stale row may be handed out. 0: it was loaded.
	Until int64
}

// Expired says that a row that was found may not be handed out any more, because another key of the run was slow.
func (l *Loaded) Expired() bool { return l.Until != 0 && mono.Now() >= l.Until }

// A Run is one call of a loader. Its Ctx ends when its last waiter has left.
type Run struct {
	Ctx    context.Context
	cancel context.CancelCauseFunc

	mu      sync.Mutex
	callers []context.Context // see Share
	waiters int
	kept    bool // it goes on without waiters
	steps   int  // begun so far
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
	if r.waiters == 0 && !r.kept {
		return 0, false
	}
	r.waiters++
	return r.steps, true
}

// maxCallers bounds how many contexts a run holds for its Observer, however many callers join.
const maxCallers = 128

// Share notes the context of a caller that has joined, for the Observer: see Callers. Beyond maxCallers it notes none.
func (r *Run) Share(ctx context.Context) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.callers) < maxCallers {
		r.callers = append(r.callers, ctx)
	}
}

// Callers returns what Share has noted.
func (r *Run) Callers() []context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.callers[:len(r.callers):len(r.callers)]
}

// Keep lets the run go on when its last waiter leaves. A waiter calls it.
func (r *Run) Keep() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.kept = true
}

// begun is how many steps have begun.
func (r *Run) begun() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.steps
}

// Leave takes a waiter off; the last one ends the run, unless it is kept.
func (r *Run) Leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.waiters--; r.waiters == 0 && !r.kept {
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

// Part is what a caller of Join has to do.
type Part int

const (
	// Leads: the caller has begun the load, and must see to it that End is called.
	Leads Part = iota
	// Joins: the caller waits for Done, uses the result only if Answers says so, and must call l.Run.Leave.
	Joins
	// Waits: the caller waits for Done and calls Join again.
	Waits
)

// Join joins the load of k that is under way, or begins one for run, which only a caller that Leads uses. Where the load is
// overtaken, or all its waiters have left, the caller Waits: so at most one load of a key is under way in the process, and all
// who came meanwhile share the next:
//
//	load 1 begins         Delete         100 callers come: they wait
//	load 1 ends                          the first of them begins load 2, the others join it
//
// arrived is when the caller first asked, by Now. While a transaction of ours writes k or removes a group, a caller joins only a
// load that began after it had arrived: the transaction may have committed in between. steps is for Answers and Offered.
func (t *Tracker) Join(k Key, run *Run, arrived int64) (l *Load, part Part, steps int) {
	s := t.enter(k)
	defer s.mu.Unlock()
	if l := s.loads[k]; l != nil {
		if !l.overtaken && (s.txs[k] == nil && t.groups.open.Load() == 0 || l.began >= arrived) {
			if steps, ok := l.Run.join(); ok {
				return l, Joins, steps
			}
		}
		return l, Waits, l.Run.begun()
	}
	l = &Load{t: t, Key: k, Run: run, began: mono.Now(), done: make(chan struct{})}
	s.loads[k] = l
	return l, Leads, 0
}

// End ends the load; nobody joins it any more.
func (l *Load) End(out Loaded) {
	s := l.t.stripe(l.Key)
	s.mu.Lock()
	delete(s.loads, l.Key)
	s.mu.Unlock()
	l.out = out
	close(l.done)
}

// Offer says what there is for callers that do not wait for the loader, or whose loader fails: out.Row if out.Found, else nothing.
// It may be called again with what a later statement read.
func (l *Load) Offer(out *Loaded) {
	for {
		// Of two statements the one that began later counts: the other may be from before a Delete.
		before := l.offer.Load()
		if before != nil && before.Since > out.Since || l.offer.CompareAndSwap(before, out) {
			return
		}
	}
}

// Began is when the load began, by Now.
func (l *Load) Began() int64 { return l.began }

// Offered returns what was offered, if it was read after the caller came; else nil. steps and arrived are as for Answers.
func (l *Load) Offered(steps int, arrived int64) *Loaded {
	if out := l.offer.Load(); out != nil && (out.Since > steps || l.began >= arrived) {
		return out
	}
	return nil
}

// Done is closed when the load has ended; then Result says how.
func (l *Load) Done() <-chan struct{} { return l.done }

// Result returns how the load ended.
func (l *Load) Result() Loaded { return l.out }

// Answers says whether a caller that gave arrived to Join, and got steps from it, may use the result: the step that shows it to be
// current began after the caller had come. Else a Delete may have been done before the caller came that the result does not
// show. A caller who may not calls Join again: a load that begins after it has arrived answers.
func (l *Load) Answers(steps int, arrived int64) bool {
	return l.out.Since > steps || l.began >= arrived
}
