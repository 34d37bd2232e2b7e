package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/shardmap"
	"github.com/pgcache/go/internal/store"
)

// This file keeps the node's routes up to date: which shard has which key. Each server has the map and its epoch recorded; the epoch grows
// by one with each step of a Move, which records a step on all servers and then waits for shardWait before it records the next. A node asks each server
// once a second, follows the latest epoch that it has seen anywhere, and uses a server only within shardLease of having asked that
// server. So no two nodes are ever more than one epoch apart:
//
//	node                              Move
//	asks A at 0.0 s: epoch 4
//	                                  records 5 on A at 0.1 s, on all others by 0.2 s
//	uses A by epoch 4 until 3.0 s
//	asks A again, or stops            records 6 at 4.2 s
//
// What it costs is one statement a second and server on the node's own session. See docs/decisions/0025.
const (
	shardEvery = time.Second
	shardLease = 3 * time.Second
	// shardWait is longer by what clocks may differ in their speed, and by a second for a machine that was busy in between.
	shardWait = shardLease + time.Second

	lookTimeout = time.Second
	lookRetry   = 250 * time.Millisecond    // after a look that failed
	failsFor    = lookTimeout + 4*lookRetry // how long calls are answered with its error
)

// shard is a Shard as this node sees it.
type shard struct {
	name string
	c    *Cache

	turn   chan struct{} // has room for one, and is full while a caller of look has the turn
	lease  atomic.Pointer[lease]
	failed atomic.Pointer[failedLook]
	behind atomic.Bool // it was warned that the server has an old map
}

// lease says until when a server's state of the map is fresh enough. Both clocks count: the monotonic one stands still while a machine is
// suspended, the other one may be set.
type lease struct {
	until int64     // of mono.Now
	wall  time.Time // without its monotonic part
}

func (l *lease) valid() bool {
	return l != nil && mono.Now() < l.until && time.Now().Round(0).Before(l.wall)
}

// failedLook is a look that has failed: calls get its error for failsFor, and do not ask the server again.
type failedLook struct {
	at  time.Time
	err error
}

// follow asks the server of sh once a second until its Cache is closed.
func (s *Shards) follow(sh *shard) {
	sh.c.local.TrustShard(time.Now().Add(-time.Hour)) // nothing in memory is served before the first look
	release := sh.c.session.Keep()
	if !sh.c.goDo(func() {
		defer release()
		timer := time.NewTimer(0)
		defer timer.Stop()
		for {
			select {
			case <-timer.C:
			case <-sh.c.ctx.Done():
				return
			}
			pause := shardEvery
			if err := s.look(sh.c.ctx, sh, time.Now()); err != nil {
				pause = lookRetry
				if sh.c.ctx.Err() == nil {
					sh.c.warn("the map of shards can't be read: the shard is not used until it can", "shard", sh.name, "error", err)
				}
			}
			timer.Reset(pause)
		}
	}) {
		release()
	}
}

// hold returns nil if shard i may be used: its server was asked within shardLease, or is asked now.
func (s *Shards) hold(ctx context.Context, i int) error {
	sh := s.shards[i]
	if sh.c.ctx.Err() != nil {
		return ErrClosed
	}
	if s.allNull || sh.lease.Load().valid() {
		return nil
	}
	now := time.Now()
	// A server that is down keeps no call waiting: follow asks it again and again.
	if f := sh.failed.Load(); f != nil && now.Sub(f.at) < failsFor {
		return fmt.Errorf("shard %q: %w", sh.name, f.err)
	}
	if err := s.look(ctx, sh, now); err != nil {
		return fmt.Errorf("shard %q: %w", sh.name, err)
	}
	return nil
}

