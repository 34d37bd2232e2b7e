package store

import (
	"context"
	"database/sql"
	"sync"

	"github.com/pgcache/go/internal/dbsqlc"
)

// rendering is a DB for statements with templates. It fills in the templates of each statement once, and keeps the text.
type rendering struct {
	DB
	names    Names
	texts    *sync.Map // generated text -> text for this cache
	prepared *sync.Map // generated text -> *sql.Stmt; nil: leave it to the driver
	conns    *conns    // of the pool; nil: DB is a connection or a transaction
}

// stmt returns the prepared statement of a generated text, or nil.
func (r *rendering) stmt(ctx context.Context, query string) *sql.Stmt {
	if r.prepared == nil {
		return nil
	}
	if s, ok := r.prepared.Load(query); ok {
		return s.(*sql.Stmt)
	}
	s, err := r.PrepareContext(ctx, r.text(query))
	if err != nil {
		return nil // sent unprepared, it returns the error to its caller
	}
	first, loaded := r.prepared.LoadOrStore(query, s)
	if loaded {
		s.Close()
	}
	return first.(*sql.Stmt)
}

func (r *rendering) text(sql string) string {
	if t, ok := r.texts.Load(sql); ok {
		return t.(string)
	}
	t := r.names.Render(sql)
	r.texts.Store(sql, t)
	return t
}

func (r *rendering) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	if s := r.stmt(ctx, query); s != nil {
		return s.ExecContext(ctx, args...)
	}
	return r.DB.ExecContext(ctx, r.text(query), args...)
}

func (r *rendering) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	if s := r.stmt(ctx, query); s != nil {
		return s.QueryContext(ctx, args...)
	}
	return r.DB.QueryContext(ctx, r.text(query), args...)
}

func (r *rendering) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	if s := r.stmt(ctx, query); s != nil {
		return s.QueryRowContext(ctx, args...)
	}
	return r.DB.QueryRowContext(ctx, r.text(query), args...)
}

// on returns a rendering for another connection or a transaction.
func (s *Store) on(db DB) *rendering {
	return &rendering{DB: db, names: s.Names, texts: s.sql.texts}
}

// with returns the queries on another connection or a transaction.
func (s *Store) with(db DB) *dbsqlc.Queries { return dbsqlc.New(s.on(db)) }
