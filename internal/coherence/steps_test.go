package coherence

import (
	"errors"
	"slices"
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
			o.commit = w.put(o.key, o.version, o.ttl, !o.remove)
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

	{"a transaction writes", 1, false, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if len(w.txs) >= 2 || w.locked(key) {
			return false
		}
		x := &ourTx{key: key, version: w.version(), remove: w.rng.IntN(2) == 0}
		w.trace("a transaction of ours writes key %d", key)
		x.w = w.tr.BeginTxWrite(w.keys[key], x.version)
		w.txs = append(w.txs, x)
		return true
	}},
	{"a transaction commits", 2, true, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return !x.ended }, func(x *ourTx) {
			commit, _ := w.write(x.key, x.version, w.ttl(), !x.remove)
			w.publish(note{key: x.key, version: x.version, commit: commit})
			w.trace("a transaction of ours commits key %d as %d", x.key, commit)
			w.raise(p3, x.key, commit) // Commit has returned
			x.ended = true
		})
	}},
	{"a transaction rolls back", 1, true, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return !x.ended }, func(x *ourTx) {
			w.trace("a transaction of ours that wrote key %d rolls back", x.key)
			x.ended = true
		})
	}},
	{"the outcome of a transaction is known", 2, true, func(w *world) bool {
		return pick(w, w.txs, func(x *ourTx) bool { return x.ended }, func(x *ourTx) {
			w.trace("the outcome of our transaction on key %d is known", x.key)
			x.w.End()
			w.txs = remove(w.txs, x)
		})
	}},

	{"another sets", 4, true, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if w.locked(key) {
			return false
		}
		w.trace("another's Set of key %d commits as %d", key, w.put(key, w.version(), w.ttl(), true))
		return true
	}},
	{"another deletes", 2, false, func(w *world) bool {
		key := w.rng.IntN(len(w.keys))
		if w.locked(key) {
			return false
		}
		w.trace("another's Delete of key %d commits as %d", key, w.put(key, w.version(), never, false))
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
		commit := w.nextCommit(never)
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

// anyLocked says that a transaction is open that has written something: what locks the table waits.
func (w *world) anyLocked() bool {
	return slices.ContainsFunc(w.txs, func(x *ourTx) bool { return !x.ended })
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
	w.returned(key, e.Version, e.Size, w.floor(key))
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
	o := &ourWrite{key: w.rng.IntN(len(w.keys)), version: w.version(), sent: w.now, ttl: w.ttl(), remove: del}
	w.trace("our write of key %d begins", o.key)
	o.w = w.tr.BeginWrite(w.keys[o.key], o.version, nil)
	w.writes = append(w.writes, o)
	return true
}

func (w *world) ttl() int64 {
	if w.rng.IntN(3) > 0 {
		return never
	}
	return 1 + w.rng.Int64N(4)
}
