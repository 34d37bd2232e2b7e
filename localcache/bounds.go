package localcache

import (
	"fmt"
	"math"
)

const (
	defaultMaxEntries = 4096
	defaultMaxBytes   = 64 << 20
)

// Options bounds a local cache. The zero value means the defaults; New says what becomes of negative ones.
type Options struct {
	// MaxEntries is the largest number of entries that are kept. Defaults to 4096.
	MaxEntries int
	// MaxBytes is the largest sum of Entry.Size, in bytes. Defaults to 64 MiB.
	MaxBytes int64
}

func (o Options) validate() error {
	if o.MaxEntries < 0 {
		return fmt.Errorf("pgcache: localcache: MaxEntries is %d, want 0 (the default, %d) or more", o.MaxEntries, defaultMaxEntries)
	}
	if o.MaxBytes < 0 {
		return fmt.Errorf("pgcache: localcache: MaxBytes is %d, want 0 (the default, %d) or more", o.MaxBytes, defaultMaxBytes)
	}
	return nil
}

// bounds makes one bound in weight, all that otter knows, of a bound in entries and one in bytes: an entry weighs its
// bytes, but at least its share, one part in MaxEntries of the whole. Then neither more than MaxEntries fit nor more
// than MaxBytes. In a mixture of large and small entries the two add up: small ones that take half of the shares leave
// half of the bytes to the large ones.
type bounds struct {
	share   uint64 // the least that an entry weighs
	total   uint64 // the whole: MaxEntries shares, which is MaxBytes rounded down
	largest uint64 // bytes of the largest entry that is kept
}

func (o Options) bounds() bounds {
	if o.MaxEntries == 0 {
		o.MaxEntries = defaultMaxEntries
	}
	if o.MaxBytes == 0 {
		o.MaxBytes = defaultMaxBytes
	}
	// An entry weighs a byte at least, so there are never more entries than bytes. It weighs no more than 32 bits can
	// say: a share that reaches this is large enough for anything, because an entry beyond 4 GiB is never kept.
	bytes := uint64(o.MaxBytes)
	entries := min(uint64(o.MaxEntries), bytes)
	share := min(bytes/entries, math.MaxUint32)
	return bounds{share: share, total: share * entries, largest: min(bytes, math.MaxUint32)}
}

// fits reports whether e may be kept at all.
func (b bounds) fits(e *Entry) bool { return e.Size <= 0 || uint64(e.Size) <= b.largest }

// weight is for entries that fit. One between total and MaxBytes weighs the whole: it is alone then, within MaxBytes.
func (b bounds) weight(e *Entry) uint32 {
	return uint32(min(max(uint64(max(e.Size, 0)), b.share), b.total))
}
