package store

import (
	"context"
	"errors"

	"github.com/pgcache/go/internal/sqlerr"
)

// A statement is sent up to tries times. After a restart of the server a pool may hold many dead connections. A statement that finds one
// removes it from the pool, which counts as one of deadConns instead. A connection that can't be made counts as one of tries:
// otherwise every node would try 64 times at once while the server starts.
const (
	tries     = 3
	deadConns = 64
)

// foundDead says of an error that the connection was dead, and is no longer in the pool.
func foundDead(err error) bool {
	var connect *connectError
	return sqlerr.Connection(err) && !sqlerr.Dial(err) && !errors.As(err, &connect)
}

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
	sent, found := 0, 0
	for {
		v, err := send()
		if err == nil || !again(err) || ctx.Err() != nil {
			return v, err
		}
		if foundDead(err) {
			found++
		} else {
			sent++
		}
		if sent == tries || found == deadConns {
			return v, err
		}
	}
}
