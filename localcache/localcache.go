// Package localcache is what a node keeps in its own memory: recently used entries, bounded in number and in bytes.
//
// It holds no rule of coherence. Which entry may be stored, which must go and whether one may still be served is decided
// by the Cache that uses it, under locks of its own; a local cache only has to keep what it is given, forget it on
// Delete and Clear, and forget whatever it likes when it is full.
package localcache

import (
	"sync/atomic"
	"unique"
)

// Key identifies a row: the namespace before the first ':' of its key, and the rest. Two parts, so that a typed view
// looks a key up without concatenating.
type Key struct {
	Namespace string
	Name      string
}

// Row is the key of the row.
func (k Key) Row() string {
	if k.Namespace == "" {
		return k.Name
	}
	return k.Namespace + ":" + k.Name
}

// Entry is one cached row. Its fields must not be changed once it has been stored, but by Use. It fills a size
// class of the allocator: one byte more costs sixteen.
type Entry struct {
	Value    any                   // the decoded value, where it may be handed out as it is; else nil
	Raw      *[]byte               // the encoded value, where Value is nil
	Codec    unique.Handle[string] // the name of the codec that wrote the row
	Version  int64                 // the identity of the write that made the row: equal or not, never older or newer
	Deadline int64                 // when it stops being served, in nanoseconds of the process's monotonic clock
	Size     int                   // bytes of key and encoded value, for the bound in bytes
	Epoch    uint32                // the epoch it belongs to; an entry of another epoch is never served
	interest uint32
}

// mostInterest is the interest in an entry that was just handed out.
const mostInterest = 12

// Use notes that the entry was handed out. It writes once an entry: readers share the cache line.
func (e *Entry) Use() {
	if atomic.LoadUint32(&e.interest) != mostInterest {
		atomic.StoreUint32(&e.interest, mostInterest)
	}
}

// Interest says for how many more versions the key is worth fetching again unasked: 0 if it was never handed out.
// Fetching many keys at once costs each a tenth of what it costs alone, so a key that is read only every tenth time that
// it changes still pays.
func (e *Entry) Interest() uint32 { return atomic.LoadUint32(&e.interest) }

// Inherit notes the interest in the key from before this version.
func (e *Entry) Inherit(interest uint32) { e.interest = interest }

// Cache keeps entries in memory. All methods are safe for concurrent use. A Get that starts after a Delete, a Set or a
// Clear returned sees its effect; beyond that an entry may vanish at any time.
//
// A cache that also has a method Keys() iter.Seq[Key], of all entries that it has when the iteration begins and keeps, forgets just
// the entries of a prefix that is removed; without it everything is forgotten then.
type Cache interface {
	// Get returns the entry under k, or nil.
	Get(k Key) *Entry
	// Set stores e under k in place of what was there. An entry larger than the whole bound is not kept, and what was
	// there before is gone all the same.
	Set(k Key, e *Entry)
	// Delete forgets k.
	Delete(k Key)
	// Clear forgets everything.
	Clear()
}

// Options bounds a local cache. The zero value means the defaults.
type Options struct {
	// MaxEntries is the largest number of entries kept. Defaults to 4096.
	MaxEntries int
	// MaxBytes is the largest sum of Entry.Size. Defaults to 64 MiB.
	MaxBytes int64
}
