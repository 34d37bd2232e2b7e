package pgcache

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats counts what a Cache has done since New. Every number but Window only grows.
type Stats struct {
	LocalHits  uint64 // answered from this process's memory
	RemoteHits uint64 // answered by the database
	Misses     uint64 // keys asked for and found in neither

	Loads        uint64 // calls of loaders
	LoadErrors   uint64 // ... that brought an error other than ErrNotFound
	NotFound     uint64 // ... that brought ErrNotFound
	Coalesced    uint64 // callers that shared another caller's load
	Fenced       uint64 // loaded values not stored, because the key was written or deleted meanwhile
	GuardErrors  uint64 // times the guard failed: the load then ran without a lock, or, in the background (RefreshAfter), not at all
	Stale        uint64 // callers that got a stale value: see StaleFor
	NegativeHits uint64 // callers that were told from memory or the table that a loader found nothing: see NegativeTTL
	EarlyLoads   uint64 // calls of loaders in the background, see RefreshAfter; they are among Loads
	EarlyErrors  uint64 // ... that failed
	Unguarded    uint64 // keys loaded without a lock, because this process had as many as it may have

	// Sets and Deletes count a write in a transaction (WithTx) when it is sent, whatever becomes of the transaction.
	Sets    uint64 // values stored by Set, SetMany, SetIfAbsent, Update and Increment
	Deletes uint64 // keys deleted
	Groups  uint64 // tags and prefixes removed by DeleteTags, DeletePrefix and the Clear of a view
	Cleaned uint64 // rows removed by this node, expired or beyond the table's bounds

	Refreshed     uint64 // keys fetched again because they changed while in use, see Options.Refresh
	Flushes       uint64 // times this node flushed the change log
	Messages      uint64 // notifications that its flushes sent
	Invalidations uint64 // keys that another node, or this one, has published
	LocalFlushes  uint64 // times everything in memory was forgotten: a listener lost, a Clear, an unknown message. Not while nothing was served from it
	DecodeErrors  uint64 // values that did not decode or are larger than MaxValueBytes, counted as misses

	Window time.Duration // that changes are published by at present, see Options.MaxWindow; 0: each by itself

	UnknownMessages uint64 // messages on the channel that could not be understood: everything in memory was forgotten
	Unpublished     uint64 // pulses that found changes older than a second and could not publish them: everything in memory was forgotten

	// Views are the numbers of each view, by its namespace: "" are the Cache's own methods. The first thousand namespaces are
	// counted apart, all later ones together under OtherViews.
	Views map[string]ViewStats
}

// ViewStats are the numbers of one view, or of several with one namespace. Each is part of that of the same name in Stats.
type ViewStats struct {
	LocalHits, RemoteHits, Misses          uint64
	Loads, LoadErrors, NotFound, Coalesced uint64
	Sets, Deletes                          uint64
}

// OtherViews is the key of Stats.Views that counts all namespaces beyond a thousand. It is no valid namespace.
const OtherViews = ":other"

const maxViews = 1000

// viewCounters are the counters of each namespace.
type viewCounters struct {
	mu    sync.Mutex
	named map[string]*counters
}

// of returns the counters of a namespace, or those of OtherViews where there are maxViews already.
func (v *viewCounters) of(namespace string) *counters {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.named == nil {
		v.named = map[string]*counters{}
	}
	if v.named[namespace] == nil && len(v.named) >= maxViews {
		namespace = OtherViews
	}
	s := v.named[namespace]
	if s == nil {
		s = &counters{}
		v.named[namespace] = s
	}
	return s
}

// each calls f with all.
func (v *viewCounters) each(f func(namespace string, s *counters)) {
	v.mu.Lock()
	defer v.mu.Unlock()
	for ns, s := range v.named {
		f(ns, s)
	}
}

// viewStats reads the numbers that ViewStats has.
func (s *counters) viewStats() ViewStats {
	v := ViewStats{
		RemoteHits: s.remoteHits.Load(), Misses: s.misses.Load(),
		Loads: s.loads.Load(), LoadErrors: s.loadErrors.Load(), NotFound: s.notFound.Load(), Coalesced: s.coalesced.Load(),
		Sets: s.sets.Load(), Deletes: s.deletes.Load(),
	}
	for i := range s.localHits {
		v.LocalHits += s.localHits[i].n.Load()
	}
	return v
}

// counters are the numbers behind Stats, of one namespace or of the Cache as a whole. Hits in memory are counted in several places, each on a
// cache line of its own, so that processors do not wait for each other.
type counters struct {
	localHits [hitStripes]stripe

	remoteHits, misses, loads, loadErrors, coalesced, fenced, guardErrors atomic.Uint64
	sets, deletes, cleaned, decodeErrors, flushes, messages, refreshed    atomic.Uint64
	unknown, unpublished, notFound, groups                                atomic.Uint64
	stale, negativeHits, earlyLoads, earlyErrors                          atomic.Uint64
}

const hitStripes = 16

type stripe struct {
	n atomic.Uint64
	_ [56]byte
}

// hit counts a local hit. now is in nanoseconds: its low bits differ between callers, and so choose the stripe.
func (s *counters) hit(now int64) { s.localHits[uint64(now)/64%hitStripes].n.Add(1) }

// Stats returns the counts so far.
func (c *Cache) Stats() Stats {
	s := Stats{
		Fenced: c.stats.fenced.Load(), GuardErrors: c.stats.guardErrors.Load(),
		Stale: c.stats.stale.Load(), NegativeHits: c.stats.negativeHits.Load(), EarlyLoads: c.stats.earlyLoads.Load(), EarlyErrors: c.stats.earlyErrors.Load(),
		Cleaned: c.stats.cleaned.Load(), Groups: c.stats.groups.Load(),
		Invalidations: c.local.Invalidations.Load(), LocalFlushes: c.local.Forgets.Load(),
		DecodeErrors: c.stats.decodeErrors.Load(),
		Flushes:      c.stats.flushes.Load(), Messages: c.stats.messages.Load(), Refreshed: c.stats.refreshed.Load(),
		UnknownMessages: c.stats.unknown.Load(), Unpublished: c.stats.unpublished.Load(),
	}
	if c.window != nil {
		s.Window = c.window.Current()
	}
	if l, ok := c.locks.(interface{ Unguarded() uint64 }); ok {
		s.Unguarded = l.Unguarded()
	}
	s.Views = map[string]ViewStats{}
	s.add(c.stats.viewStats())
	c.views.each(func(namespace string, n *counters) {
		v := n.viewStats()
		s.Views[namespace] = v
		s.add(v)
	})
	return s
}

func (s *Stats) add(v ViewStats) {
	s.LocalHits += v.LocalHits
	s.RemoteHits += v.RemoteHits
	s.Misses += v.Misses
	s.Loads += v.Loads
	s.LoadErrors += v.LoadErrors
	s.NotFound += v.NotFound
	s.Coalesced += v.Coalesced
	s.Sets += v.Sets
	s.Deletes += v.Deletes
}
