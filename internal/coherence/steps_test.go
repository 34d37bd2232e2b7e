package coherence

import (
	"errors"
	"time"

	"github.com/pgcache/go/localcache"
)

// steps are what can happen. do says whether it could.
var steps = []struct {
	name   string
	weight int
	always bool // in every schedule, else in a third of them
	do     func(w *world) bool
}{
	{"get", 8, true, func(w *world) bool {
		if len(w.reads)+len(w.joiners) >= w.gets {
			return w.hit()
		}
		key := w.rng.IntN(len(w.keys))
		w.get(key, w.floor(key))
		return true
	}},
	{"read alone", 3, false, func(w *world) bool {
		if len(w.reads)+len(w.joiners) >= w.gets {
			return false
		}
		key := w.rng.IntN(len(w.keys))
		w.begin(&read{f: w.tr.BeginReadAlone(w.keys[key]), key: key, floor: w.floor(key), sent: w.now}, "read alone")
		return true
	}},
	{"a read sees its row", 6, true, func(w *world) bool {
		return w.pickRead(func(r *read) bool { return !r.snapped }, func(r *read) { r.snap(w) })
	}},
	{"a read ends", 6, true, func(w *world) bool {
		return w.pickRead(func(r *read) bool { return r.snapped }, func(r *read) { r.finish(w, nil) })
	}},
	{"a read takes long", 1, false, func(w *world) bool {
		return w.pickRead(func(*read) bool { return true }, func(r *read) {
			w.trace("%s takes too long to be joined", w.name(r.f))
			r.f.began -= joinable
		})
	}},
	{"a read fails", 1, false, func(w *world) bool {
		return w.pickRead(func(*read) bool { return true }, func(r *read) { r.finish(w, errTest) })
	}},

	{"set", 3, true, func(w *world) bool { return w.beginWrite(false) }},
	{"delete", 2, false, func(w *world) bool { return w.beginWrite(true) }},
	{"a write commits", 4, true, func(w *world) bool {
		return w.pickWrite(func(o *ourWrite) bool { return o.commit == 0 && !w.locked(o.key) }, func(o *ourWrite) {
			if w.rng.IntN(2) == 0 {
				o.of.seen = w.seenNow() // else its snapshot is as old as the write
			}
			o.commit = w.put(o.key, o.of)
			w.trace("our write of key %d commits as %d", o.key, o.commit)
			if o.gaveUp {
				w.writes = remove(w.writes, o)
			}
		})
	}},
	{"a write ends", 4, true, func(w *world) bool {
		return w.pickWrite(func(o *ourWrite) bool { return o.commit != 0 && !o.gaveUp }, func(o *ourWrite) {
			w.trace("our write of key %d ends", o.key)
			w.writes = remove(w.writes, o)
			o.finish(w, true)
		})
	}},
	{"a write gives up", 2, false, func(w *world) bool {
		return w.pickWrite(func(o *ourWrite) bool { return !o.gaveUp }, func(o *ourWrite) {
			w.trace("our write of key %d gives up", o.key)
			o.finish(w, false)
			if o.gaveUp = true; o.commit != 0 {
				w.writes = remove(w.writes, o)
			}
		})
	}},
	{"clear", 1, false, func(w *world) bool {
		switch w.clearing {
		case 0:
			w.trace("our Clear begins")
			w.tr.Forget()
		case 1:
			if w.anyLocked() {
				return false
			}
			w.trace("our Clear commits")
			w.empty()
			w.cleared = w.cleared[:0]
			for _, r := range w.rows {
				w.cleared = append(w.cleared, r.commit)
			}
		case 2:
			w.trace("our Clear ends")
			w.tr.Forget()
			for key, commit := range w.cleared {
				w.raise(p3, key, commit)
			}
		}
		w.clearing = (w.clearing + 1) % 3
		return true
	}},

	{"a removal of ours", 2, false, func(w *world) bool {
		records := w.anyGroups()
		if len(w.removals) > 0 || records == nil {
			return false
		}
		w.trace("our removal of %v begins", records)
		w.forget(records)
		w.removals = append(w.removals, &ourRemoval{records: records})
		return true
	}},
	{"a removal commits", 3, true, func(w *world) bool {
		return pick(w, w.removals, func(r *ourRemoval) bool { return !r.committed }, func(r *ourRemoval) {
			w.trace("our removal of %v commits", r.records)
			r.bits, r.committed = w.removeGroups(r.records), true
			if r.gaveUp {
				w.removals = remove(w.removals, r)
			}
		})
	}},
	{"a removal ends", 3, true, func(w *world) bool {
		return pick(w, w.removals, func(r *ourRemoval) bool { return r.committed }, func(r *ourRemoval) {
			w.trace("our removal of %v ends", r.records)
			w.forget(r.records)
			w.known |= r.bits
			w.removals = remove(w.removals, r)
		})
	}},
	{"a removal gives up", 1, false, func(w *world) bool {
		return pick(w, w.removals, func(r *ourRemoval) bool { return !r.gaveUp }, func(r *ourRemoval) {
			w.trace("our removal of %v gives up", r.records)
			w.forget(r.records)
			if r.gaveUp = true; r.committed {
				w.removals = remove(w.removals, r)
			}
		})
	}},
	{"another removes", 2, false, func(w *world) bool {
		records := w.anyGroups()
		if records == nil {
			return false
		}
		w.trace("another's removal of %v commits", records)
		w.removeGroups(records)
		return true
	}},

	{"a transaction begins", 1, false, func(w *world) bool {
		if len(w.txs) >= 2 {
			return false
		}
		x := &ourTx{fixed: w.rng.IntN(3) == 0, seen: w.seenNow()}
		if w.rng.IntN(2) == 0 && w.txRemoves(x) || w.txWrites(x) {
			w.trace("a transaction of ours %v", x.parts[0])
			w.txs = append(w.txs, x)
			return true
		}
		return false
	}},
	{"a transaction goes on", 2, true, func(w *world) bool {
		done := false
		pick(w, w.txs, func(x *ourTx) bool { return !x.ended && !x.bad && len(x.parts) < 3 }, func(x *ourTx) {
			if done = w.rng.IntN(2) == 0 && w.txRemoves(x) || w.txWrites(x); done {
				w.trace("a transaction of ours %v", x.parts[len(x.parts)-1])
			}
		})
		return done
	}},
	{"a statement of a transaction fails", 1, false, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return !x.ended && !x.bad && len(x.parts) > 0 }, func(x *ourTx) {
			last := x.parts[len(x.parts)-1]
			w.trace("the statement of a transaction of ours that %v fails", last)
			last.end()
			x.bad = true
		})
	}},
	{"a transaction commits", 2, true, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return !x.ended && !x.bad }, func(x *ourTx) {
			w.trace("a transaction of ours commits: %v", x.parts)
			x.commit(w)
		})
	}},
	{"a transaction rolls back", 1, true, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return !x.ended }, func(x *ourTx) {
			w.trace("a transaction of ours rolls back: %v", x.parts)
			x.rollback()
		})
	}},
	{"the outcome of a transaction is known", 2, true, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return x.ended }, func(x *ourTx) {
			w.trace("the outcome of our transaction is known: %v", x.parts)
			for _, p := range x.parts {
				p.end()
			}
			w.txs = remove(w.txs, x)
		})
	}},

	{"another sets", 4, true, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if w.locked(key) {
			return false
		}
		w.trace("another's Set of key %d commits as %d", key, w.put(key, w.value(w.version(), w.ttl())))
		return true
	}},
	{"another deletes", 2, false, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if w.locked(key) {
			return false
		}
		w.trace("another's Delete of key %d commits as %d", key, w.put(key, written{version: w.version(), ttl: never}))
		return true
	}},
	{"another clears", 1, false, func(w *world) bool {
		if w.anyLocked() {
			return false
		}
		w.empty()
		w.trace("another's Clear commits")
		return true
	}},
	{"somebody deletes by hand", 1, false, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if !w.rows[key].live(w.now) || w.locked(key) {
			return false
		}
		commit := w.nextCommit(never, nil, allRecords)
		w.rows[key], w.gone[key] = row{commit: commit}, commit
		w.publish(note{key: key, commit: commit})
		w.trace("key %d is deleted by hand as %d", key, commit)
		return true
	}},
	{"the janitor", 2, false, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		r := &w.rows[key]
		if !r.on || r.live(w.now) || w.locked(key) {
			return false
		}
		*r = row{commit: r.commit}
		w.gone[key] = r.commit
		w.trace("the janitor removes key %d", key)
		return true
	}},
	{"time passes", 2, false, func(w *world) bool {
		w.now++
		w.trace("it is %d", w.now)
		return true
	}},

	{"a notification", 6, true, func(w *world) bool {
		if len(w.queue) == 0 {
			return false
		}
		w.trace("a notification is applied: %+v", w.queue[0])
		w.deliver(1, false)
		return true
	}},
	{"a flush", 2, false, func(w *world) bool {
		if len(w.queue) < 2 {
			return false
		}
		n := 2 + w.rng.IntN(len(w.queue)-1)
		w.trace("notifications are applied as one: %+v", w.queue[:n])
		w.deliver(n, false)
		return true
	}},
	{"an unknown notification", 1, false, func(w *world) bool {
		if len(w.queue) == 0 {
			return false
		}
		w.trace("a notification is applied that the node can't read: %+v", w.queue[0])
		w.deliver(1, true)
		return true
	}},
	{"the listener", 2, false, func(w *world) bool {
		switch {
		case w.up:
			w.trace("the listener is lost")
			w.tr.Down()
			w.up, w.silent, w.listening, w.queue = false, false, false, w.queue[:0]
		case !w.listening && !w.bent.beatFirst:
			w.trace("LISTEN commits")
			w.listening = true
		default:
			w.trace("the listener is live")
			w.beat()
		}
		return true
	}},
	{"LISTEN comes late", 1, true, func(w *world) bool {
		if !w.bent.beatFirst || w.listening {
			return false
		}
		w.trace("LISTEN commits")
		w.listening = true
		return true
	}},
	{"silence", 2, false, func(w *world) bool {
		if !w.up {
			return false
		}
		if w.silent {
			w.trace("the heartbeat is there, late")
			w.beat()
			return true
		}
		w.trace("the heartbeat is late")
		w.silent = true
		w.tr.TrustListener(time.Now().Add(-farAway))
		return true
	}},

	{"the local cache is full", 1, false, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if w.local.Get(w.keys[key]) == nil {
			return false
		}
		w.trace("key %d is evicted for want of room", key)
		w.local.Delete(w.keys[key])
		return true
	}},
	{"another form", 3, false, func(w *world) bool {
		if w.seen.e == nil {
			w.seen.key = w.rng.IntN(len(w.keys))
			w.seen.e = w.tr.Hit(w.keys[w.seen.key], w.now)
			return w.seen.e != nil
		}
		w.trace("key %d, commit %d is replaced by another form", w.seen.key, w.seen.e.Size)
		w.tr.Replace(w.keys[w.seen.key], w.seen.e, &localcache.Entry{Size: w.seen.e.Size})
		w.seen.e = nil
		return true
	}},
}

