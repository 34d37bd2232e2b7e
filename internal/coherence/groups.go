package coherence

import (
	"iter"
	"maps"
	"math"
	"slices"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/pgcache/go/internal/notify"
)

// groups is what a tracker knows of groups: which entries have which tags, and which removals of groups have come.
//
// A removal names a group, not its keys. So an entry of a tagged row enters the index before it enters the local cache, and an
// operation that began before a removal keeps nothing that the removal may be about: removals are counted, and an operation
// keeps something only if the count is what it was when the operation began.
//
//	Get: count is 1, reads the row         removal: count is 2, takes the tag's keys out of the index, evicts them
//	Get: count is 2, keeps nothing         <- stale until it expires, if it were kept
//
// Its mutex is taken after a stripe's. Operations on untagged rows take it only while a transaction of ours removes a group.
type groups struct {
	tagRemovals    atomic.Uint64 // how many removals of tags were applied; changes under mu
	prefixRemovals atomic.Uint64 // how many removals of prefixes were applied
	open           atomic.Int32  // removals in transactions of ours whose outcome is not known: len(txs); changes under mu

	mu     sync.Mutex
	byTag  map[string]map[Key]struct{} // the keys of each tag, by the name that messages have for it
	size   int                         // how many keys all tags have together
	dropAt int                         // the size at which dropTagged is due
	due    atomic.Bool                 // dropTagged is due
	txs    []*TxRemoval
}

// removals is how many removals of each kind had been applied at some moment.
type removals struct{ tags, prefixes uint64 }

// applied counts the removals so far. An operation calls it when it begins, under the lock of its stripe.
func (g *groups) applied() removals { return removals{g.tagRemovals.Load(), g.prefixRemovals.Load()} }

// tagName is what messages call a tag.
func (t *Tracker) tagName(tag string) string {
	if secret := t.hidden.secret.Load(); secret != nil {
		return notify.HiddenTag(*secret, tag)
	}
	return tag
}

