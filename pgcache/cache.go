package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/internal/session"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/window"
	"github.com/pgcache/go/localcache"
)

// A Cache keeps entries in a table of Postgres and the ones that are in use in this process's memory. It is safe for
// concurrent use. Make one per table and process, and keep it.
type Cache struct {
	null   bool // see Null
	db     *sql.DB
	opts   Options
	log    *slog.Logger
	base   view // of the untyped methods: the options of the Cache
	store  *store.Store
	local  *coherence.Tracker // opts.Local, and which of its entries may be handed out
	locks  Locks
	window *window.Window // when this node's changes are published

	session     *session.Session // one connection per pool: pulses, flushes and advisory locks run on it
	pulsing     pulsing          // the state of the pulse
	release     func()           // allows the session to be closed when idle; nil without a Listener
	polling     atomic.Bool      // the Listener polls
	polls       atomic.Uint64    // how many polls have begun
	echoes      echoes           // the probes that catchUp waits for
	block       atomic.Int64     // where the next Cleanup begins
	fencedUntil atomic.Int64     // Cleanup has fenced loads and may remove the rows that had expired by then; 0: there are none left

	schema schema
	stats  counters     // what is counted for the Cache as a whole
	views  viewCounters // and for each namespace

	failing    recent[error] // keys whose loader failed a moment ago, with its error, see StaleFor
	staleness  recent[int64] // the versions written here, each until the end of its StaleFor, see noteStale
	earlyLoads earlyLoads    // see RefreshAfter
	updates    turns         // of Typed.Update

	txs openTxs

	ctx     context.Context // ends with Close
	cancel  context.CancelFunc
	mu      sync.Mutex // of goDo and Close: no goroutine begins after Close has begun to wait
	wg      sync.WaitGroup
	closing sync.Once

	hook      hook      // calls OnInvalidate
	late      late      // how late invalidations are, for the Observer
	unobserve func()    // what Observer.Open has returned
	listening listening // the state of the listener
	refresh   refresh   // Options.Refresh

	lastLog     atomic.Int64 // when warn has logged last
	lastUnknown atomic.Int64 // when an unknown message was last logged
}

// New returns a Cache on the pool db. It touches no network: it checks the options, and connects its listener in the
// background. Until the listener is live, and whenever it is not, every Get asks the database.
//
// An error names the option and what is wrong with it.
func New(db *sql.DB, opts Options) (*Cache, error) {
	opts = opts.withDefaults()
	names, err := opts.validate(db)
	if err != nil {
		return nil, err
	}
	c := &Cache{
		db: db, opts: opts, log: opts.Logger,
		store: store.New(db, names, opts.Timeout, opts.PrepareStatements),
		local: coherence.New(opts.Local, opts.LocalTTL),
		locks: opts.Guard.Open(db, names.Space()),
	}
	c.store.Largest = int64(opts.MaxValueBytes)
	c.base = newView(c)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	c.window = window.New(max(opts.InvalidationWindow, time.Millisecond), opts.MaxWindow, opts.InvalidationWindow == Immediate, changeLog{c})
	c.window.SetUnnotified(true) // until the listener is live
	c.local.OnPublished = c.window.Published
	c.openHook()
	c.openObserver()
	if opts.Refresh {
		c.local.OnEvicted = c.refresh.add
		c.refresh.wake = make(chan struct{}, 1)
		c.goDo(func() { c.refresh.run(c) })
	}
	c.goDo(func() { c.window.Run(c.ctx) })
	c.listening.changed = make(chan struct{})
	c.session = session.Open(db)
	switch {
	case opts.Listener != nil:
		c.pulsing.wake = make(chan struct{}, 1)
		c.pulsing.idleAfter.Store(int64(idleAfter))
		c.release = c.session.Keep()
		c.goDo(c.listen)
		c.goDo(c.pulses)
	case opts.LocalTTL > 0:
		c.local.AlwaysOn()
	}
	if opts.CleanupInterval > 0 {
		c.goDo(c.janitor)
	}
	return c, nil
}

// Null returns a Cache that stores nothing: every Get misses, every GetOrSet loads. It needs no database and is the
// drop-in for tests and for switching caching off. Keys, TTLs and values are checked as ever.
func Null() *Cache {
	c := &Cache{null: true, opts: Options{Codec: codec.JSON{}, Local: localcache.None(), Guard: NoGuard()}.withDefaults()}
	c.log = c.opts.Logger
	c.local = coherence.New(c.opts.Local, 0)
	c.base = newView(c)
	c.ctx, c.cancel = context.WithCancel(context.Background())
	return c
}

