// Package coherence decides what a node may keep in its local cache and how long it may hand it out. It is also where callers of one
// process find each other: a Read and a Load are shared by the callers that ask for one key at the same time, and a Watch is
// woken when a key may have changed.
//
// The local cache is served while two things are trusted, each until a time that is moved on again and again: the listener, which
// receives what is published, and the pulse, which sees that what is committed is being published (pgcache/pulse.go). An epoch is a
// number that every entry carries: entries of another epoch than the tracker's are never served.
//
// Three rules decide:
//
//   - A read from the database is registered as a Read before its statement is sent, and may fill the local cache only if its key
//     was not invalidated since.
//   - Versions can't be compared by size. A message lists the versions of a key in the order of their commits, the last commit
//     first, and an entry stays only if its version is the first one listed.
//   - A lost listener, a message that can't be understood and a Clear end the epoch: what was read or kept in an epoch that has
//     ended is never served or stored. Trust that runs out ends no epoch: what was kept is served again when trust is renewed,
//     because no invalidation was missed.
//
// An insert of a new key is not published, so nothing would evict a note that there is no row, nor kill a read that found none.
// Therefore absence is never kept, and a read may be joined for 10 ms only.
//
// A removal of a group names a tag or a prefix, and no keys: see groups.
//
// The keys are spread over stripes, each with a lock. Locks are taken in this order: a stripe's, then that of hidden, of groups or of a
// Run. Set and Delete of the local cache, and OnEvicted, are called with the stripe's lock held.
//
// The same race, a fill that overtakes an invalidation, was reported in Hazelcast (issue 4671), lettuce (3481) and
// FusionCache (613). internal/model checks these rules exhaustively, and shows that each of them is needed.
package coherence

import (
	"hash/maphash"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/localcache"
)

// Key identifies a row.
type Key = localcache.Key

// stripes is how many locks the keys are spread over.
const stripes = 64

// Tracker keeps one local cache coherent. Its methods are safe for concurrent use, but for these: Apply, TrustListener and SetServer
// are called by one goroutine at a time, the listener's, and Hide by the one that runs the pulse.
type Tracker struct {
	local  localcache.Cache
	keeps  bool  // local is not localcache.None
	maxAge int64 // nanoseconds an entry is kept at most, 0: as long as its row lives

	epoch   atomic.Uint32 // 0: bypass the local cache
	trusted atomic.Int64  // the local cache may be served until then, by Now
	server  atomic.Int64  // identity of the server that the listener is connected to: rows of another are not kept. 0: rows of any are

	trust trust         // the times of which trusted is the earliest
	lived atomic.Uint32 // the last epoch in which the local cache was live

	seed    maphash.Seed
	stripes [stripes]stripe
	hidden  hidden
	groups  groups

	// OnPublished, if not nil, is called for every key of a message with the versions that it lists, on the listener's goroutine.
	// The slice is reused. Set it before use.
	OnPublished func(versions []int64)

	// OnEvicted, if not nil, is called when an invalidation evicts an entry whose Interest is above 0, on the listener's goroutine and
	// under a stripe's lock: it must not block or call the tracker. Set it before use.
	OnEvicted func(k Key, interest uint32)

	// OnInvalidated, if not nil, is called with the keys that a message has named, as Key.Row has them, after they were invalidated,
	// and with nil where any key may have changed. It is called on any goroutine, without a lock of the tracker, and must not block.
	// Set it before use.
	OnInvalidated func(rows []string)

	Invalidations atomic.Uint64 // keys and groups named by messages
	Forgets       atomic.Uint64 // epochs that were ended in which the local cache was live
}

// stripe is what the tracker knows of a part of the keys.
type stripe struct {
	mu      sync.Mutex
	reads   map[Key]*Read // the newest, which leads to the older ones
	loads   map[Key]*Load
	writers map[Key][]*Writer
	watches map[Key][]*Watch
	txs     map[Key]map[int64]*TxWrite // by version
	_       [16]byte                   // to 64 bytes, a cache line
}

// New returns a tracker of local, in which an entry gets at most maxAge old; 0: as old as its row. It bypasses the local cache until
// TrustListener and TrustPulse were called, or AlwaysOn where there is no listener.
func New(local localcache.Cache, maxAge time.Duration) *Tracker {
	t := &Tracker{local: local, keeps: local != localcache.None(), maxAge: int64(maxAge), seed: maphash.MakeSeed()}
	t.trust.shard = math.MaxInt64
	for i := range t.stripes {
		s := &t.stripes[i]
		s.reads, s.loads = map[Key]*Read{}, map[Key]*Load{}
		s.writers, s.watches, s.txs = map[Key][]*Writer{}, map[Key][]*Watch{}, map[Key]map[int64]*TxWrite{}
	}
	return t
}

// Hit returns the entry of k that may be handed out at now, or nil. It takes no lock and allocates nothing. It asks for trust first, then
// for the entry and last for the epoch: trust that is renewed after the entry was found may rest on a message that has evicted it.
//
//	Get: finds the entry, of this epoch        (there is no trust: it has run out)
//	                                           what was late is applied and evicts the entry; trust is renewed
//	Get: there is trust                        <- the entry was replaced before this Get began
func (t *Tracker) Hit(k Key, now int64) *localcache.Entry {
	if now >= t.trusted.Load() {
		return nil
	}
	e := t.local.Get(k)
	if e == nil || e.Epoch != t.epoch.Load() || now >= e.Deadline {
		return nil
	}
	e.Use()
	return e
}

