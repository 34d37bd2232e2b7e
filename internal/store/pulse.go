package store

import (
	"context"
	"time"
)

// Pulse is what a node must see every few seconds to go on trusting its memory.
type Pulse struct {
	State       State
	KeySecret   []byte        // nil: keys are not hidden
	Incarnation int64         // 0: a crash has removed it
	Server      int64         // identity of the server that answered
	Now         time.Duration // since 1970, by the database's clock
	Behind      bool          // the change log holds a change that is older than a second
	Polled      bool          // a poller lease is in force
	Watches     bool          // some table is watched
}

// Pulse reads it on db.
func (s *Store) Pulse(ctx context.Context, db DB) (Pulse, error) {
	r, err := s.with(db).Pulse(ctx)
	return Pulse{
		State:       State{Version: int(r.SchemaVersion), ID: r.ID, Channel: r.Channel, Hidden: r.KeySecret != nil},
		KeySecret:   r.KeySecret,
		Incarnation: r.Incarnation,
		Server:      r.Server,
		Now:         time.Duration(r.NowUs) * time.Microsecond,
		Behind:      r.Behind,
		Polled:      r.Polled,
		Watches:     r.Watches,
	}, err
}

// Server returns the identity of the server that the pool leads to.
func (s *Store) Server(ctx context.Context) (int64, error) { return s.q.Server(ctx) }
