// Package coherence decides what a node may keep in its local cache and how long it may hand it out.
//
// Three rules carry it. A read from the database is registered as a Read before its statement is sent, and may fill the
// local cache only if its key was not invalidated since. Versions can't be compared by size: a message lists those of a key in the order
// of their commits, the latest first, and an entry stays only while its version is that one. And a lost listener, a message
// that can't be understood and a Clear end the epoch: entries and reads of an older epoch are never served or stored. Trust
// that runs out only pauses serving: what was kept is served again when trust is renewed, because nothing was missed.
//
// An insert of a new key is not published. So absence is never kept, and a read may be joined for 10 ms only.
//
// A removal of a group names a tag or a prefix, and no keys: see groups.
//
// Locks are taken in this order: a shard's, then that of the hidden keys or that of the groups.
//
// The same race, a fill that overtakes an invalidation, was reported in Hazelcast (issue 4671), lettuce (3481) and
// FusionCache (613). internal/model checks these rules exhaustively, and shows that each of them is needed.
package coherence

import (
	"hash/maphash"
	"math"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/localcache"
)

// Key identifies a row.
type Key = localcache.Key

// epochs are unique in the process, so that Caches which share one local cache never take each other's entries for
// their own. 0 means: nothing is live.
var epochs atomic.Uint32

func newEpoch() uint32 {
	for {
		if e := epochs.Add(1); e != 0 {
			return e
		}
	}
}

const shards = 64

// Tracker keeps one local cache coherent. The methods about keys are safe for concurrent use. Those about the node (Apply,
// TrustListener, Down, SetServer) are called by one goroutine at a time, the listener's, and TrustPulse and Hide by the pulse's;
// Forget by any.
type Tracker struct {
	local  localcache.Cache
	keeps  bool  // local is not localcache.None: reads may be joined, because invalidations make up for it
	maxAge int64 // nanoseconds an entry is kept at most, 0: as long as its row lives

	epoch   atomic.Uint32 // 0: bypass the local cache
	trusted atomic.Int64  // memory may be served until this moment of the monotonic clock
	server  atomic.Int64  // the server that the listener is connected to; rows of another don't enter. 0: any

	trust struct { // what trusted is the earliest of
		sync.Mutex
		listener, pulse, shard int64
	}

	seed   maphash.Seed
	shards [shards]shard
	hidden hidden
	groups groups

	// OnPublished, if not nil, is called for every key of a message with the versions that it lists, on the listener's goroutine.
	// Set it before use.
	OnPublished func(versions []int64)

	// OnLost, if not nil, is called when an invalidation evicts an entry whose Interest is above 0, on the listener's goroutine and
	// under a shard's lock: it must not block or call the tracker. Set it before use.
	OnLost func(k Key, interest uint32)

	// OnInvalidated, if not nil, is called with the rows that a message has named, after they were invalidated; nil: with everything.
	// It must not block. Set it before use.
	OnInvalidated func(rows []string)

	Invalidations atomic.Uint64 // keys named by messages
	Flushes       atomic.Uint64 // times everything was forgotten
}

type shard struct {
	mu      sync.Mutex
	reads   map[Key]*Read
	loads   map[Key]*Load
	writers map[Key][]*Writer
	watches map[Key][]*Watch
	txs     map[Key][]*TxWrite
	_       [16]byte
}

// New returns a tracker of local. It bypasses the local cache until TrustListener and TrustPulse were called, or AlwaysOn where there is no
// listener and maxAge says how old an entry may get.
func New(local localcache.Cache, maxAge time.Duration) *Tracker {
	t := &Tracker{local: local, keeps: local != localcache.None(), maxAge: int64(maxAge), seed: maphash.MakeSeed()}
	t.trust.shard = math.MaxInt64
	for i := range t.shards {
		s := &t.shards[i]
		s.reads, s.loads = map[Key]*Read{}, map[Key]*Load{}
		s.writers, s.watches, s.txs = map[Key][]*Writer{}, map[Key][]*Watch{}, map[Key][]*TxWrite{}
	}
	return t
}

