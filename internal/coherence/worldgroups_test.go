package coherence

import (
	"fmt"
	"slices"
	"strings"

	"github.com/pgcache/go/internal/notify"
)

// Groups and transactions of the world.

// tagNames are the tags that there are.
var tagNames = []string{"t", "u"}

// record is the removal of a group, as the database has it.
type record struct {
	kind byte // notify.Tag or notify.Prefix
	name string
	id   int64
}

// seenRecords has a bit for each record that a statement has seen.
type seenRecords uint64

const allRecords = ^seenRecords(0)

// mostRecords is how many of them a schedule may have.
const mostRecords = 60

func (r record) holds(k Key, tags []string) bool {
	if r.kind == notify.Prefix {
		return strings.HasPrefix(k.Row(), r.name)
	}
	return slices.Contains(tags, r.name)
}

func (r record) String() string { return fmt.Sprintf("%c:%s", r.kind, r.name) }

func (w *world) seenNow() seenRecords { return 1<<len(w.records) - 1 }

func (w *world) anyTags() (tags []string) {
	for _, tag := range tagNames {
		if w.rng.IntN(3) == 0 {
			tags = append(tags, tag)
		}
	}
	return tags
}

// anyGroups makes the records of one removal; nil: there are too many already.
func (w *world) anyGroups() (records []record) {
	if !w.grouped || len(w.records) > mostRecords-10 {
		return nil
	}
	if w.rng.IntN(3) == 0 {
		return []record{{notify.Prefix, w.keys[w.rng.IntN(len(w.keys))].Name[:1], w.version()}}
	}
	for _, tag := range tagNames {
		if w.rng.IntN(2) == 0 {
			records = append(records, record{notify.Tag, tag, w.version()})
		}
	}
	if records == nil {
		records = []record{{notify.Tag, "t", w.version()}}
	}
	return records
}

// groupsOf is how the tracker is asked for a removal.
func groupsOf(records []record) (tags []string, prefix string) {
	for _, r := range records {
		if r.kind == notify.Prefix {
			return nil, r.name
		}
		tags = append(tags, r.name)
	}
	return tags, ""
}

// forget is what the node does itself before a removal and after it.
func (w *world) forget(records []record) {
	tags, prefix := groupsOf(records)
	w.tr.RemoveTags(tags)
	if prefix != "" {
		w.tr.RemovePrefix(prefix)
	}
}

// record commits records.
func (w *world) record(records []record) (seen seenRecords) {
	for _, r := range records {
		seen |= 1 << len(w.records)
		w.records = append(w.records, r)
	}
	return seen
}

// removes says which of these removals, that its statement had not seen, a commit of a key is of; -1: none.
func (w *world) removes(k Key, commit int, of seenRecords) int {
	for i, r := range w.records {
		if bit := seenRecords(1) << i; of&bit != 0 && w.saw[commit]&bit == 0 && r.holds(k, w.tags[commit]) {
			return i
		}
	}
	return -1
}

// bury notes which rows have died: a record of one of their groups is committed that they have not seen. A dead row counts as none,
// and keeps its version.
func (w *world) bury() {
	for key := range w.rows {
		if r := &w.rows[key]; r.on && r.value && !r.dead && w.removes(w.keys[key], r.commit, allRecords) >= 0 {
			r.dead, r.commit = true, w.nextCommit(never, nil, allRecords)
			w.gone[key] = r.commit
		}
	}
}

// publishGroups publishes the removal of groups.
func (w *world) publishGroups(records []record, bits seenRecords) {
	n := note{key: ofGroups, groups: records, removes: bits}
	if w.secret != nil && records[0].kind == notify.Prefix {
		n.key, n.groups = everything, nil
	}
	if !w.bent.silentGroup {
		w.publishInline(n)
	}
}

// removeGroups commits a removal and publishes it.
func (w *world) removeGroups(records []record) (bits seenRecords) {
	bits = w.record(records)
	w.bury()
	w.publishGroups(records, bits)
	return bits
}

