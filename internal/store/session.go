package store

import (
	"context"

	"github.com/pgcache/go/internal/dbsqlc"
)

// Backend is one server process.
type Backend = dbsqlc.BackendRow

// SessionSettings are what a session of ours changes, and how many locks a session may expect to have.
type SessionSettings = dbsqlc.SessionSettingsRow

// AskBackend says which server process answers on db.
func AskBackend(ctx context.Context, db DB) (Backend, error) { return dbsqlc.New(db).Backend(ctx) }

// AskSettings returns the settings of the session db.
func AskSettings(ctx context.Context, db DB) (SessionSettings, error) {
	return dbsqlc.New(db).SessionSettings(ctx)
}

// Configure changes the settings of the session db. done is false, and nothing is changed, if another backend answers
// than pid.
func Configure(ctx context.Context, db DB, pid int32, s SessionSettings) (done bool, err error) {
	return dbsqlc.New(db).ConfigureSession(ctx, dbsqlc.ConfigureSessionParams{
		Pid: pid, IdleSessionTimeout: s.IdleSessionTimeout, Isolation: s.Isolation, LockTimeout: s.LockTimeout,
	})
}

// Restore is Configure that also releases all advisory locks of the session.
func Restore(ctx context.Context, db DB, pid int32, s SessionSettings) (done bool, err error) {
	return dbsqlc.New(db).RestoreSession(ctx, dbsqlc.RestoreSessionParams{
		Pid: pid, IdleSessionTimeout: s.IdleSessionTimeout, Isolation: s.Isolation, LockTimeout: s.LockTimeout,
	})
}

// EndSession ends the backend of the session db.
func EndSession(ctx context.Context, db DB) error { return dbsqlc.New(db).EndSession(ctx) }