// AlwaysOn makes the local cache live for good: no listener is there to be doubted, and maxAge bounds the staleness.
func (t *Tracker) AlwaysOn() {
	t.trust.Lock()
	t.trust.listener, t.trust.pulse = math.MaxInt64, math.MaxInt64
	t.trusted.Store(t.trust.shard)
	t.trust.Unlock()
	t.epoch.Store(newEpoch())
}

// Hit returns the entry of k that may be handed out at now, or nil. It takes no lock and allocates nothing.
func (t *Tracker) Hit(k Key, now int64) *localcache.Entry {
	e := t.local.Get(k)
	if e == nil || e.Epoch != t.epoch.Load() || now >= e.Deadline || now >= t.trusted.Load() {
		return nil
	}
	e.Use()
	return e
}

// Stale returns the entry of k, which has expired, if it could be handed out had it not: no invalidation of it was missed. Else nil.
func (t *Tracker) Stale(k Key, now int64) *localcache.Entry {
	e := t.local.Get(k)
	if e == nil || e.Epoch != t.epoch.Load() || now < e.Deadline || now >= t.trusted.Load() {
		return nil
	}
	return e
}

// Live says whether the local cache is in use.
func (t *Tracker) Live() bool { return t.epoch.Load() != 0 && mono.Now() < t.trusted.Load() }

// TrustListener says that everything that was published before now has been applied, and that the listener is trusted until
// then. After a Down it begins a new epoch.
func (t *Tracker) TrustListener(trusted time.Time) {
	t.extend(&t.trust.listener, trusted)
	if t.epoch.Load() == 0 {
		t.epoch.Store(newEpoch())
		t.invalidated(nil)
	}
}

// TrustPulse says that a pulse found that changes are being published, and that this is trusted until then. Entries are served
// while both the listener and the pulse are trusted.
func (t *Tracker) TrustPulse(trusted time.Time) { t.extend(&t.trust.pulse, trusted) }

// TrustShard says until when it is known that this cache's keys are the ones that its map of shards gives it. Of a cache that is no
// shard it is not called, and nothing depends on it.
func (t *Tracker) TrustShard(trusted time.Time) { t.extend(&t.trust.shard, trusted) }

func (t *Tracker) extend(until *int64, trusted time.Time) {
	t.trust.Lock()
	defer t.trust.Unlock()
	*until = mono.At(trusted)
	t.trusted.Store(min(t.trust.listener, t.trust.pulse, t.trust.shard))
}

// Listening says whether the listener is trusted, whatever the pulse says.
func (t *Tracker) Listening() bool {
	t.trust.Lock()
	defer t.trust.Unlock()
	return t.epoch.Load() != 0 && mono.Now() < t.trust.listener
}

// SetServer says which server the listener is connected to; 0: it is not known.
func (t *Tracker) SetServer(server int64) { t.server.Store(server) }

// Server returns it.
func (t *Tracker) Server() int64 { return t.server.Load() }

// Down bypasses the local cache until the next TrustListener, and wakes all watches. It frees no memory.
func (t *Tracker) Down() {
	if t.epoch.Swap(0) != 0 {
		t.Flushes.Add(1)
		t.invalidated(nil)
	}
	t.wakeAll()
}

// Forget begins a new epoch: no entry is served any more, no read or write under way is kept, and all watches are woken. It
// frees no memory. Loads may still be joined: see Loaded.Since.
func (t *Tracker) Forget() {
	for {
		e := t.epoch.Load()
		if e == 0 || t.epoch.CompareAndSwap(e, newEpoch()) {
			break
		}
	}
	t.Flushes.Add(1)
	t.invalidated(nil)
	t.wakeAll()
}

func (t *Tracker) invalidated(rows []string) {
	if t.OnInvalidated != nil {
		t.OnInvalidated(rows)
	}
}

// Close forgets everything for good.
func (t *Tracker) Close() {
	t.Down()
	t.local.Clear()
}

