package session

import (
	"context"
	"database/sql"
)

// settings are what a connection was set to before it became the session, in the order of ours.
type settings []sql.NullString

// ours are the settings of the session.
var ours = []struct{ name, value string }{
	// A process that is frozen, or cut off without a word, must not hold its locks for as long as TCP takes to notice:
	// hours. Longer than any load, whose lock is held on an idle session.
	{"idle_session_timeout", "300000"},
	// Flushes and looks under a lock must see what was committed before the lock was theirs.
	{"default_transaction_isolation", "read committed"},
	// No statement of ours waits for long: others want the session.
	{"lock_timeout", "1000"},
}

// set sets ours and remembers what was there, for restore. RESET would not do: the application may have set its own when
// the connection was made.
func (s *Session) set(ctx context.Context) error {
	row := s.conn.QueryRowContext(ctx, "SELECT current_setting('max_locks_per_transaction')::int")
	var perTransaction int
	if err := row.Scan(&perTransaction); err != nil {
		return err
	}
	s.budget = budget(perTransaction)
	for _, o := range ours {
		var was sql.NullString
		// A server that does not know a setting has no value for it, and does without.
		err := s.conn.QueryRowContext(ctx, "SELECT current_setting($1, true)", o.name).Scan(&was)
		if err == nil && was.Valid {
			_, err = s.conn.ExecContext(ctx, "SELECT set_config($1, $2, false)", o.name, o.value)
		}
		if err != nil {
			return err
		}
		s.before = append(s.before, was)
	}
	return nil
}

// restore frees all locks and sets everything as it was.
func (b settings) restore(ctx context.Context, conn *sql.Conn) error {
	if _, err := conn.ExecContext(ctx, "SELECT pg_advisory_unlock_all(), set_config('pgcache.session', '', false)"); err != nil {
		return err
	}
	for i, was := range b {
		if was.Valid {
			if _, err := conn.ExecContext(ctx, "SELECT set_config($1, $2, false)", ours[i].name, was.String); err != nil {
				return err
			}
		}
	}
	return nil
}
