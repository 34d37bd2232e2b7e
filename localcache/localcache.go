// Package localcache is what a node keeps in its own memory: recently used entries, bounded in number and in bytes. New makes one,
// None one that keeps nothing; package localcache/localcachetest tests others.
//
// It has no rule of coherence. The pgcache.Cache that uses it decides, under its own locks, which entry is stored, which is removed and
// whether one may still be handed out. A local cache only has to keep what it is given, forget it on Delete and Clear, and evict what
// it chooses when it is full.
package localcache

import (
	"sync/atomic"
	"unique"
)

// Key identifies a row: the namespace before the first ':' of its key, "" if there is none, and the rest. It has two parts so that a
// typed view looks a key up without concatenating.
type Key struct {
	Namespace string
	Name      string
}

// Row returns the key of the row, "<namespace>:<name>", or the name alone where there is no namespace.
func (k Key) Row() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + ":" + k.Name
}

// Entry is one cached row. Once it has been stored only Use may change it. Its 64 bytes fill a size class of the allocator; with one byte
// more it would take 80.
type Entry struct {
	Value    any                   // the decoded value, where it may be handed out as it is; else nil
	Raw      *[]byte               // the encoded value, where Value is nil
	Codec    unique.Handle[string] // the name of the codec that wrote the row
	Version  int64                 // the identity of the write that made the row: equal or not, never older or newer
	Deadline int64                 // until when it may be handed out, in ns of the monotonic clock of its Cache; math.MaxInt64: no expiry
	Size     int                   // bytes of key and encoded value, for the bound in bytes
	Epoch    uint32                // the Cache's epoch in which it was stored; in another it is never handed out
	interest uint32                // see Interest
}

// mostInterest is the interest in an entry that was handed out: see Entry.Interest.
const mostInterest = 12

// Use notes that the entry was handed out. It writes only once, so that readers on other processors keep the cache line.
func (e *Entry) Use() {
	if atomic.LoadUint32(&e.interest) != mostInterest {
		atomic.StoreUint32(&e.interest, mostInterest)
	}
}

// Interest says how many more times the key is read again when its entry is evicted by an invalidation, before any caller asks for it:
// 0 if the entry was never handed out. Each read that no caller has asked for uses one up. Many keys are read again in one statement,
// where each costs a tenth of one that is read alone: so this pays for a key that is asked for once in ten versions.
func (e *Entry) Interest() uint32 { return atomic.LoadUint32(&e.interest) }

// Inherit sets the interest that is left from the version before. It must be called before the entry is stored.
func (e *Entry) Inherit(interest uint32) { e.interest = interest }

// Cache keeps entries in memory. All methods are safe for concurrent use. A Get that starts after a Delete, a Set or a
// Clear returned sees its effect; beyond that an entry may vanish at any time.
//
// A Cache may have two more methods, which are safe for concurrent use too:
//
//   - Keys() iter.Seq[Key], the keys of at least those entries that are there from the beginning to the end of the iteration. With it,
//     DeletePrefix removes the entries below the prefix from memory; without it, all entries.
//   - Size() (entries int, full float64), about how many entries there are, and what share of the bounds they take, from 0 to about 1.
//     pgcacheui and the command line show it.
type Cache interface {
	// Get returns the entry under k, or nil. The caller does not change it, but for Use.
	Get(k Key) *Entry
	// Set stores e under k in place of what was there. An entry larger than the whole bound is not kept, and what was
	// there before is gone all the same.
	Set(k Key, e *Entry)
	// Delete forgets k.
	Delete(k Key)
	// Clear forgets everything.
	Clear()
}