// Apply applies one message. It is called by the goroutine that reads the listener's socket, in order: no queue stands
// between, so nothing can overflow or be dropped. After a message that it can't understand it forgets everything.
func (t *Tracker) Apply(m notify.Message, key func(row string) Key) error {
	if m.Hidden && t.hidden.secret.Load() == nil {
		t.Forget()
		return errHidden
	}
	var rows []string // for OnInvalidated
	unknown := false
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
	case unknown:
		t.invalidated(nil)
	case len(rows) > 0:
		t.invalidated(rows)
	}
	return err
}

// invalidate applies that versions were written to k, of which the first is the newest, as far as this node knows.
func (t *Tracker) invalidate(k Key, versions []int64) {
	version := versions[0]
	t.Invalidations.Add(1)
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.txs[k] != nil {
		s.endTx(k, func(w *TxWrite) bool { return slices.Contains(versions, w.version) })
	}
	if e := t.evictOther(k, version); e != nil && t.OnLost != nil && e.Interest() > 0 && e.Epoch == t.epoch.Load() {
		t.OnLost(k, e.Interest())
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

// evictOther removes the entry of k unless it is of this version, and returns it. The caller holds the shard's lock.
func (t *Tracker) evictOther(k Key, version int64) *localcache.Entry {
	e := t.local.Get(k)
	if e == nil || e.Version == version {
		return nil
	}
	t.local.Delete(k)
	return e
}

func (t *Tracker) shard(k Key) *shard {
	return &t.shards[maphash.Comparable(t.seed, k)%shards]
}

// enter locks the shard of k for an operation that begins, and makes k known to messages that hide keys. The caller unlocks it.
func (t *Tracker) enter(k Key) *shard {
	if t.hidden.secret.Load() != nil {
		t.dropHidden()
	}
	if t.groups.full.Load() {
		t.dropTagged()
	}
	s := t.shard(k)
	s.mu.Lock()
	t.hidden.add(k)
	return s
}

// current says whether an entry of this epoch may be kept now. The caller holds the shard's lock.
func (t *Tracker) current(epoch uint32) bool {
	return epoch != 0 && epoch == t.epoch.Load() && mono.Now() < t.trusted.Load()
}

// store keeps e under k, if it is of the server that the listener is connected to, no transaction of ours is writing k, and no group
// of it was removed since the turns began; else it deletes what is there. The caller holds the shard's lock and has checked everything else.
func (t *Tracker) store(k Key, e *localcache.Entry, epoch uint32, server int64, tags []string, began turns) {
	if own := t.server.Load(); e == nil || (own != 0 && server != own) || t.shard(k).txs[k] != nil || !t.admit(k, tags, began) {
		t.local.Delete(k)
		return
	}
	e.Epoch = epoch
	t.local.Set(k, e)
}

// Deadline is sent + remaining, or + maxAge if that is less, in nanoseconds of Now: until when a value may be served.
func (t *Tracker) Deadline(sent int64, remaining time.Duration) int64 {
	if t.maxAge > 0 {
		remaining = min(remaining, time.Duration(t.maxAge))
	}
	return Until(sent, remaining)
}

// Until is sent + remaining in nanoseconds of Now, math.MaxInt64 where that overflows.
func Until(sent int64, remaining time.Duration) int64 {
	if until := sent + int64(remaining); remaining < 0 || until >= sent {
		return until
	}
	return math.MaxInt64
}

// kill ends the reads of k: their callers still get their result, but it is not stored and nobody joins any more.
// keep, if not nil, is the load whose own store is the change: it is not overtaken.
func (s *shard) kill(k Key, keep *Load) {
	for f := s.reads[k]; f != nil; f = f.older {
		f.dead = true
	}
	delete(s.reads, k)
	if l := s.loads[k]; l != nil && l != keep {
		l.overtaken = true
	}
}

// Now is the clock of all deadlines.
func Now() int64 { return mono.Now() }
