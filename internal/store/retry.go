package store

import (
	"context"

	"github.com/pgcache/go/internal/sqlerr"
)

// tries bounds how often a statement is sent: a pool may hand out several connections that a restart has cut.
const tries = 3

// retry sends a statement again after a lost connection or a conflict. Only for statements that may be done twice.
func retry[T any](ctx context.Context, send func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := send()
		again := sqlerr.Connection(err) || sqlerr.Conflict(err)
		if err == nil || !again || try == tries || ctx.Err() != nil {
			return v, err
		}
	}
}
