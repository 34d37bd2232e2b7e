package pgcache

import (
	"context"
	"errors"
	"runtime/debug"
	"sync"
	"time"

	"github.com/pgcache/go/internal/coherence"
)

// An Observer is shown what a Cache does, to make metrics and spans of it: see the modules telemetry/otel and
// telemetry/prometheus. It is never shown a key or a value; only the callers' contexts and the errors that they get may hold
// what the program has put there. Its methods are called on the callers' goroutines, several at once, and must not
// block. A panic is logged, and the operation goes on. A hit in memory calls none of them: hits are counted, for each view, in Stats,
// whether there is an Observer or not.
//
// Types that it takes may get more fields, and more values of their kinds: skip what you don't know.
type Observer interface {
	// Open is called once, by New. stats is Cache.Stats, and may be called at any time. Close calls what Open returns, if
	// it isn't nil.
	Open(stats func() Stats) (closed func())

	// Begin is called when an operation begins, and what it returns when the operation has ended, if it isn't nil. The
	// operation goes on with the context that it returns, which must be ctx or made of it: so a loader sees the span of its load
	// and a driver that of its statement.
	Begin(ctx context.Context, op Op) (context.Context, func(Outcome))

	// Event is called for what has no duration.
	Event(e Event)
}

// An Op is an operation that begins.
type Op struct {
	Kind OpKind
	// Name is
	//   - of an OpCall what Error.Op says of it: "get", "set", "get or set" and so on ("keys" and "entries" are shown once for each
	//     page);
	//   - of an OpStatement "read", "write", or "store" for what was loaded;
	//   - of an OpWait "read";
	//   - of an OpLoad "load";
	//   - of an OpUpkeep "flush", "pulse", "refresh" or "sweep".
	Name string
	// View is the namespace of the view; "" for the Cache's own methods, and where views share the operation.
	View string
	// Keys is how many keys it is about, 0 where that is not known.
	Keys int
	// Callers are the contexts of all callers that share an OpStatement. Begin's ctx is then made of the first of them. nil: the
	// statement is of one caller.
	Callers []context.Context
}

// OpKind is a kind of operation.
type OpKind uint8

const (
	// OpCall is a call of a method that memory alone did not answer. Calls of many keys are shown also where it did.
	OpCall OpKind = iota + 1
	// OpStatement is a statement that reads or writes entries, without the wait for its turn.
	OpStatement
	// OpWait is a caller's wait for a read that another caller began.
	OpWait
	// OpLoad is a call of a loader.
	OpLoad
	// OpUpkeep is what a node does by itself.
	OpUpkeep
)

// Layer is where an answer comes from.
type Layer string

// The layers. Hits in LayerMemory are not shown one by one.
const (
	LayerMemory   Layer = "memory"
	LayerDatabase Layer = "database"
	LayerLoader   Layer = "loader"
)

// An Outcome is how an operation ended.
type Outcome struct {
	Layer Layer // that answered, of an OpCall
	Miss  bool  // there was nothing under the key, of an OpCall that reads
	Err   error
	// Callers are contexts of other operations that this one has to do with: of an OpLoad those of the callers that joined it, 128 at
	// most; of an OpWait that of the caller who read.
	Callers []context.Context
}

// Result is "ok", "miss", "not found" for ErrNotFound, "canceled" where the caller gave up, or "error".
func (o Outcome) Result() string {
	switch {
	case errors.Is(o.Err, ErrNotFound):
		return "not found"
	case errors.Is(o.Err, context.Canceled):
		return "canceled"
	case o.Err != nil:
		return "error"
	case o.Miss:
		return "miss"
	}
	return "ok"
}

// An Event is something that happened.
type Event struct {
	Kind EventKind
	// Late is, of an EventPublished, how long after the reply to the write its invalidation came back to the node that
	// wrote: as late as other nodes have it.
	Late time.Duration
	Err  error // why the listener was lost
}

// EventKind is a kind of event.
type EventKind uint8

const (
	// EventListenerUp says that the listener is live.
	EventListenerUp EventKind = iota + 1
	// EventListenerDown says that it was lost, or could not be made live.
	EventListenerDown
	// EventPublished says that the invalidation of one of this node's own writes has come back to it.
	EventPublished
)

