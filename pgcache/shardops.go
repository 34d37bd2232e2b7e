package pgcache

import (
	"context"
	"errors"

	"github.com/pgcache/go/localcache"
)

// This file finds the shard of a call, and makes sure of it.
//
// A call looks at the map when it comes, and again when it is done, before it returns. If the map is the same, what was done in between was
// done by the map in force:
//
//	node 1: Set, by epoch 4              Move                      node 2
//	sends the row to A
//	                                     5, waits, 6
//	                                                               Get: asks B, loads what is older
//	the reply comes: Set returns     <-  node 2 would keep what is older
//
// A new map does not concern a key that has kept its place. If a key has moved, a write by the epoch that has ended counts as a value that
// was set and evicted at once: the key is deleted where it is now. The value is not set there again, because others may have written
// the key and read it meanwhile.
//
// A value that was read or loaded by an epoch that has ended is not returned, and the caller asks again. It is as new as the call, but it
// may be newer than the value where the key is now: the next Get could be older.

// hit returns what the memory of shard i has of a key that it has by r, or nil. Memory is served while the shard's lease lasts, see TrustShard,
// and the lease is granted by the map that is in force then: so r must still be.
//
//	Get: by epoch 4 A has k        (the lease of A has ended, and the key has moved)
//	                               look: follows epoch 6, and the lease of A begins anew
//	Get: A's memory is trusted     <- what it has of k may have been replaced on B before this Get began
func (s *Shards) hit(r *routes, i int, k localcache.Key, now int64) *localcache.Entry {
	e := s.shards[i].c.local.Hit(k, now)
	if e != nil && s.routes.Load() != r {
		return nil
	}
	return e
}

// answering returns the shard that answers for the key, or none where nobody does: the key is moving.
func (s *Shards) answering(ctx context.Context, hash uint64) (r *routes, i int, none bool, err error) {
	r, bad, err := s.current(ctx, func(r *routes) []int {
		if i, ok := r.settled(hash); ok {
			return []int{i}
		}
		return nil
	})
	if err != nil {
		return nil, 0, false, err
	}
	switch p := r.of(hash); {
	case p.from != p.to:
		return r, 0, true, nil
	case int(p.from) >= len(s.shards):
		return nil, 0, false, r.err
	default:
		return r, int(p.from), false, bad[int(p.from)]
	}
}

// exact calls do, an operation that depends on the present value, with the shard of k. It returns ErrMoving if the key moves or has moved.
func (s *Shards) exact(ctx context.Context, op string, k localcache.Key, do func(i int) error) error {
	hash := hashOf(k)
	var at []int
	r, bad, err := s.current(ctx, func(r *routes) []int {
		at = nil
		if i, ok := r.settled(hash); ok {
			at = []int{i}
		}
		return at
	})
	switch {
	case err != nil:
	case at == nil && r.next != nil && r.of(hash).from != r.of(hash).to:
		err = ErrMoving
	case at == nil:
		err = r.err
	default:
		err = bad[at[0]]
	}
	if err != nil {
		return fail(op, k.Row(), err)
	}
	if err := do(at[0]); err != nil {
		return err
	}
	now, err := s.still(ctx, at[0])
	if err == nil && !r.kept(now, hash) {
		err = ErrMoving
	}
	return fail(op, k.Row(), err)
}

// changeTries bounds how often a write finds that the map has changed meanwhile. A step of a Move takes seconds.
const changeTries = 4

// change writes keys, each on its shard, with set, or removes them with del where they are moving or have been meanwhile. Keys of one
// shard come together. check refuses what set would: it is called before anything is done where not all of it is set.
func (s *Shards) change(ctx context.Context, op string, keys []string, keyOf func(string) localcache.Key, check func() error, set, del func(i int, keys []string) error) error {
	hashes := make([]uint64, len(keys))
	for i, key := range keys {
		hashes[i] = hashOf(keyOf(key))
	}
	name := ""
	if len(keys) == 1 {
		name = keyOf(keys[0]).Row()
	}
	for range changeTries {
		var sets, dels map[int][]string
		var used []int
		var lacking bool
		r, bad, err := s.current(ctx, func(r *routes) []int {
			sets, dels, used, lacking = s.split(r, keys, hashes)
			return used
		})
		if err != nil {
			return fail(op, name, err)
		}
		if len(dels) > 0 && check != nil {
			if err := check(); err != nil {
				return err
			}
		}
		if lacking {
			err = fail(op, name, r.err)
		}
		done := s.each(used, func(i int) error {
			if bad[i] != nil {
				return fail(op, name, bad[i])
			}
			var err error
			if keys := sets[i]; keys != nil {
				err = set(i, keys)
			}
			if keys := dels[i]; keys != nil {
				err = errors.Join(err, del(i, keys))
			}
			return err
		})
		if err = errors.Join(err, done); err != nil {
			return err
		}
		now, err := s.still(ctx, used...)
		if err != nil {
			return fail(op, name, err)
		}
		var left []string
		var of []uint64
		for i, key := range keys {
			if !r.kept(now, hashes[i]) {
				left, of = append(left, key), append(of, hashes[i])
			}
		}
		if left == nil {
			return nil
		}
		keys, hashes, set = left, of, del
	}
	return fail(op, name, ErrMoving)
}

// split says what is to be done on which shard. A key that moves is removed from both of its shards: on the one nodes may still read, on the
// other loads may have begun.
func (s *Shards) split(r *routes, keys []string, hashes []uint64) (sets, dels map[int][]string, used []int, lacking bool) {
	sets, dels = map[int][]string{}, map[int][]string{}
	add := func(m map[int][]string, i uint8, key string) {
		if int(i) >= len(s.shards) {
			lacking = true
			return
		}
		if sets[int(i)] == nil && dels[int(i)] == nil {
			used = append(used, int(i))
		}
		m[int(i)] = append(m[int(i)], key)
	}
	for n, key := range keys {
		if p := r.of(hashes[n]); p.from == p.to {
			add(sets, p.from, key)
		} else {
			add(dels, p.from, key)
			add(dels, p.to, key)
		}
	}
	return sets, dels, used, lacking
}

// everywhere calls do, which may be done twice, with each shard of the map and of the next one.
func (s *Shards) everywhere(ctx context.Context, op, key string, do func(i int) error) error {
	for range changeTries {
		r, bad, err := s.current(ctx, func(r *routes) []int { return r.members })
		if err == nil {
			err = r.err
		}
		if err != nil {
			return fail(op, key, err)
		}
		if err := s.each(r.members, func(i int) error {
			if bad[i] != nil {
				return fail(op, key, bad[i])
			}
			return do(i)
		}); err != nil {
			return err
		}
		now, err := s.still(ctx, r.members...)
		if now == r || err != nil {
			return fail(op, key, err)
		}
	}
	return fail(op, key, ErrMoving)
}

// reads calls read with the shard of k, or with -1 where k is held nowhere.
func (s *Shards) reads(ctx context.Context, op string, k localcache.Key, read func(i int) error) error {
	for range changeTries {
		r, i, none, err := s.answering(ctx, hashOf(k))
		switch {
		case err != nil:
			return fail(op, k.Row(), err)
		case none:
			return read(-1)
		}
		if err := read(i); err != nil {
			return err
		}
		now, err := s.still(ctx, i)
		if err != nil || r.kept(now, hashOf(k)) {
			return fail(op, k.Row(), err)
		}
	}
	return fail(op, k.Row(), ErrMoving)
}
