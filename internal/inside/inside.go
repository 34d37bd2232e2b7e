// Package inside is what pgcachetest and pgcacheui may know of a Cache beyond its methods. Package pgcache fills it in.
package inside

import (
	"context"
	"database/sql"
	"time"

	"github.com/pgcache/go/internal/store"
)

// Cache is a *pgcache.Cache as pgcachetest and pgcacheui see it.
type Cache struct {
	DB    *sql.DB // nil: it is Null
	Names store.Names

	// CatchUp returns when the node answers with nothing older than what was committed before the call.
	CatchUp func(ctx context.Context) error

	// State says whether memory may be served, and why not; Figures reads sizes of the tables. Both are nil if it is Null.
	State   func() State
	Figures func(ctx context.Context) (store.Figures, error)

	// IdleAfter sets after how long without a read the node is idle.
	IdleAfter func(d time.Duration)
}

// State is what a node is in at the moment.
type State struct {
	Live      bool  // it serves from memory
	Idle      bool  // it does not, because nobody uses it
	Listens   bool  // it has a Listener; without one, memory is off or bounded by LocalTTL
	Polls     bool  // its Listener polls
	Err       error // why it is not live; nil where that is not known yet
	Permanent bool  // and never will be
	Closed    bool
	Memory    Memory
}

// Memory is what a node keeps in memory. Known is false where its localcache does not say.
type Memory struct {
	Entries int
	Full    float64 // how much of its bounds they take, 0 to about 1
	Known   bool
}

// Of shows a *pgcache.Cache.
var Of func(cache any) Cache
