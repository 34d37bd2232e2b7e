package coherence

import (
	"fmt"
	"time"

	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// What the node itself does, as package pgcache would.

func (w *world) entry(version int64, commit int, sent, remaining int64) *localcache.Entry {
	w.counts.fills++
	return &localcache.Entry{Version: version, Size: commit, Deadline: w.tr.Deadline(sent, time.Duration(remaining))}
}

// get begins a Get: a hit, a read of its own, or one that it joins.
func (w *world) get(key int, floor floor) {
	k := w.keys[key]
	if e := w.tr.Hit(k, w.now); e != nil {
		w.counts.hits++
		w.trace("get key %d: hit, commit %d", key, e.Size)
		w.returned(key, true, e.Version, e.Size, floor)
		return
	}
	f, leader := w.tr.BeginRead(k)
	if !leader {
		if !w.up || w.silent {
			w.wrong("P5: a Get of key %d joins another's read although the listener is not live", key)
		}
		w.counts.joins++
		w.trace("get key %d: joins %s", key, w.name(f))
		w.joiners = append(w.joiners, joiner{f, key, floor})
		return
	}
	w.begin(&read{f: f, key: key, floor: floor, sent: w.now}, "get")
}

func (w *world) begin(r *read, what string) {
	w.ids++
	r.id = w.ids
	w.reads = append(w.reads, r)
	w.trace("%s key %d: begins %s", what, r.key, w.name(r.f))
}

func (r *read) snap(w *world) {
	r.snapped, r.row, r.at = true, w.rows[r.key], w.now
	w.trace("%s sees commit %d", w.name(r.f), r.row.commit)
}

// finish ends a read, and the Gets that joined it. After an error these begin anew.
func (r *read) finish(w *world, err error) {
	w.trace("%s ends, error %v", w.name(r.f), err)
	if err != nil {
		r.f.Finish(store.Row{}, err, nil)
	} else {
		got := store.Row{Version: r.row.version, Server: int64(r.row.commit), Tags: r.row.tags}
		var e *localcache.Entry
		if r.row.live(r.at) {
			got.Value = []byte{}
			remaining := int64(never)
			if r.row.expires != never {
				remaining = r.row.expires - r.at
			}
			if !store.NeverKept(r.row.version) {
				e = w.entry(r.row.version, r.row.commit, r.sent, remaining)
			}
		}
		r.f.Finish(got, nil, e)
		if e != nil && w.local.Get(w.keys[r.key]) == e {
			w.counts.kept++
		}
		w.returned(r.key, got.Value != nil, got.Version, r.row.commit, r.floor)
	}
	w.reads = remove(w.reads, r)
	waiting := w.joiners
	w.joiners = w.joiners[:0:0]
	for _, j := range waiting {
		if j.f != r.f {
			w.joiners = append(w.joiners, j)
			continue
		}
		<-r.f.Done()
		if row, err := r.f.Result(); err == nil {
			w.returned(j.key, row.Value != nil, row.Version, int(row.Server), j.floor)
		} else {
			w.get(j.key, j.floor)
		}
	}
}

// finish ends a write of ours.
func (o *ourWrite) finish(w *world, known bool) {
	var e *localcache.Entry
	if known && o.of.value && !store.NeverKept(o.of.version) {
		e = w.entry(o.of.version, o.commit, o.sent, o.of.ttl)
	}
	o.w.Finish(e, 0, o.of.tags...)
	if known {
		w.raise(p3, o.key, o.commit)
	}
}

func remove[T comparable](s []T, v T) []T {
	for i := range s {
		if s[i] == v {
			return append(s[:i], s[i+1:]...)
		}
	}
	return s
}

// name says which of the reads under way has f.
func (w *world) name(f *Read) string {
	if w.traced == nil {
		return ""
	}
	for _, r := range w.reads {
		if r.f == f {
			return fmt.Sprintf("read %d", r.id)
		}
	}
	return "nobody's read"
}
