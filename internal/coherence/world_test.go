package coherence

import (
	"iter"
	"maps"
	"math"
	"math/rand/v2"
	"time"

	"github.com/pgcache/go/internal/notify"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A world is one node with a real Tracker, and around it what it talks to: rows that others write too, and the queue of
// notifications on their way to the node. It is the one place where the database is played: what is tested here is the
// order in which its effects reach the tracker, and that no real server would let us choose.
//
// Commits are numbered. The tracker sees versions, which say nothing about order; the checks see the numbers, which
// travel in Entry.Size and Row.Server.
type world struct {
	rng     *rand.Rand
	bent    bent
	tr      *Tracker
	local   memory
	keys    []Key
	gets    int    // reads under way at most
	sets    int    // writes of ours under way at most
	grouped bool   // groups are removed in this schedule
	outs    bool   // some rows of this schedule are never kept in memory
	secret  []byte // messages hash keys with it; nil: they don't
	traced  func(format string, args ...any)

	now       int64 // ticks of the clock of all deadlines
	rows      []row
	gone      []int         // per key: the latest commit that left no row
	expiry    []int64       // of each commit
	tags      [][]string    // likewise
	saw       []seenRecords // of each commit: which removals its statement had seen
	known     seenRecords   // the removals that this node has done itself, or applied
	records   []record      // of the removals of groups that are committed
	queue     []note
	listening bool // LISTEN is in force: what is committed is queued for us
	up        bool // TrustListener has been called
	silent    bool // the trust of the last Trust has run out

	reads    []*read
	joiners  []joiner
	writes   []*ourWrite
	txs      []*ourTx
	removals []*ourRemoval
	clearing int // of a Clear of ours: 0 none, 1 begun, 2 committed
	cleared  []int
	seen     seen

	floors [promises][]int // per promise and key: the oldest commit that a Get that begins now may return

	ids    int
	counts counts
}

// bent are faults of the world, not of the tracker, that the checks must notice.
type bent struct {
	beatFirst    bool // the listener is called live before LISTEN
	silentDelete bool // a Delete is not published
	silentGroup  bool // the removal of a group is not published
	lossy        bool // now and then a notification is lost in a connection that lives on
	silentOut    bool // a row that is never kept is silent, whatever it takes the place of
}

type counts struct{ hits, joins, fills, kept int }

// seen is an entry that somebody is about to replace by another form of it.
type seen struct {
	key int
	e   *localcache.Entry
}

// memory is a local cache without bounds, so that nothing happens that the schedule does not say.
type memory map[Key]*localcache.Entry

func (m memory) Get(k Key) *localcache.Entry    { return m[k] }
func (m memory) Set(k Key, e *localcache.Entry) { m[k] = e }
func (m memory) Delete(k Key)                   { delete(m, k) }
func (m memory) Clear()                         { clear(m) }
func (m memory) Keys() iter.Seq[Key]            { return maps.Keys(m) }

// row is a key as the database has it.
type row struct {
	on      bool // there is a row
	value   bool // it is no tombstone
	version int64
	commit  int // the latest of this key, also where there is no row any more
	expires int64
	tags    []string
	seen    seenRecords
	dead    bool // a record of one of its groups is committed that it has not seen
}

const never = math.MaxInt64

// farAway is beyond the few ticks that a schedule takes, whenever it runs.
const farAway = 24 * time.Hour

func (r row) live(now int64) bool { return r.on && r.value && !r.dead && now < r.expires }

// note is one notification under way. Version 0 drops the key whatever is held; key everything is "forget everything", key
// ofGroups removes groups.
type note struct {
	key     int
	version int64
	groups  []record
	removes seenRecords // the records of groups
	commits []int       // for key everything: the latest commit of each key
	commit  int
	alone   bool // it has overtaken others, so no message names it beside them
}

const (
	everything = -1
	ofGroups   = -2
)

// read is one statement of ours that reads.
type read struct {
	id      int // for the trace
	f       *Read
	key     int
	floor   floor
	sent    int64
	snapped bool
	row     row
	at      int64 // when it was snapped
}

// joiner is a Get that waits for another's read.
type joiner struct {
	f     *Read
	key   int
	floor floor
}

// ourWrite is one Set or Delete of ours.
type ourWrite struct {
	w      *Writer
	key    int
	of     written
	sent   int64
	commit int  // 0: not yet
	gaveUp bool // the caller is gone, the statement may still be done
}

// version makes an identity whose size says nothing. In some schedules half of them are of rows that are never kept.
func (w *world) version() int64 {
	for {
		switch v := w.rng.Int64() &^ neverKept; {
		case w.outs && w.rng.IntN(2) == 0:
			return v&^silenced | neverKept
		case v != 0:
			return v
		}
	}
}

// The bits of versions, as store.NewVersion has them.
const (
	neverKept = 1 << 62
	silenced  = 1
)

func (w *world) nextCommit(expires int64, tags []string, seen seenRecords) int {
	w.expiry, w.tags, w.saw = append(w.expiry, expires), append(w.tags, tags), append(w.saw, seen)
	return len(w.expiry) - 1
}

// written is what a statement writes, and what its snapshot shows of removals.
type written struct {
	version int64
	ttl     int64
	value   bool
	tags    []string
	seen    seenRecords
}

// value is what somebody writes by a statement whose snapshot is of now.
func (w *world) value(version, ttl int64) written {
	return written{version: version, ttl: ttl, value: true, tags: w.anyTags(), seen: w.seenNow()}
}

// put commits a row, and publishes it unless it is new, or is never kept and takes the place of another such.
func (w *world) put(key int, of written) (commit int) {
	was := w.rows[key]
	commit, changed := w.write(key, of)
	if was.on && of.value && store.NeverKept(of.version) {
		if store.NeverKept(was.version) {
			w.rows[key].version |= silenced
			changed = false
		}
		changed = changed && !w.bent.silentOut
	}
	if changed && (of.value || !w.bent.silentDelete) {
		w.publish(note{key: key, version: of.version, commit: commit})
	}
	w.bury()
	return commit
}

// write commits a row, and says whether there was one before.
func (w *world) write(key int, of written) (commit int, changed bool) {
	expires := int64(never)
	if of.ttl != never {
		expires = w.now + of.ttl
	}
	if !of.value {
		of.tags, of.seen = nil, allRecords // nothing is there to be removed
	}
	was := w.rows[key].on
	commit = w.nextCommit(expires, of.tags, of.seen)
	w.rows[key] = row{on: true, value: of.value, version: of.version, commit: commit, expires: expires, tags: of.tags, seen: of.seen}
	return commit, was || !of.value
}

// empty commits a Clear.
func (w *world) empty() {
	commits := make([]int, len(w.rows))
	for i := range w.rows {
		commits[i] = w.nextCommit(never, nil, allRecords)
		w.rows[i] = row{commit: commits[i]}
		w.gone[i] = commits[i]
	}
	w.publish(note{key: everything, commits: commits})
}

func (w *world) publish(n note) {
	if w.listening && !(w.bent.lossy && w.rng.IntN(4) == 0) {
		w.queue = append(w.queue, n)
	}
}

// publishInline publishes n in the statement that writes. What others have left in the change log may come later.
func (w *world) publishInline(n note) {
	before := len(w.queue)
	w.publish(n)
	for i := before; i > 0 && len(w.queue) > before && w.queue[i-1].key >= 0 && w.rng.IntN(2) == 0; i-- {
		w.queue[i-1], w.queue[i] = w.queue[i], w.queue[i-1]
		w.queue[i-1].alone = true
	}
}

// deliver applies the first n notifications of the queue, as one payload if they are more than one and may be so. A foreign one is in a format that this release does not know.
func (w *world) deliver(n int, foreign bool) {
	batch := w.queue[:n]
	for i, one := range batch {
		if one.key < 0 || one.alone {
			batch = w.queue[:max(i, 1)]
			break
		}
	}
	var payload string
	switch first := batch[0]; {
	case first.key == everything:
		payload = notify.All
	case first.key == ofGroups:
		payload = w.groupItems(first.groups)
	case len(batch) == 1:
		payload = one(w.published(w.keys[first.key]), first.version)
	default:
		var b []byte
		for key, k := range w.keys {
			var versions []int64
			for i := len(batch) - 1; i >= 0; i-- {
				if batch[i].key == key {
					versions = append(versions, batch[i].version)
				}
			}
			if versions != nil {
				b = notify.AppendItem(b, w.published(k), versions...)
			}
		}
		payload = string(b)
	}
	if foreign {
		payload = "?" + payload
	}
	if err := w.tr.Apply(notify.Message{Body: payload, Hidden: w.secret != nil}, func(row string) Key { return Key{Name: row} }); (err != nil) != foreign {
		w.wrong("Apply(%q): %v", payload, err)
	}
	for _, one := range batch {
		w.known |= one.removes
		for key, commit := range one.commits {
			w.raise(p1, key, commit)
		}
		if one.key >= 0 {
			w.raise(p1, one.key, one.commit)
		}
	}
	w.queue = w.queue[len(batch):]
}

// beat makes the tracker live, or trusted again.
func (w *world) beat() {
	if !w.up {
		for i, r := range w.rows {
			w.raise(p2, i, r.commit)
		}
		w.known |= w.seenNow()
	}
	w.up, w.silent = true, false
	w.tr.TrustListener(time.Now().Add(farAway))
	w.tr.TrustPulse(time.Now().Add(farAway))
}

// published is what messages call a key.
func (w *world) published(k Key) string {
	if w.secret != nil {
		return notify.HiddenKey(w.secret, k.Row())
	}
	return k.Row()
}

// one is the item of one version of a key.
func one(key string, version int64) string { return string(notify.AppendItem(nil, key, version)) }