// groupItems are the items of a message that removes groups.
func (w *world) groupItems(records []record) string {
	var b []byte
	for _, r := range records {
		g := notify.Group{Kind: r.kind, Name: r.name, ID: r.id & (1<<63 - 1)}
		if w.secret != nil {
			g.Name = notify.HiddenTag(w.secret, r.name)
		}
		b = notify.AppendGroup(b, g)
	}
	return string(b)
}

// ourRemoval is a removal of groups by this node.
type ourRemoval struct {
	records   []record
	committed bool
	gaveUp    bool // the caller is gone, the statement may still be done
	bits      seenRecords
}

// ourTx is a transaction of ours. The rows that it has written are locked until it ends.
type ourTx struct {
	parts []*txPart
	seen  seenRecords // its snapshot, under an isolation level that has one
	fixed bool        // it has
	ended bool        // committed or rolled back
	bad   bool        // a statement has failed: it can't commit
}

// txPart is a statement of a transaction.
type txPart struct {
	w       *TxWrite
	key     int
	of      written
	r       *TxRemoval
	records []record
	bits    seenRecords
}

func (p *txPart) end() {
	if p.w != nil {
		p.w.End()
	} else {
		p.r.End()
	}
}

func (p *txPart) String() string {
	if p.w != nil {
		return fmt.Sprintf("writes key %d, tags %v", p.key, p.of.tags)
	}
	return fmt.Sprintf("removes %v", p.records)
}

// locked says that a transaction that is open has written key: whoever writes it waits.
func (w *world) locked(key int) bool { return w.lockedBy(key, nil) }

func (w *world) lockedBy(key int, but *ourTx) bool {
	return slices.ContainsFunc(w.txs, func(x *ourTx) bool {
		return x != but && !x.ended && slices.ContainsFunc(x.parts, func(p *txPart) bool { return p.w != nil && p.key == key })
	})
}

// anyLocked says that a transaction is open that has written something: what locks the table waits.
func (w *world) anyLocked() bool {
	return slices.ContainsFunc(w.txs, func(x *ourTx) bool {
		return !x.ended && slices.ContainsFunc(x.parts, func(p *txPart) bool { return p.w != nil })
	})
}

// txWrites is a statement of x that writes a key.
func (w *world) txWrites(x *ourTx) bool {
	key := w.rng.IntN(len(w.keys))
	if w.lockedBy(key, x) {
		return false
	}
	p := &txPart{key: key, of: w.value(w.version(), w.ttl())}
	p.of.value = w.rng.IntN(2) == 0
	if x.fixed {
		p.of.seen = x.seen
	}
	p.w = w.tr.BeginTxWrite(w.keys[key], p.of.version)
	x.parts = append(x.parts, p)
	return true
}

// txRemoves is a statement of x that removes groups.
func (w *world) txRemoves(x *ourTx) bool {
	p := &txPart{records: w.anyGroups()}
	if p.records == nil {
		return false
	}
	tags, prefix := groupsOf(p.records)
	p.r = w.tr.BeginTxRemoval(tags, prefix)
	var ids []int64
	for _, r := range p.records {
		ids = append(ids, r.id)
	}
	p.r.Sent(ids)
	x.parts = append(x.parts, p)
	return true
}

// commit commits x: all of it at once. What it wrote has seen its own removals from before.
func (x *ourTx) commit(w *world) {
	x.ended = true
	var own seenRecords
	var notes []note
	for _, p := range x.parts {
		if p.r != nil {
			p.bits = w.record(p.records)
			own |= p.bits
			continue
		}
		p.of.seen |= own
		commit, _ := w.write(p.key, p.of)
		notes = append(notes, note{key: p.key, version: p.of.version, commit: commit})
	}
	w.bury()
	for _, p := range x.parts {
		if p.r != nil {
			w.publishGroups(p.records, p.bits)
		} else {
			w.publishInline(notes[0])
			notes = notes[1:]
		}
	}
	if w.rng.IntN(4) == 0 {
		w.trace("and nobody hears that it has")
		return
	}
	w.known |= own // Commit has returned
	for _, p := range x.parts {
		if p.w != nil {
			w.raise(p3, p.key, w.rows[p.key].commit)
		}
	}
}

// rollback ends x without a trace.
func (x *ourTx) rollback() { x.ended = true }
