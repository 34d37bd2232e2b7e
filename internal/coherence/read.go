package coherence

import (
	"time"

	"github.com/pgcache/go/internal/mono"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A Read is one read of one key from the database, shared by the callers that came while it was under way.
type Read struct {
	t     *Tracker
	key   Key
	epoch uint32
	began int64 // when, by the monotonic clock

	// Under the shard's lock.
	older  *Read // begun before and still under way, of the same key
	dead   bool  // what it brings is not kept
	closed bool  // nobody joins any more
	met    bool  // another read of the key has ended meanwhile,
	seen   int64 // with this version,
	torn   bool  // and one with yet another

	done chan struct{}
	row  store.Row
	err  error
}

// joinable is how long a read may be joined. The first write of a key is not published, and kills no read; so a read that
// is slow must not keep answering "nothing there" to callers that come after it.
const joinable = int64(10 * time.Millisecond)

// Read joins the read of k that is under way, or begins one: then leader is true, and the caller must read the row in a
// statement of its own that begins after this call, and call Finish.
//
// A read that is under way may be joined because whatever was published before this call has killed it. With no live
// listener nothing is received, so there every caller reads for itself. So it does where nothing is kept in memory: who turns
// that off wants what is committed, and what was committed before a joined read began may not be published yet.
func (t *Tracker) BeginRead(k Key) (f *Read, leader bool) {
	s := t.enter(k)
	defer s.mu.Unlock()
	epoch := t.epoch.Load()
	live, now := t.keeps && t.current(epoch) && s.txs[k] == nil, mono.Now()
	newest := s.reads[k]
	if newest != nil && live && newest.epoch == epoch && !newest.closed && now-newest.began < joinable {
		return newest, false
	}
	f = &Read{t: t, key: k, epoch: epoch, began: now, dead: !live, done: make(chan struct{})}
	if live {
		// The older ones stay to be found and killed, and may fill the local cache. Were they given up, a key that is read
		// faster than the database answers would never be kept.
		f.older, s.reads[k] = newest, f
	}
	return f, true
}

// BeginReadAlone begins a read of k that the caller makes by itself, whether or not another is under way.
func (t *Tracker) BeginReadAlone(k Key) *Read {
	s := t.enter(k)
	defer s.mu.Unlock()
	f := &Read{t: t, key: k, epoch: t.epoch.Load(), began: mono.Now(), done: make(chan struct{})}
	// Only a read that can be found can be killed, and only what can be killed may fill the local cache.
	if f.dead = s.reads[k] != nil || s.txs[k] != nil || !t.current(f.epoch); !f.dead {
		s.reads[k] = f
	}
	return f
}

// Finish ends a read with what was read and the entry to keep of it, nil for none.
func (f *Read) Finish(row store.Row, err error, e *localcache.Entry) {
	t, s := f.t, f.t.shard(f.key)
	s.mu.Lock()
	if err == nil {
		// A reader that saw one version must not be followed by a hit on another: nobody goes back for a key. And a
		// Set of ours that is under way may be older than what was seen here.
		t.evictOther(f.key, row.Version)
		// The same goes for reads that are under way and may have seen what was there before this one looked:
		//
		//	Get: snapshot (v1)      v2 is committed, GetMany reads it and returns
		//	Get: stores v1          <- the next hit goes back, and so does whoever has joined it
		//
		// Most of the time nothing was committed and both saw the same: then there is no harm in keeping it.
		for other := s.reads[f.key]; other != nil; other = other.older {
			other.closed = true
			other.meets(row.Version)
		}
		f.meets(row.Version)
		for _, w := range s.writers[f.key] {
			if w.version != row.Version {
				w.dead = true
			}
		}
		if e != nil && !f.dead && !f.torn && t.current(f.epoch) {
			t.store(f.key, e, f.epoch, row.Server)
		}
	}
	s.end(f)
	s.mu.Unlock()
	f.row, f.err = row, err
	close(f.done)
}

// meets says that a read of the key, this one or another, has ended with version.
func (f *Read) meets(version int64) {
	f.torn = f.torn || f.met && f.seen != version
	f.met, f.seen = true, version
}

// end forgets a read that has ended, unless it was killed before.
func (s *shard) end(f *Read) {
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

// Result returns what was read.
func (f *Read) Result() (store.Row, error) { return f.row, f.err }

// Expired says that what was read has expired since: a caller that joined late may have come after that.
func (f *Read) Expired() bool {
	return f.err == nil && f.row.Live() && mono.Now()-f.began > int64(f.row.Remaining)
}

// Replace keeps e in place of old, another form of the same version, if old is still there.
func (t *Tracker) Replace(k Key, old, e *localcache.Entry) {
	s := t.shard(k)
	s.mu.Lock()
	defer s.mu.Unlock()
	if t.local.Get(k) == old && t.current(old.Epoch) && s.txs[k] == nil {
		e.Version, e.Deadline, e.Epoch = old.Version, old.Deadline, old.Epoch
		e.Use()
		t.local.Set(k, e)
	}
}

// A Writer is one write of ours that is under way.
type Writer struct {
	t       *Tracker
	key     Key
	version int64
	epoch   uint32
	load    *Load
	dead    bool // under the shard's lock
}

// Write begins a write of version to k. The caller sends its statement after this call and calls Finish with what came
// of it. load is the load whose result is written, if it is one. What is in memory stays until then: while a write is
// under way, what was there before is as right as what will be.
func (t *Tracker) BeginWrite(k Key, version int64, load *Load) *Writer {
	s := t.enter(k)
	defer s.mu.Unlock()
	w := &Writer{t: t, key: k, version: version, epoch: t.epoch.Load(), load: load}
	// Of two writes at once, nobody here knows which one the database takes last: neither is kept.
	for _, other := range s.writers[k] {
		other.dead, w.dead = true, true
	}
	s.writers[k] = append(s.writers[k], w)
	s.kill(k, load)
	return w
}

// Finish ends a write. e is the entry to keep: nil after a delete, an error or an unknown outcome. server is where the
// row was written.
func (w *Writer) Finish(e *localcache.Entry, server int64) {
	t, s := w.t, w.t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	ws := s.writers[w.key]
	for i, other := range ws {
		if other == w {
			ws = append(ws[:i], ws[i+1:]...)
			break
		}
	}
	if len(ws) == 0 {
		delete(s.writers, w.key)
	} else {
		s.writers[w.key] = ws
	}
	// A read begun while the write was under way may have seen the row before it, and would break read-your-writes.
	s.kill(w.key, w.load)
	if e != nil && !w.dead && t.current(w.epoch) {
		t.store(w.key, e, w.epoch, server)
	} else {
		t.local.Delete(w.key)
	}
}

// A Watch is woken by invalidations of a key.
type Watch struct {
	c   chan<- struct{}
	t   *Tracker
	key Key
}

// Watch sends to c, which must be buffered, when k is invalidated, until Stop. Several keys may share c.
func (t *Tracker) Watch(k Key, c chan<- struct{}) *Watch {
	w := &Watch{c: c, t: t, key: k}
	s := t.enter(k)
	defer s.mu.Unlock()
	s.watches[k] = append(s.watches[k], w)
	return w
}

// Stop ends the watch.
func (w *Watch) Stop() {
	s := w.t.shard(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	ws := s.watches[w.key]
	for i, other := range ws {
		if other == w {
			ws = append(ws[:i], ws[i+1:]...)
			break
		}
	}
	if len(ws) == 0 {
		delete(s.watches, w.key)
	} else {
		s.watches[w.key] = ws
	}
}

func (w *Watch) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

func (t *Tracker) wakeAll() {
	for i := range t.shards {
		s := &t.shards[i]
		s.mu.Lock()
		for _, ws := range s.watches {
			for _, w := range ws {
				w.wake()
			}
		}
		s.mu.Unlock()
	}
}

// Now is the clock of all deadlines.
func Now() int64 { return mono.Now() }
