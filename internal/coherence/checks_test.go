package coherence

import (
	"fmt"

	"github.com/pgcache/go/localcache"
)

// What the simulation checks.

const (
	p1 = iota // what was published
	p2        // what had been committed when the listener came back
	p3        // our own writes
	p4        // what was returned before
	promises
)

var promiseNames = [promises]string{
	"P1: a notification of commit %d had been applied",
	"P2: commit %d was there when the listener came back",
	"P3: our own commit %d had returned",
	"P4: commit %d had been returned",
}

// violation is what a check panics with.
type violation string

func (w *world) wrong(format string, args ...any) { panic(violation(fmt.Sprintf(format, args...))) }

func (w *world) trace(format string, args ...any) {
	if w.traced != nil {
		w.traced(format, args...)
	}
}

// floor is what a Get that begins now may return: no older commit, and nothing that these removals are about.
type floor struct {
	commits [promises]int
	removed seenRecords
}

func (w *world) floor(key int) (f floor) {
	for p := range f.commits {
		f.commits[p] = w.floors[p][key]
	}
	f.removed = w.known
	return f
}

func (w *world) raise(promise, key, commit int) {
	w.floors[promise][key] = max(w.floors[promise][key], commit)
}

// returned checks what a Get of key returned that began with floor.
func (w *world) returned(key int, value bool, version int64, commit int, floor floor) {
	if i := w.removes(w.keys[key], commit, floor.removed); value && i >= 0 {
		w.wrong("a Get of key %d returned commit %d, although the removal of %v was known here before it began", key, commit, w.records[i])
	}
	if version == 0 {
		commit = max(commit, w.gone[key]) // no row is no row, whichever Delete it was
	}
	for p, least := range floor.commits {
		if commit < least {
			w.wrong("a Get of key %d returned commit %d, although "+promiseNames[p]+" before it began", key, commit, least)
		}
	}
	w.raise(p4, key, commit)
}

// check is done after every step.
func (w *world) check() {
	for i, k := range w.keys {
		if hit := w.tr.Hit(k, w.now); hit != nil {
			if !w.up || w.silent {
				w.wrong("P5: key %d is served although the listener is not live", i)
			}
			if expires := w.expiry[hit.Size]; w.now >= expires {
				w.wrong("P7: key %d is served at %d, commit %d expired at %d", i, w.now, hit.Size, expires)
			}
		}
		e := w.local.Get(k)
		if e == nil || e.Epoch != w.tr.epoch.Load() || w.now >= e.Deadline {
			continue
		}
		if e.Size != w.rows[i].commit && !w.evicts(i, e) {
			w.wrong("INV: key %d is served as of commit %d, it is at %d, and nothing is queued that evicts it", i, e.Size, w.rows[i].commit)
		}
	}
}

func (w *world) evicts(key int, e *localcache.Entry) bool {
	for _, n := range w.queue {
		if n.key == everything || n.key == key && n.version != e.Version {
			return true
		}
		for _, r := range n.groups {
			if r.holds(w.keys[key], w.tags[e.Size]) {
				return true
			}
		}
	}
	return false
}