// Close ends the cache's goroutines and connections, waits for them, and forgets what is in memory. Loads that are under
// way end with ErrClosed. The pool stays open: it is the caller's. Close may be called again.
func (c *Cache) Close() error {
	c.mu.Lock()
	c.cancel()
	c.mu.Unlock()
	c.wg.Wait()
	c.local.Close()
	if c.null {
		return nil
	}
	err := c.locks.Close() // it may have statements of the store's to send
	c.store.Close()
	c.closing.Do(func() {
		if c.unobserve != nil {
			func() {
				defer c.survive()
				c.unobserve()
			}()
		}
		if c.release != nil {
			c.release()
		}
		err = errors.Join(err, c.session.Close())
	})
	return err
}

// goDo runs f in a goroutine that Close waits for. It says false, and runs nothing, once the cache is closed.
func (c *Cache) goDo(f func()) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ctx.Err() != nil {
		return false
	}
	c.wg.Go(f)
	return true
}

// Ready waits until the schema is found and the listener, if there is one, is live. It returns at once what won't mend
// itself: ErrNotMigrated, a SchemaError, a RightsError, which names every right that is missing, a table that is not as
// Durable says, a client_encoding other than UTF8, or a Listener that can never work. Else it waits for ctx and says what was still
// missing.
//
// A node that was Ready stays so while nobody reads: it is idle then, and the next read wakes it.
//
// A role that may only read is Ready if it has no right to write at all, and CleanupInterval is negative.
func (c *Cache) Ready(ctx context.Context) error {
	if c.null {
		return c.closedErr("ready")
	}
	var last error
	for {
		changed := c.listening.wait()
		last = c.check(ctx)
		if !c.schema.proven.Load() && (last == nil || sqlerr.Denied(last) || sqlerr.NoObject(last)) {
			last = c.prove(ctx, last)
		}
		if last != nil && isPermanent(last) {
			return fail("ready", "", last)
		}
		if last == nil {
			if c.opts.Listener == nil || c.local.Live() || c.onlyIdle() {
				return nil
			}
			var permanent bool
			if last, permanent = c.listening.err(); permanent || errors.Is(last, errPolls) && c.schema.readOnly.Load() {
				return fail("ready", "", last)
			}
		}
		timer := time.NewTimer(100 * time.Millisecond)
		select {
		case <-changed:
		case <-timer.C:
		case <-c.ctx.Done():
		case <-ctx.Done():
			timer.Stop()
			if last == nil {
				last = errors.New("the listener is not live yet")
			}
			return fail("ready", "", errors.Join(ctx.Err(), last))
		}
		timer.Stop()
	}
}

func (c *Cache) closedErr(op string) error {
	if c.ctx.Err() != nil {
		return fail(op, "", ErrClosed)
	}
	return nil
}

// check returns an error if no statement can be sent: after Close, or with the schema missing or of another version. Once the schema has
// been seen it costs an atomic load.
func (c *Cache) check(ctx context.Context) error {
	if c.ctx.Err() != nil {
		return ErrClosed
	}
	if c.schema.known.Load() {
		return nil
	}
	return c.schema.look(ctx, c)
}

// statement returns the context of one statement, which Timeout ends.
func (c *Cache) statement(ctx context.Context) (context.Context, context.CancelFunc) {
	return context.WithTimeout(ctx, c.opts.Timeout)
}

// warn logs at most once a second, because what it reports may come with every call.
func (c *Cache) warn(msg string, args ...any) { c.warnEvery(&c.lastLog, time.Second, msg, args...) }

// warnEvery logs at most once per interval, without the values that errors quote. last is when it has logged last, by the monotonic
// clock; 0: never.
func (c *Cache) warnEvery(last *atomic.Int64, interval time.Duration, msg string, args ...any) {
	now := coherence.Now()
	if before := last.Load(); (before == 0 || now-before > int64(interval)) && last.CompareAndSwap(before, now) {
		for i, a := range args {
			if err, ok := a.(error); ok {
				args[i] = redact.Database(err)
			}
		}
		c.log.Warn("pgcache: "+msg, args...)
	}
}
