package pgcache

import "sync/atomic"

// Stats counts what a Cache has done since New. Every number only grows.
type Stats struct {
	LocalHits  uint64 // answered from this process's memory
	RemoteHits uint64 // answered by the database
	Misses     uint64 // keys asked for and found in neither

	Loads       uint64 // calls of loaders
	LoadErrors  uint64 // ... that brought an error other than ErrNotFound
	NotFound    uint64 // ... that brought ErrNotFound
	Coalesced   uint64 // callers that shared another caller's load
	Fenced      uint64 // loaded values not stored, because the key was written or deleted meanwhile
	GuardErrors uint64 // loads that ran without the guard's lock, because it could not be asked
	Unguarded   uint64 // keys loaded without a lock, because this process had as many as it may have

	Sets    uint64 // values stored by Set and SetMany
	Deletes uint64 // keys deleted
	Groups  uint64 // tags and prefixes removed by DeleteTags, DeletePrefix and the Clear of a view
	Cleaned uint64 // rows removed by this node, expired or beyond the table's bounds

	Refreshed     uint64 // keys fetched again because they changed while in use, see Options.Refresh
	Flushes       uint64 // times this node flushed the change log
	Messages      uint64 // notifications that its flushes sent
	Invalidations uint64 // keys that another node, or this one, has published
	LocalFlushes  uint64 // times everything in memory was forgotten: a listener lost, a Clear, an unknown message
	DecodeErrors  uint64 // values that did not decode or are larger than MaxValueBytes, counted as misses

	UnknownMessages uint64 // messages on the channel that could not be understood: everything in memory was forgotten
	Unpublished     uint64 // pulses that found changes older than a second and could not publish them: everything in memory was forgotten
}

// counters are the numbers behind Stats. The hits of the fast path are spread over cache lines of their own.
type counters struct {
	localHits [hitStripes]stripe

	remoteHits, misses, loads, loadErrors, coalesced, fenced, guardErrors atomic.Uint64
	sets, deletes, cleaned, decodeErrors, flushes, messages, refreshed    atomic.Uint64
	unknown, behind, notFound, groups                                     atomic.Uint64
}

const hitStripes = 16

type stripe struct {
	n atomic.Uint64
	_ [56]byte
}

// hit counts a local hit. The clock's low bits, already read, spread callers over the stripes.
func (s *counters) hit(now int64) { s.localHits[uint64(now)/64%hitStripes].n.Add(1) }

// Stats returns the counts so far.
func (c *Cache) Stats() Stats {
	s := Stats{
		RemoteHits: c.stats.remoteHits.Load(), Misses: c.stats.misses.Load(),
		Loads: c.stats.loads.Load(), LoadErrors: c.stats.loadErrors.Load(), NotFound: c.stats.notFound.Load(), Coalesced: c.stats.coalesced.Load(),
		Fenced: c.stats.fenced.Load(), GuardErrors: c.stats.guardErrors.Load(),
		Sets: c.stats.sets.Load(), Deletes: c.stats.deletes.Load(), Groups: c.stats.groups.Load(), Cleaned: c.stats.cleaned.Load(),
		Invalidations: c.local.Invalidations.Load(), LocalFlushes: c.local.Flushes.Load(),
		DecodeErrors: c.stats.decodeErrors.Load(),
		Flushes:      c.stats.flushes.Load(), Messages: c.stats.messages.Load(), Refreshed: c.stats.refreshed.Load(),
		UnknownMessages: c.stats.unknown.Load(), Unpublished: c.stats.behind.Load(),
	}
	if l, ok := c.locks.(interface{ Unguarded() uint64 }); ok {
		s.Unguarded = l.Unguarded()
	}
	for i := range c.stats.localHits {
		s.LocalHits += c.stats.localHits[i].n.Load()
	}
	return s
}
