package coherence

import (
	"github.com/pgcache/go/localcache"
)

// A Writer is one write of ours that is under way.
type Writer struct {
	t       *Tracker
	key     Key
	version int64
	epoch   uint32   // when it began
	applied removals // when it began
	load    *Load    // whose result is written, or nil
	dead    bool     // its entry is not kept; under the stripe's lock
}

// BeginWrite begins a write of version to k. The caller sends its statement after this call and calls Finish once with what came
// of it. load is the load whose result is written, or nil. The entry of k stays until Finish: while a write is under way, both
// the old and the new value are valid answers.
func (t *Tracker) BeginWrite(k Key, version int64, load *Load) *Writer {
	s := t.enter(k)
	defer s.mu.Unlock()
	w := &Writer{t: t, key: k, version: version, epoch: t.epoch.Load(), applied: t.groups.applied(), load: load}
	// Of two writes at once, nobody here knows which one the database takes last: neither is kept.
	for _, other := range s.writers[k] {
		other.dead, w.dead = true, true
	}
	s.writers[k] = append(s.writers[k], w)
	s.kill(k, load)
	return w
}

// Finish ends a write. e is the entry to keep: nil after a delete, an error or an unknown outcome. server is where the row was
// written, tags are the row's. Without an entry that may be kept it evicts k.
func (w *Writer) Finish(e *localcache.Entry, server int64, tags ...string) {
	t, s := w.t, w.t.stripe(w.key)
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
		t.store(w.key, e, w.epoch, server, tags, w.applied)
	} else {
		t.local.Delete(w.key)
	}
}
