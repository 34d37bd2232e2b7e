package session

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/redact"
)

// After a panic of a driver the state of the connection is unknown, and sql.Conn.Close may block for ever:
//
//	sql.Conn.QueryContext locks the mutex that Close waits for, the driver panics, and the mutex stays locked
//
// So the driver's own connection is closed, and the *sql.Conn is not: the pool has one connection less. Not to use up the pool, no
// new connection is taken for a pause, which doubles with each panic that comes soon after the last.
const (
	panicPause, panicPauseMax = time.Second, 5 * time.Minute
)

// panicked is what is known of panics of the driver. Only whoever has the turn uses it.
type panicked struct {
	err   error         // of the last panic
	pause time.Duration // how long no connection is taken after it
	until time.Time     // the end of the pause
}

// pausing returns an error during a pause.
func (p *panicked) pausing() error {
	if time.Now().Before(p.until) {
		return fmt.Errorf("no new session is opened for %v: %w", p.pause, p.err)
	}
	return nil
}

// note records the error of a panic and begins a pause.
func (p *panicked) note(err error) {
	now := time.Now()
	if now.Sub(p.until) > panicPauseMax {
		p.pause = 0
	}
	p.err, p.pause = redact.Database(err), min(max(2*p.pause, panicPause), panicPauseMax)
	p.until = now.Add(p.pause)
}

// abandon is discard after a panic of the driver, of which err is the error: it does not close the *sql.Conn, and begins a pause. The
// caller has the turn.
func (s *shared) abandon(err error) {
	s.panicked.note(err)
	if s.conn == nil {
		return
	}
	leave(s.conn)
	s.forget()
}

// leave closes the driver's own connection, and does not close conn: the pool never gets it back.
func leave(conn *sql.Conn) {
	_ = guarded(func() error {
		return conn.Raw(func(own any) error {
			if c, ok := own.(driver.Conn); ok {
				_ = c.Close()
			}
			return nil // an error would have database/sql close it
		})
	})
}

// guarded calls f, which calls the driver, and turns a panic into an error.
func guarded(f func() error) (err error) {
	defer panics.Recover(&err)
	return f()
}
