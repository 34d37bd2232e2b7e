package coherence

import (
	"context"
	"sync"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/store"
)

// A Load is one run of a loader for one key, shared by the callers of this process that miss it at the same time. A run
// for many keys is one Load a key with one Run.
type Load struct {
	t   *Tracker
	Key Key
	Run *Run

	began     int64 // when, by the monotonic clock
	overtaken bool  // an invalidation of the key has come since it began: who comes now must not join it; under the shard's lock
	done      chan struct{}
	out       Loaded
}

// Loaded is how a load ended.
type Loaded struct {
	Row   store.Row // what callers get
	Found bool      // the loader knew this key
	Err   error
	All   bool // Err is of the whole run, not of this key

	// Since is a number of Run.Step, no time: of the step that shows Row to be current, which is the statement that read it, or
	// stored it behind its fence, or else the call of the loader. See Load.Answers.
	Since int

	// Until is when Row expires, of a row that was found; 0: it was loaded.
	Until int64
}

// Expired says that what was found has expired since: another key of the run was slow.
func (l *Loaded) Expired() bool { return l.Until != 0 && mono.Now() >= l.Until }

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

// Part says what a caller of Join has to do.
type Part int

const (
	// Leads: the caller has begun it, and must see to it that End is called.
	Leads Part = iota
	// Joins: the caller waits for Done, uses the result only if Answers says so, and must call l.Run.Leave.
	Joins
	// Waits: the caller waits for Done and calls Join again.
	Waits
)

// Join joins the load of k that is under way, or begins one for run, which only a caller that Leads uses. Where an invalidation
// has overtaken the load, or all its waiters have left, the caller Waits: so at most one load of a key is under way in the
// process, and all who came meanwhile share the next:
//
//	load 1 begins         Delete         100 callers come: they wait
//	load 1 ends                          the first of them begins load 2, the others join it
//
// arrived is when the caller first asked, by Now. While a transaction of ours writes k or removes a group, a caller joins only a load that began
// after it had arrived: the transaction may have committed in between.
func (t *Tracker) Join(k Key, run *Run, arrived int64) (l *Load, part Part, steps int) {
	s := t.enter(k)
	defer s.mu.Unlock()
	if l := s.loads[k]; l != nil {
		if !l.overtaken && (s.txs[k] == nil && t.groups.open.Load() == 0 || l.began >= arrived) {
			if steps, ok := l.Run.join(); ok {
				return l, Joins, steps
			}
		}
		return l, Waits, 0
	}
	l = &Load{t: t, Key: k, Run: run, began: mono.Now(), done: make(chan struct{})}
	s.loads[k] = l
	return l, Leads, 0
}

// End ends the load; nobody joins it any more.
func (l *Load) End(out Loaded) {
	s := l.t.shard(l.Key)
	s.mu.Lock()
	delete(s.loads, l.Key)
	s.mu.Unlock()
	l.out = out
	close(l.done)
}

// Done is closed when the load has ended; then Result says how.
func (l *Load) Done() <-chan struct{} { return l.done }

// Result returns how the load ended.
func (l *Load) Result() Loaded { return l.out }

// Answers says whether a caller that arrived when Join was given arrived, and had steps from it, may use the result: what
// shows that it is current began after the caller had come. Else a Delete may have been done before the caller came that the
// result does not show. A caller whose load does not answer begins another, or joins one that has begun since: that one answers.
func (l *Load) Answers(steps int, arrived int64) bool {
	return l.out.Since > steps || l.began >= arrived
}

// waits is the wait-for graph of the runs of this process, to find deadlocks. Only loaders that ask a cache themselves make
// edges, so it is empty most of the time.
var waits = struct {
	sync.Mutex
	on map[*Run]map[*Run]int // whom each run waits for, and how often
}{on: map[*Run]map[*Run]int{}}

// WaitFor notes that the loader of r waits for other, until done is called, once. Not ok: other waits for r, itself or through
// others, which would be a deadlock.
func (r *Run) WaitFor(other *Run) (done func(), ok bool) {
	waits.Lock()
	defer waits.Unlock()
	if reaches(other, r, map[*Run]bool{}) {
		return nil, false
	}
	if waits.on[r] == nil {
		waits.on[r] = map[*Run]int{}
	}
	waits.on[r][other]++
	return func() {
		waits.Lock()
		defer waits.Unlock()
		if waits.on[r][other]--; waits.on[r][other] == 0 {
			delete(waits.on[r], other)
		}
		if len(waits.on[r]) == 0 {
			delete(waits.on, r)
		}
	}, true
}

// reaches says whether from waits for to. With the lock held.
func reaches(from, to *Run, seen map[*Run]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	for next := range waits.on[from] {
		if reaches(next, to, seen) {
			return true
		}
	}
	return false
}
