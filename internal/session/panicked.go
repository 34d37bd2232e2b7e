package session

import (
	"database/sql"
	"database/sql/driver"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/panics"
	"github.com/pgcache/go/internal/redact"
)

// A driver that panics leaves the connection in a state that nobody knows, and database/sql in one in which closing it may block for ever:
//
//	sql.Conn.QueryContext: takes the lock that Close waits for, and the driver panics before it is given back
//
// So the driver's own connection is closed, and the pool's is left behind: the pool has one less. For that not to use up the pool no
// new one is taken for a while, which doubles with each panic that comes soon after the last.
const (
	panicPause, panicPauseMax = time.Second, 5 * time.Minute
)

// panicked is what is known of panics. It is of whoever has the turn.
type panicked struct {
	err   error
	pause time.Duration
	until time.Time // no connection is taken before
}

// pausing is the error of a connection that is not taken yet.
func (p *panicked) pausing() error {
	if time.Now().Before(p.until) {
		return fmt.Errorf("no new session is opened for %v: %w", p.pause, p.err)
	}
	return nil
}

func (p *panicked) note(err error) {
	now := time.Now()
	if now.Sub(p.until) > panicPauseMax {
		p.pause = 0
	}
	p.err, p.pause = redact.Database(err), min(max(2*p.pause, panicPause), panicPauseMax)
	p.until = now.Add(p.pause)
}

// abandon is discard after a panic of the driver. The caller has the turn.
func (s *shared) abandon(err error) {
	s.panicked.note(err)
	if s.conn == nil {
		return
	}
	leave(s.conn)
	s.forget()
}

// leave closes the driver's own connection, and leaves the pool's behind.
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

// guarded calls f, which calls the driver.
func guarded(f func() error) (err error) {
	defer panics.Recover(&err)
	return f()
}
