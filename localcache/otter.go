package localcache

import (
	"iter"
	"sync/atomic"

	"github.com/maypok86/otter/v2"
)

// New returns a cache within the bounds of o, safe for concurrent use. It favours what is used often and recently; when
// it is full, a new entry may be the one that goes. While writes come in it may be over its bounds by about a sixteenth
// for a moment.
//
// It needs no closing: it works on the goroutines that call it and on others that end within milliseconds. It has the optional methods
// of a Cache.
//
// Negative bounds give a cache that keeps nothing and has a method Err() error, which says what is wrong. pgcache.New returns that error.
func New(o Options) Cache {
	if err := o.validate(); err != nil {
		return invalid{err: err}
	}
	b := o.bounds()
	c := &bounded{bounds: b}
	// otter knows no expiry here: who calls Get compares the deadline with a clock that it has read already, which is half
	// the price, and needs no timer goroutine.
	c.otter = otter.Must(&otter.Options[Key, *Entry]{
		MaximumWeight: b.total,
		Weigher:       func(_ Key, e *Entry) uint32 { return b.weight(e) },
		Executor:      c.housekeep,
	})
	return c
}

// bounded is an otter cache bounded in entries and in bytes.
type bounded struct {
	bounds
	otter   *otter.Cache[Key, *Entry]
	writing atomic.Int32  // calls of Set and Delete under way
	recent  atomic.Uint64 // weight stored since the last CleanUp
}

// housekeep runs work that otter asks for. While a write is under way it runs on the goroutine that calls, mostly the writing one: to start
// a goroutine for each write would cost more than the work. Else a read has caused it, and it runs on a goroutine of its own, so that a
// hit does not wait for it.
func (c *bounded) housekeep(work func()) {
	if c.writing.Load() > 0 {
		work()
	} else {
		go work()
	}
}

func (c *bounded) Get(k Key) *Entry {
	e, _ := c.otter.GetIfPresent(k)
	return e
}

func (c *bounded) Set(k Key, e *Entry) {
	if !c.fits(e) {
		c.Delete(k)
		return
	}
	c.writing.Add(1)
	c.otter.Set(k, e)
	c.writing.Add(-1)

	// A burst of writes can be hundreds of entries ahead of otter's eviction. So the writer that exceeds the slack waits until
	// otter has evicted what is over the bounds.
	slack := c.total / 16
	if c.recent.Add(uint64(c.weight(e))) > slack && c.recent.Swap(0) > slack {
		c.otter.CleanUp()
	}
}

func (c *bounded) Delete(k Key) {
	c.writing.Add(1)
	c.otter.Invalidate(k)
	c.writing.Add(-1)
}

// Keys implements the optional method of a Cache: the keys of all entries. What comes or goes meanwhile may be among them or not.
func (c *bounded) Keys() iter.Seq[Key] { return c.otter.Keys() }

func (c *bounded) Clear() { c.otter.InvalidateAll() }

// Size implements the optional method of a Cache.
func (c *bounded) Size() (entries int, full float64) {
	return c.otter.EstimatedSize(), float64(c.otter.WeightedSize()) / float64(c.total)
}

// CleanUp evicts what is over the bounds now, rather than soon. Tests need it.
func (c *bounded) CleanUp() { c.otter.CleanUp() }
