package coherence

import (
	"context"
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A Read is one read of one key from the database, shared by the callers that joined it while it was under way.
type Read struct {
	t       *Tracker
	key     Key
	epoch   uint32   // when it began; what it brings is kept in this epoch only
	began   int64    // when, by Now
	applied removals // when it began

	// Under the stripe's lock.
	older  *Read // begun before and still under way, of the same key
	dead   bool  // what it brings is not kept
	closed bool  // nobody joins any more
	met    bool  // a read of the key, this one or another, has ended since this one began
	seen   int64 // if met: the version that the last such read saw
	torn   bool  // two such reads saw different versions: what this one brings is not kept

	done chan struct{}
	// Caller is the context of the caller that reads: the leader sets it before Finish, joiners use it after Done.
	Caller context.Context //nolint:containedctx // what observes the callers needs it

	row store.Row
	err error
}

// joinable is how long after its begin a read may be joined, in nanoseconds. The insert of a new key is not published, and kills no read;
// so a slow read must not answer "nothing there" to callers that come long after the insert.
const joinable = int64(10 * time.Millisecond)

// BeginRead joins the read of k that is under way, or begins one. If leader is true the caller must send a statement of its own
// after this call, and call Finish once, also after an error. Else it waits for Done and then calls Result and Expired.
//
// A read that is under way may be joined because no invalidation of k was applied since it began: that would have killed it. While the
// local cache is not live invalidations may not be received, so every caller reads for itself. So does every caller where there is no
// local cache at all: its user wants what is committed now, and a read that was sent before that commit may be under way, not killed
// because the invalidation is yet to come.
func (t *Tracker) BeginRead(k Key) (f *Read, leader bool) {
	s := t.enter(k)
	defer s.mu.Unlock()
	epoch, applied := t.epoch.Load(), t.groups.applied()
	live, now := t.keeps && t.current(epoch) && s.txs[k] == nil, mono.Now()
	newest := s.reads[k]
	if newest != nil && live && newest.epoch == epoch && !newest.closed && now-newest.began < joinable && newest.applied == applied && t.groups.open.Load() == 0 {
		return newest, false
	}
	f = &Read{t: t, key: k, epoch: epoch, began: now, applied: applied, dead: !live, done: make(chan struct{})}
	if live {
		// The older ones stay to be found and killed, and may fill the local cache. Were they given up, a key that is read
		// faster than the database answers would never be kept.
		f.older, s.reads[k] = newest, f
	}
	return f, true
}

// BeginReadAlone begins a read of k that joins no other. It may be joined, and what it brings be kept, only if no other read of k is under
// way. The caller must call Finish once, also after an error.
func (t *Tracker) BeginReadAlone(k Key) *Read {
	s := t.enter(k)
	defer s.mu.Unlock()
	f := &Read{t: t, key: k, epoch: t.epoch.Load(), began: mono.Now(), applied: t.groups.applied(), done: make(chan struct{})}
	// Only a read that can be found can be killed, and only what can be killed may fill the local cache.
	if f.dead = s.reads[k] != nil || s.txs[k] != nil || !t.current(f.epoch); !f.dead {
		s.reads[k] = f
	}
	return f
}

// Finish ends a read with what was read and the entry to keep of it, nil for none.
func (f *Read) Finish(row store.Row, err error, e *localcache.Entry) {
	t, s := f.t, f.t.stripe(f.key)
	s.mu.Lock()
	if err == nil {
		// Without e the row has no value: it is absent, a tombstone, expired, or of a group that was removed. Such a row may still have
		// the version that it had with its value, and the message of the removal may be yet to come: so it counts as another version.
		version := row.Version
		if e == nil {
			version = -version
		}
		// After a caller has seen a version no later hit or join may return an older one. And a Set of ours that is under way may
		// be older than what was seen here.
		t.evictOther(f.key, version)
		// The same goes for reads that are under way and may have seen what was there before this one looked:
		//
		//	Get: snapshot (v1)      v2 is committed, GetMany reads it and returns
		//	Get: stores v1          <- the next hit is older, and so is what joiners get
		//
		// So they are closed to joiners. What they bring is dropped only if the versions differ: mostly both saw the same.
		for other := s.reads[f.key]; other != nil; other = other.older {
			other.closed = true
			other.meets(version)
		}
		f.meets(version)
		for _, w := range s.writers[f.key] {
			if w.version != version {
				w.dead = true
			}
		}
		if e != nil && !f.dead && !f.torn && t.current(f.epoch) {
			t.store(f.key, e, f.epoch, row.Server, row.Tags, f.applied)
		}
	}
	s.end(f)
	s.mu.Unlock()
	f.row, f.err = row, err
	close(f.done)
}

// meets notes that a read of the key, this one or another, has ended with version.
func (f *Read) meets(version int64) {
	f.torn = f.torn || f.met && f.seen != version
	f.met, f.seen = true, version
}

// end takes a read that has ended out of the reads of its key. One that was killed is not among them any more.
func (s *stripe) end(f *Read) {
	newest := s.reads[f.key]
	if newest == f && f.older == nil {
		delete(s.reads, f.key)
	} else if newest == f {
		s.reads[f.key] = f.older
	}
	for other := newest; other != nil; other = other.older {
		if other.older == f {
			other.older = f.older
		}
	}
}

// Done is closed when the read has ended; then Result says how.
func (f *Read) Done() <-chan struct{} { return f.done }

// Result returns what was read. Call it after Done is closed.
func (f *Read) Result() (store.Row, error) { return f.row, f.err }

// Expired says that what was read has expired since: a caller that joined late may have come after that.
func (f *Read) Expired() bool {
	return f.err == nil && f.row.Live() && mono.Now()-f.began > int64(f.row.Remaining)
}

// Replace keeps e, for example the decoded form, in place of old if old is still there. It sets Version, Deadline and Epoch of e.
func (t *Tracker) Replace(k Key, old, e *localcache.Entry) {
	s := t.stripe(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.local.Get(k) == old && t.current(old.Epoch) && s.txs[k] == nil {
		e.Version, e.Deadline, e.Epoch = old.Version, old.Deadline, old.Epoch
		e.Use()
		t.local.Set(k, e)
	}
}
