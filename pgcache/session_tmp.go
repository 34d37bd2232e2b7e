package pgcache

import (
	"context"
	"database/sql"
)

type session interface {
	Do(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) error
}

type poolSession struct{ db *sql.DB }

func (p poolSession) Do(ctx context.Context, f func(ctx context.Context, conn *sql.Conn) error) error {
	conn, err := p.db.Conn(ctx)
	if err != nil {
		return err
	}
	defer conn.Close()
	return f(ctx, conn)
}