var errTest = errors.New("the read failed")

// hit is a Get that only looks at memory.
func (w *world) hit() bool {
	key := w.rng.IntN(len(w.keys))
	e := w.tr.Hit(w.keys[key], w.now)
	if e == nil {
		return false
	}
	w.counts.hits++
	w.trace("get key %d: hit, commit %d", key, e.Size)
	w.returned(key, true, e.Version, e.Size, w.floor(key))
	return true
}

// pickRead picks one of the reads under way for which ok holds.
func (w *world) pickRead(ok func(*read) bool, do func(*read)) bool {
	return pick(w, w.reads, ok, do)
}

func (w *world) pickWrite(ok func(*ourWrite) bool, do func(*ourWrite)) bool {
	return pick(w, w.writes, ok, do)
}

func pick[T any](w *world, all []T, ok func(T) bool, do func(T)) bool {
	if len(all) == 0 {
		return false
	}
	one := all[w.rng.IntN(len(all))]
	if !ok(one) {
		return false
	}
	do(one)
	return true
}

func (w *world) beginWrite(del bool) bool {
	if len(w.writes) >= w.sets {
		return false
	}
	o := &ourWrite{key: w.rng.IntN(len(w.keys)), sent: w.now, of: w.value(w.version(), w.ttl())}
	if del {
		o.of.value, o.of.tags = false, nil
	}
	w.trace("our write of key %d begins", o.key)
	o.w = w.tr.BeginWrite(w.keys[o.key], o.of.version, nil)
	w.writes = append(w.writes, o)
	return true
}

func (w *world) ttl() int64 {
	if w.rng.IntN(3) > 0 {
		return never
	}
	return 1 + w.rng.Int64N(4)
}