// Stale returns the entry of k if it has expired and no invalidation of it was missed, so that nothing but its deadline keeps Hit from
// returning it; else nil. It asks in the order of Hit.
func (t *Tracker) Stale(k Key, now int64) *localcache.Entry {
	if t.trusted.Load() <= now {
		return nil
	}
	e := t.local.Get(k)
	if e == nil || e.Epoch != t.epoch.Load() || now < e.Deadline {
		return nil
	}
	return e
}

// Apply applies one message, whose rows key makes Keys of. It is called by the goroutine that reads the listener's socket, in order:
// there is no queue in between that could overflow. After a message that it can't understand it forgets everything.
func (t *Tracker) Apply(m notify.Message, key func(row string) Key) error {
	if m.Hidden && t.hidden.secret.Load() == nil {
		t.Forget()
		return errHidden
	}
	var rows []string // for OnInvalidated
	unknown := false  // a key may have changed that is not in rows
	err := m.Items(func(row string, versions []int64) {
		k, ok := t.resolve(&m, row, key)
		if ok {
			t.invalidate(k, versions)
		} else {
			t.Invalidations.Add(1)
			unknown = true
		}
		if ok && t.OnInvalidated != nil {
			rows = append(rows, k.Row())
		}
		if t.OnPublished != nil {
			t.OnPublished(versions)
		}
	}, func(g notify.Group) {
		unknown = true
		t.removed(&m, g)
	}, t.Forget)
	switch {
	case err != nil:
		t.Forget()
	case t.hidden.switching.Load():
		t.Forget() // what the message names may be known by another secret only
	case unknown:
		t.invalidated(nil)
	case len(rows) > 0:
		t.invalidated(rows)
	}
	return err
}

// invalidate applies that versions were written to k. The first is the last that was committed.
func (t *Tracker) invalidate(k Key, versions []int64) {
	version := versions[0]
	t.Invalidations.Add(1)
	s := t.stripe(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.txs[k] != nil {
		s.endTx(k, versions)
	}
	if e := t.evictOther(k, version); e != nil && t.OnEvicted != nil && e.Interest() > 0 && e.Epoch == t.epoch.Load() {
		t.OnEvicted(k, e.Interest())
	}
	// A read begun before may have seen what was there before:
	//
	//	Get: snapshot (v1)      another node: commits v2
	//	                        invalidate(v2): nothing here to evict
	//	Get: stores v1          <- stale until it expires, if the read were not marked dead
	s.kill(k, nil)
	// A Set of ours that is still waiting for its reply may be the older of the two. Its own notification may come
	// before its reply: the same version, no harm.
	for _, w := range s.writers[k] {
		if w.version != version {
			w.dead = true
		}
	}
	for _, w := range s.watches[k] {
		w.wake()
	}
}

// evictOther removes the entry of k unless it is of this version, and returns it. The caller holds the stripe's lock.
func (t *Tracker) evictOther(k Key, version int64) *localcache.Entry {
	e := t.local.Get(k)
	if e == nil || e.Version == version {
		return nil
	}
	t.local.Delete(k)
	return e
}

func (t *Tracker) stripe(k Key) *stripe {
	return &t.stripes[maphash.Comparable(t.seed, k)%stripes]
}

// enter locks the stripe of k for an operation that begins, and makes k known to messages that hide keys. The caller unlocks it.
func (t *Tracker) enter(k Key) *stripe {
	if t.hidden.secret.Load() != nil {
		t.dropHidden()
	}
	if t.groups.due.Load() {
		t.dropTagged()
	}
	s := t.stripe(k)
	s.mu.Lock()
	t.hidden.add(k)
	return s
}

// store keeps e under k, if its row is of the server that the listener is connected to, no transaction of ours is writing k, and no
// group of it was removed since the operation began, when applied was counted; else it deletes what is there. The caller holds the
// stripe's lock and has checked everything else.
func (t *Tracker) store(k Key, e *localcache.Entry, epoch uint32, server int64, tags []string, applied removals) {
	if own := t.server.Load(); (own != 0 && server != own) || t.stripe(k).txs[k] != nil || !t.admit(k, tags, applied) {
		t.local.Delete(k)
		return
	}
	e.Epoch = epoch
	t.local.Set(k, e)
}

// Deadline is until when a value may be served, by Now: remaining after sent, when its statement was sent, or maxAge if that is less.
func (t *Tracker) Deadline(sent int64, remaining time.Duration) int64 {
	if t.maxAge > 0 {
		remaining = min(remaining, time.Duration(t.maxAge))
	}
	return Until(sent, remaining)
}

// Until is sent + remaining, by Now; math.MaxInt64 where that overflows.
func Until(sent int64, remaining time.Duration) int64 {
	if until := sent + int64(remaining); remaining < 0 || until >= sent {
		return until
	}
	return math.MaxInt64
}

// kill marks the reads of k as dead and its load as overtaken: their callers still get the result, but what the reads bring is not
// kept, and nobody joins any more. keep, if not nil, is the load whose own store is the change: it is not overtaken.
func (s *stripe) kill(k Key, keep *Load) {
	for f := s.reads[k]; f != nil; f = f.older {
		f.dead = true
	}
	delete(s.reads, k)
	if l := s.loads[k]; l != nil && l != keep {
		l.overtaken = true
	}
}

// Now is the clock of all deadlines: nanoseconds of the process's monotonic clock.
func Now() int64 { return mono.Now() }
