package store

import (
	"context"
	"database/sql"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// A pool as sql.Open makes it keeps two idle connections and closes every other that comes back. A cache has more
// queues than that, each of which gives its connection back and wants one again at once:
//
//	pool, 2 idle     read ends, its connection would be the third: closed
//	                 the next read, 20 µs later, finds none: connects
//
// So a connection is kept for the next statement, until none has come for keepFor. Others must not wait for it longer than
// that: a pool that has given out all it may gets it back at once.
//
// Whether others wait can't be seen where there is a pool beneath database/sql, as stdlib.OpenDBFromPool makes it. Such a *sql.DB
// keeps no idle connection. There, and until it is known, a connection is kept no longer than keepFor after it was taken.
const (
	keepFor = 5 * time.Millisecond
	keepMax = readSlots + leaseSlots + 4 // the slots of reads and leases, and 4 for the queues that write
)

// NoConnectionError is the error of a statement that was not sent because the pool had no connection before Err, the end of a context.
type NoConnectionError struct{ Err error }

func (e *NoConnectionError) Error() string { return "no free connection in the pool: " + e.Err.Error() }

// Unwrap returns the end of the context.
func (e *NoConnectionError) Unwrap() error { return e.Err }

// conns hands out the connections of a pool.
type conns struct {
	db      *sql.DB
	waiting atomic.Int32 // statements that wait for the pool

	mu     sync.Mutex
	kept   []keptConn // the last used is the last
	armed  bool       // a timer runs that gives them back
	closed bool
	idles  bool // the pool keeps idle connections itself; false: it does not, or it is not known yet
}

type keptConn struct {
	*sql.Conn
	taken, used time.Time
}

// take returns a connection to be given back with done.
func (p *conns) take(ctx context.Context) (keptConn, error) {
	// As sql.DB.Conn does: a driver may answer before it notices that the context has ended.
	if err := ctx.Err(); err != nil {
		return keptConn{}, err
	}
	p.mu.Lock()
	if n := len(p.kept); n > 0 {
		c := p.kept[n-1]
		p.kept = p.kept[:n-1]
		p.mu.Unlock()
		return c, nil
	}
	p.mu.Unlock()
	p.waiting.Add(1)
	defer p.waiting.Add(-1)
	c, err := p.db.Conn(ctx)
	if err != nil {
		// The pool says just what the context says; a connection that can't be made brings an error of its own.
		if err == ctx.Err() && errors.Is(err, context.DeadlineExceeded) { //nolint:errorlint // see above
			err = &NoConnectionError{err}
		}
		return keptConn{}, &connectError{err}
	}
	return keptConn{Conn: c, taken: time.Now()}, nil
}

// connectError is of a connection that could not be had; no statement was sent.
type connectError struct{ err error }

func (e *connectError) Error() string { return e.err.Error() }
func (e *connectError) Unwrap() error { return e.err }

// done gives back a connection, or keeps it. ok says that its statement came back without an error: of others nobody
// knows whether the connection still lives.
func (p *conns) done(c keptConn, ok bool) {
	stats := p.db.Stats()
	full := stats.MaxOpenConnections > 0 && stats.InUse >= stats.MaxOpenConnections
	c.used = time.Now()
	p.mu.Lock()
	back := []keptConn{c}
	if full {
		back = append(back, p.kept...)
		p.kept = nil
	} else if ok && !p.closed && len(p.kept) < keepMax && !p.expired(c) {
		back = nil
		p.kept = append(p.kept, c)
		if !p.armed {
			p.armed = true
			time.AfterFunc(keepFor, p.release)
		}
	}
	p.mu.Unlock()
	p.giveBack(back)
}

// expired says that c must go back now. With the mutex held.
func (p *conns) expired(c keptConn) bool {
	if p.idles {
		return time.Since(c.used) >= keepFor
	}
	return time.Since(c.taken) >= keepFor
}

// giveBack gives connections back to the pool, and looks whether it keeps them.
func (p *conns) giveBack(cs []keptConn) {
	if len(cs) == 0 {
		return
	}
	before := p.db.Stats()
	for _, c := range cs {
		c.Close()
	}
	after := p.db.Stats()
	p.mu.Lock()
	defer p.mu.Unlock()
	p.idles = after.Idle > 0 || after.MaxIdleClosed == before.MaxIdleClosed
}

// release gives back what was kept for long enough.
func (p *conns) release() {
	p.mu.Lock()
	var old []keptConn
	p.kept = slices.DeleteFunc(p.kept, func(c keptConn) bool {
		expired := p.expired(c)
		if expired {
			old = append(old, c)
		}
		return expired
	})
	if p.armed = len(p.kept) > 0; p.armed {
		time.AfterFunc(keepFor, p.release)
	}
	p.mu.Unlock()
	p.giveBack(old)
}

// close gives back all.
func (p *conns) close() {
	p.mu.Lock()
	kept := p.kept
	p.kept, p.closed = nil, true
	p.mu.Unlock()
	for _, c := range kept {
		c.Close()
	}
}

// late is the error of a request that was never sent, within the timeout of its queue.
func (p *conns) late() error {
	if p.waiting.Load() > 0 {
		return &NoConnectionError{context.DeadlineExceeded}
	}
	return context.DeadlineExceeded
}