// openObserver begins to show the cache to its Observer.
func (c *Cache) openObserver() {
	o := c.opts.Observer
	if o == nil {
		return
	}
	func() {
		defer c.survive()
		c.unobserve = o.Open(c.Stats)
	}()
	c.store.Observe(func(ctx context.Context, name string, callers []context.Context) (context.Context, func(error)) {
		op := c.begin(&ctx, Op{Kind: OpStatement, Name: name, Callers: callers})
		return ctx, func(err error) { op.end(nil, &err) }
	})
	c.late.at = map[int64]int64{}
	c.local.OnPublished = func(versions []int64) {
		c.window.Published(versions)
		for _, late := range c.late.published(versions) {
			c.event(Event{Kind: EventPublished, Late: late})
		}
	}
}

func (c *Cache) event(e Event) {
	if c.opts.Observer != nil {
		defer c.survive()
		c.opts.Observer.Event(e)
	}
}

// survive is deferred around each call of the Observer. It recovers from a panic and logs it: others wait for what the caller does, for a
// statement that they share, for the listener, or for the flush.
func (c *Cache) survive() {
	if p := recover(); p != nil {
		c.warn("the Observer panicked", "panic", panicText(p), "stack", string(debug.Stack()))
	}
}

// observation is an operation that is shown; nil: there is no Observer, or Begin panicked.
type observation struct {
	c      *Cache
	finish func(Outcome) // what Begin has returned; may be nil
	out    Outcome
}

// begin shows that op begins. The operation goes on with *ctx.
func (c *Cache) begin(ctx *context.Context, op Op) *observation {
	if c.opts.Observer == nil {
		return nil
	}
	defer c.survive()
	o := &observation{c: c, out: Outcome{Layer: LayerDatabase}}
	with, finish := c.opts.Observer.Begin(*ctx, op)
	if o.finish = finish; with != nil {
		*ctx = with
	}
	return o
}

// observe begins to show a call. The call goes on with *ctx.
func (v *view) observe(ctx *context.Context, op string, keys int) *observation {
	return v.c.begin(ctx, Op{Kind: OpCall, Name: op, View: v.namespace, Keys: keys})
}

// upkeep begins to show what the node does by itself.
func (c *Cache) upkeep(ctx *context.Context, name string) *observation {
	return c.begin(ctx, Op{Kind: OpUpkeep, Name: name})
}

// from says that layer answers the call.
func (o *observation) from(layer Layer) {
	if o != nil {
		o.out.Layer = layer
	}
}

// end shows how the operation ended. It is to be deferred, so it takes the addresses of results. found is nil for a call that does
// not say whether there was something.
func (o *observation) end(found *bool, err *error) {
	if o == nil || o.finish == nil {
		return
	}
	defer o.c.survive()
	o.out.Miss, o.out.Err = found != nil && !*found, *err
	o.finish(o.out)
}

// waitedFor ends the wait for what the caller with this context did.
func (o *observation) waitedFor(err error, callers ...context.Context) {
	if o != nil {
		o.out.Callers = callers
		o.end(nil, &err)
	}
}

// late measures how late invalidations are: by those of the node's own writes, from the reply until they come back. Only some
// writes are watched, so it stays small.
type late struct {
	mu sync.Mutex
	at map[int64]int64 // when the write was replied to, by its version; 0: not yet. nil: there is no Observer
}

const maxLate = 1024

// began is called before the statement is sent: the invalidation may come before the reply.
func (l *late) began(versions []int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.at == nil {
		return
	}
	if len(l.at) >= maxLate { // most are inserts, which are not published: no invalidation will come
		clear(l.at)
	}
	l.at[versions[0]] = 0
}

// replied is called with the reply. silent says that the statement published nothing.
func (l *late) replied(versions []int64, silent bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if _, ok := l.at[versions[0]]; ok && silent {
		delete(l.at, versions[0])
	} else if ok {
		l.at[versions[0]] = coherence.Now()
	}
}

// published is called with the versions of a notification, and returns how late those of the watched writes are.
func (l *late) published(versions []int64) (after []time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, v := range versions {
		if at, ok := l.at[v]; ok {
			delete(l.at, v)
			if at == 0 {
				at = coherence.Now() // before the reply
			}
			after = append(after, time.Duration(coherence.Now()-at))
		}
	}
	return after
}