// look asks the server of sh, once for all callers that come while one is asking. came is when this one came.
func (s *Shards) look(ctx context.Context, sh *shard, came time.Time) error {
	select {
	case sh.turn <- struct{}{}:
		defer func() { <-sh.turn }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if f := sh.failed.Load(); f != nil && f.at.After(came) {
		return f.err
	}
	if l := sh.lease.Load(); l.valid() && l.until > mono.At(came)+int64(shardLease) {
		return nil
	}
	err := s.ask(ctx, sh)
	if err == nil {
		sh.failed.Store(nil)
	} else if ctx.Err() == nil {
		sh.failed.Store(&failedLook{time.Now(), err})
	}
	return err
}

// ask reads the state from the server of sh and follows it. It follows the state before it extends the lease, so that no call uses the
// shard by an older map.
func (s *Shards) ask(ctx context.Context, sh *shard) error {
	asked := time.Now()
	var state store.Shard
	err := sh.c.onSession(ctx, lookTimeout, func(ctx context.Context, conn *sql.Conn) (err error) {
		state, err = sh.c.store.Shard(ctx, conn)
		return err
	})
	if errors.Is(err, sql.ErrNoRows) {
		err = ErrNotMigrated
	}
	if err != nil {
		return sh.c.explainWithin(ctx, err, "the time for a look at the map", lookTimeout)
	}
	if err := s.learn(sh, state); err != nil {
		return err
	}
	sh.lease.Store(&lease{mono.At(asked.Add(shardLease)), asked.Add(shardLease).Round(0)})
	sh.c.local.TrustShard(asked.Add(shardLease))
	return nil
}

// learn follows what the server of sh has recorded.
func (s *Shards) learn(sh *shard, state store.Shard) error {
	wrong := func(reason string) error {
		return &ShardMapError{Shard: sh.name, Recorded: state.Map, Given: s.given(), Reason: reason}
	}
	switch {
	case state.Name == "":
		return wrong("no map of shards is recorded, run Shards.Migrate")
	case state.Name != sh.name:
		return wrong(fmt.Sprintf("the server of shard %q is recorded as %q", sh.name, state.Name))
	}
	if r := s.routes.Load(); r != nil && r.epoch >= state.Epoch {
		// A step that was recorded on some servers only, and lost there by a failover, may be followed by another of the same epoch. A node
		// that has seen the first must not use the shards by it; it follows the next step.
		if r.epoch == state.Epoch && (r.text != state.Map || r.toText != state.Next) {
			return wrong("this node follows another map of the same epoch, which the servers have lost, as by a failover")
		}
		sh.watchBehind(r, state)
		return nil
	}
	r, err := s.routesOf(state)
	if err != nil {
		return wrong(err.Error())
	}
	if r.err != nil {
		r.err = wrong(r.err.Error())
		sh.c.warn("this node lacks a shard of the map: what needs it fails", "error", r.err)
	}
	s.install(r)
	return nil
}

// watchBehind warns, once, of a server that has lost more than the last step: it was restored from a backup, or has failed over to a standby
// that was far behind. No node that knows r looks there for a key that has moved since. One that reaches this server alone would.
func (sh *shard) watchBehind(r *routes, state store.Shard) {
	members, _ := shardmap.Parse(r.toText)
	behind := state.Epoch < r.epoch-1 && slices.Contains(append(members, r.names...), sh.name)
	if behind && !sh.behind.Swap(true) { // not by warn, which leaves out what comes within a second of another warning
		sh.c.log.Warn("pgcache: the server of this shard has lost steps of the map, as by a restore from a backup: drop the cache's tables there and call Migrate, or call Move with the names of the map",
			"shard", sh.name, "recorded", state.Map, "epoch", state.Epoch, "map", r.text)
	} else if !behind {
		sh.behind.Store(false)
	}
}

// routesOf makes routes of a state. Its err says which shards this node lacks.
func (s *Shards) routesOf(state store.Shard) (*routes, error) {
	names, err := shardmap.Parse(state.Map)
	if err != nil {
		return nil, err
	}
	r := &routes{epoch: state.Epoch, text: state.Map, toText: state.Next, now: s.table(names), names: names}
	members := names
	if state.Next != "" {
		next, err := shardmap.Parse(state.Next)
		if err != nil {
			return nil, err
		}
		r.next = s.table(next)
		members = append(members[:len(members):len(members)], next...)
	}
	r.members = s.indexes(members)
	var lacks []string
	for _, name := range members {
		if s.index(name) < 0 && !slices.Contains(lacks, name) {
			lacks = append(lacks, name)
		}
	}
	switch {
	case lacks == nil:
	case state.Next != "":
		r.err = fmt.Errorf("this node lacks the shards %s: keys are moving to %s", describe(lacks), state.Next)
	default:
		r.err = fmt.Errorf("this node lacks the shards %s", describe(lacks))
	}
	return r, nil
}

// install follows r unless a later state is followed already. It makes the memory of a shard that takes keys over forget what it held of
// them when it had them last: they get new rows there, and inserts are not published. It does so before any call looks there,
//
//	look: follows r                      Get of a key that is back on b
//	                                     finds in b's memory what was there before the key went away
//	look: forgets what b's memory has
//
// and again afterwards, for OnInvalidate: a program that heard of the first may have kept what it loaded before r was followed.
func (s *Shards) install(r *routes) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := s.routes.Load()
	if before != nil && before.epoch >= r.epoch {
		return
	}
	forget := func() {
		for i, sh := range s.shards {
			if before != nil && r.takesOver(i, before) {
				sh.c.local.Forget()
			}
		}
	}
	forget()
	s.routes.Store(r)
	forget()
}

// takesOver says whether shard i has keys by r that it may not have had ever since before.
func (r *routes) takesOver(i int, before *routes) bool {
	for slot, owner := range r.now {
		if int(owner) == i && (before.now[slot] != owner || before.epoch < r.epoch-1) {
			return true
		}
	}
	return false
}

// current returns the routes in force, after it has made sure that the shards which p picks may be used. bad has the errors of those that
// may not.
func (s *Shards) current(ctx context.Context, p func(r *routes) []int) (_ *routes, bad map[int]error, _ error) {
	for {
		r := s.routes.Load()
		if r == nil {
			if err := s.anyone(ctx); err != nil {
				return nil, nil, err
			}
			continue
		}
		bad = nil
		for _, i := range p(r) {
			if err := s.hold(ctx, i); err != nil {
				if bad == nil {
					bad = map[int]error{}
				}
				bad[i] = err
			}
		}
		if s.routes.Load() == r { // else a look has found that the map is another by now
			return r, bad, ctx.Err()
		}
	}
}

// anyone asks all servers for the first state that this node sees.
func (s *Shards) anyone(ctx context.Context) error {
	err := s.each(s.all(), func(i int) error { return s.hold(ctx, i) })
	if s.routes.Load() != nil {
		return nil
	}
	return err
}

// still returns the routes that are in force now that something has been done on the shards in list. kept then says for which keys it
// may be acknowledged.
func (s *Shards) still(ctx context.Context, list ...int) (now *routes, err error) {
	for _, i := range list {
		if err := s.hold(ctx, i); err != nil {
			return nil, err
		}
	}
	return s.routes.Load(), nil
}

// kept says whether what was done with a key by r may be acknowledged by the routes now: the key is on the same shard, and was not used on
// another in between. Two epochs later at the most, a Move can only have begun and been taken back, and writes went to this shard all the
// time. After more epochs the key may have been on another shard and come back.
func (r *routes) kept(now *routes, hash uint64) bool {
	if r == now {
		return true
	}
	i, before := r.settled(hash)
	j, after := now.settled(hash)
	return before && after && i == j && now.epoch <= r.epoch+2
}