// admit says whether an entry of k with these tags may be kept by an operation that counted applied when it began. If so, it adds k to the
// index of each tag. The caller holds the stripe's lock and keeps the entry before it unlocks: removeTag takes keys out of the index
// first, and then evicts each under that lock.
func (t *Tracker) admit(k Key, tags []string, applied removals) bool {
	g := &t.groups
	if g.prefixRemovals.Load() != applied.prefixes {
		return false
	}
	if len(tags) == 0 && g.open.Load() == 0 {
		return true
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if len(tags) > 0 && g.tagRemovals.Load() != applied.tags {
		return false
	}
	for _, tx := range g.txs {
		if tx.holds(k, tags) {
			return false
		}
	}
	if !t.keeps {
		return true
	}
	for _, tag := range tags {
		name := t.tagName(tag)
		tagged := g.byTag[name]
		if tagged == nil {
			if g.byTag == nil {
				g.byTag, g.dropAt = map[string]map[Key]struct{}{}, leastDropAt
			}
			tagged = map[Key]struct{}{}
			g.byTag[name] = tagged
		}
		if _, ok := tagged[k]; !ok {
			tagged[k] = struct{}{}
			g.size++
		}
		if g.size >= g.dropAt {
			g.due.Store(true)
		}
	}
	return true
}

// RemoveTags applies the removal of everything that has one of the tags.
func (t *Tracker) RemoveTags(tags []string) {
	for _, tag := range tags {
		t.removeTag(t.tagName(tag))
	}
}

// removeTag is RemoveTags for one tag, by the name that messages have for it.
func (t *Tracker) removeTag(name string) {
	g := &t.groups
	g.mu.Lock()
	g.tagRemovals.Add(1)
	keys := g.byTag[name]
	delete(g.byTag, name)
	g.size -= len(keys)
	g.mu.Unlock()
	for k := range keys {
		s := t.stripe(k)
		s.mu.Lock()
		t.local.Delete(k)
		s.mu.Unlock()
	}
}

// RemovePrefix applies the removal of everything whose key begins with prefix. Where the local cache can't list its keys, everything is
// forgotten.
func (t *Tracker) RemovePrefix(prefix string) {
	t.groups.prefixRemovals.Add(1)
	// An operation compares the count and keeps its entry while it holds its stripe's lock. Once this goroutine has taken each lock,
	// every entry that was kept by the old count is in the local cache, and is found there:
	//
	//	Get: count is 1, as before       removal: count is 2, looks through the local cache: no entry of the key
	//	Get: keeps its entry             <- stale until it expires, if the removal had not waited
	for i := range t.stripes {
		t.stripes[i].wait()
	}
	all, ok := t.local.(interface{ Keys() iter.Seq[Key] })
	if !ok {
		t.Forget()
		return
	}
	for k := range all.Keys() {
		if begins(k, prefix) {
			s := t.stripe(k)
			s.mu.Lock()
			t.local.Delete(k)
			s.mu.Unlock()
		}
	}
}

// begins says whether k.Row() begins with prefix, without concatenating.
func begins(k Key, prefix string) bool {
	n := len(k.Namespace)
	switch {
	case n == 0:
		return strings.HasPrefix(k.Name, prefix)
	case len(prefix) <= n:
		return strings.HasPrefix(k.Namespace, prefix)
	}
	return strings.HasPrefix(prefix, k.Namespace) && prefix[n] == ':' && strings.HasPrefix(k.Name, prefix[n+1:])
}

// removed applies a message's removal of a group.
func (t *Tracker) removed(m *notify.Message, g notify.Group) {
	t.Invalidations.Add(1)
	switch {
	case g.Kind == notify.Tag:
		t.removeTag(g.Name)
	case m.Hidden:
		t.Forget() // a prefix says nothing of hashes; nobody sends one
	default:
		t.RemovePrefix(g.Name)
	}
	if t.groups.open.Load() > 0 {
		t.groups.end(func(tx *TxRemoval) bool { return slices.Contains(tx.ids, g.ID) })
	}
}

// dropTagged takes keys that are not kept any more out of the index, when its size has doubled since the last time: the local cache does
// not report what it evicts. It looks under the stripe's lock, because there an operation indexes a key first and keeps its entry then.
func (t *Tracker) dropTagged() {
	g := &t.groups
	g.mu.Lock()
	g.due.Store(false)
	g.dropAt = math.MaxInt // nobody else begins before this is done
	all := make(map[string][]Key, len(g.byTag))
	for name, tagged := range g.byTag {
		all[name] = slices.Collect(maps.Keys(tagged))
	}
	g.mu.Unlock()
	for name, keys := range all {
		for _, k := range keys {
			s := t.stripe(k)
			s.mu.Lock()
			if t.local.Get(k) == nil {
				g.drop(name, k)
			}
			s.mu.Unlock()
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.dropAt = max(leastDropAt, 2*g.size)
}

// drop takes k out of the index of a tag.
func (g *groups) drop(name string, k Key) {
	g.mu.Lock()
	defer g.mu.Unlock()
	tagged := g.byTag[name]
	if _, ok := tagged[k]; !ok {
		return
	}
	delete(tagged, k)
	g.size--
	if len(tagged) == 0 {
		delete(g.byTag, name)
	}
}

// A TxRemoval is a removal of groups in a transaction of the caller's: as with a TxWrite, until its outcome is known nothing of
// the groups is kept, and nobody joins a read or a load from before.
type TxRemoval struct {
	t      *Tracker
	tags   []string
	prefix string // "": none
	ids    []int64
	done   bool // it has ended; under the mutex of groups
}

// BeginTxRemoval begins a removal of tags or, if there are none, of a prefix. The caller sends its statement after this call, gives
// what it returned to Sent, and sees to it that End is called when the transaction has ended.
func (t *Tracker) BeginTxRemoval(tags []string, prefix string) *TxRemoval {
	tx := &TxRemoval{t: t, tags: slices.Clone(tags), prefix: prefix}
	g := &t.groups
	g.mu.Lock()
	g.txs = append(g.txs, tx)
	g.open.Add(1)
	g.mu.Unlock()
	tx.apply()
	return tx
}

// apply applies the removal to the local cache.
func (tx *TxRemoval) apply() {
	if tx.prefix != "" {
		tx.t.RemovePrefix(tx.prefix)
	}
	tx.t.RemoveTags(tx.tags)
}

// holds says whether an entry of k with these tags is of one of the groups that tx removes. The caller holds the mutex of groups.
func (tx *TxRemoval) holds(k Key, tags []string) bool {
	return tx.prefix != "" && begins(k, tx.prefix) || slices.ContainsFunc(tags, func(tag string) bool { return slices.Contains(tx.tags, tag) })
}

// Sent notes the ids of the removal's records: the notification of the commit has them.
func (tx *TxRemoval) Sent(ids []int64) {
	g := &tx.t.groups
	g.mu.Lock()
	defer g.mu.Unlock()
	tx.ids = ids
}

// End says that the transaction has ended, either way. It may be called more than once.
func (tx *TxRemoval) End() {
	if tx.Done() {
		return
	}
	// An operation that began before the commit may have seen what was there before it, and must keep nothing.
	tx.apply()
	tx.t.groups.end(func(other *TxRemoval) bool { return other == tx })
}

// Done reports whether it has ended.
func (tx *TxRemoval) Done() bool {
	g := &tx.t.groups
	g.mu.Lock()
	defer g.mu.Unlock()
	return tx.done
}

// end ends the removals that match. The caller has just applied them, so operations that began before keep nothing of their groups.
func (g *groups) end(match func(*TxRemoval) bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.txs = slices.DeleteFunc(g.txs, func(tx *TxRemoval) bool {
		tx.done = match(tx)
		if tx.done {
			g.open.Add(-1)
		}
		return tx.done
	})
}
