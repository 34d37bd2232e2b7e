package store

import (
	"context"

	"github.com/pgcache/go/internal/sqlerr"
)

// tries bounds how often a statement is sent: a pool may hand out several connections that a restart has cut.
const tries = 3

// lost says that a statement that only reads may be sent again.
func lost(err error) bool { return sqlerr.Connection(err) || sqlerr.Conflict(err) }

// notDone says that a statement that writes may be sent again. Where the reply was lost it may not:
//
//	A          database      B
//	Set v1 --> v1
//	           v2 <--------- Set v2
//	lost       v2
//	again  --> v1            a write that came after, undone
func notDone(err error) bool { return sqlerr.NotDone(err) || sqlerr.Conflict(err) }

// retry sends a statement again after errors of which again says so.
func retry[T any](ctx context.Context, again func(error) bool, send func() (T, error)) (T, error) {
	for try := 1; ; try++ {
		v, err := send()
		if err == nil || !again(err) || try == tries || ctx.Err() != nil {
			return v, err
		}
	}
}
