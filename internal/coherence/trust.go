package coherence

import (
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/pgcache/go/internal/mono"
)

// epochs is the last epoch that was given out. An epoch is unique in the process, so that Caches which share one local cache never
// take each other's entries for their own. A tracker whose epoch is 0 bypasses the local cache.
var epochs atomic.Uint32

func newEpoch() uint32 {
	for {
		if e := epochs.Add(1); e != 0 {
			return e
		}
	}
}

// trust has the times until which the listener, the pulse and what is known of shards are trusted. The local cache may be served until the
// earliest of them.
type trust struct {
	mu                     sync.Mutex
	listener, pulse, shard int64
}

// AlwaysOn has the listener and the pulse trusted for good, where there is neither and only maxAge bounds how stale a hit may be. It is
// called once, before use.
func (t *Tracker) AlwaysOn() {
	t.trust.mu.Lock()
	t.trust.listener, t.trust.pulse = math.MaxInt64, math.MaxInt64
	t.trusted.Store(t.trust.shard)
	t.trust.mu.Unlock()
	t.epoch.Store(newEpoch())
	t.noteLive()
}

// Live says whether the local cache is live: not bypassed, and trusted.
func (t *Tracker) Live() bool { return t.epoch.Load() != 0 && mono.Now() < t.trusted.Load() }

// TrustListener says that the listener is trusted until trusted. The caller counts that from a moment, not later than now: what was
// published before that moment has been applied. After a Down it begins a new epoch.
func (t *Tracker) TrustListener(trusted time.Time) {
	t.setTrust(&t.trust.listener, trusted)
	if t.epoch.Load() == 0 {
		t.epoch.Store(newEpoch())
		t.noteLive()
		t.invalidated(nil)
	}
}

// TrustPulse says that a pulse found that changes are being published, and that this is trusted until trusted.
func (t *Tracker) TrustPulse(trusted time.Time) { t.setTrust(&t.trust.pulse, trusted) }

// TrustShard says until when it is known which keys this cache holds, where it is one shard of several. Where it is the only one
// TrustShard is never called, and its trust has no end.
func (t *Tracker) TrustShard(trusted time.Time) { t.setTrust(&t.trust.shard, trusted) }

// setTrust sets one of the three times of trust, to a later or an earlier one.
func (t *Tracker) setTrust(until *int64, trusted time.Time) {
	t.trust.mu.Lock()
	defer t.trust.mu.Unlock()
	*until = mono.At(trusted)
	t.trusted.Store(min(t.trust.listener, t.trust.pulse, t.trust.shard))
	t.noteLive()
}

// noteLive remembers the epoch if the local cache is live in it.
func (t *Tracker) noteLive() {
	if t.Live() {
		t.lived.Store(t.epoch.Load())
	}
}

// ended counts the end of an epoch in which the local cache was live. In one where it never was, as before the tables are there, there
// was nothing to forget.
func (t *Tracker) ended(epoch uint32) {
	if epoch != 0 && epoch == t.lived.Load() {
		t.Forgets.Add(1)
	}
}

// Listening says whether the listener is trusted, even if the pulse or the shard is not.
func (t *Tracker) Listening() bool {
	t.trust.mu.Lock()
	defer t.trust.mu.Unlock()
	return t.epoch.Load() != 0 && mono.Now() < t.trust.listener
}

// SetServer says which server the listener is connected to, by its identity; 0: it is not known.
func (t *Tracker) SetServer(server int64) { t.server.Store(server) }

// Server returns what SetServer was given.
func (t *Tracker) Server() int64 { return t.server.Load() }

// Down bypasses the local cache until the next TrustListener, and wakes all watches. It frees no memory.
func (t *Tracker) Down() {
	if e := t.epoch.Swap(0); e != 0 {
		t.ended(e)
		t.invalidated(nil)
	}
	t.wakeAll()
}

// Forget begins a new epoch, unless the local cache is bypassed: no entry is served any more, what reads and writes under way bring
// is not kept, and all watches are woken. It frees no memory. Loads may still be joined: see Loaded.Since.
func (t *Tracker) Forget() {
	for {
		e := t.epoch.Load()
		if e == 0 || t.epoch.CompareAndSwap(e, newEpoch()) {
			t.ended(e)
			break
		}
	}
	t.noteLive()
	t.invalidated(nil)
	t.wakeAll()
}

// current says whether what belongs to epoch may be kept now. The caller holds the stripe's lock.
func (t *Tracker) current(epoch uint32) bool {
	return epoch != 0 && epoch == t.epoch.Load() && mono.Now() < t.trusted.Load()
}

// Close is Down, and frees the memory. The caller has ended the listener before: a later TrustListener would make the local cache live
// again.
func (t *Tracker) Close() {
	t.Down()
	t.local.Clear()
}

// invalidated calls OnInvalidated.
func (t *Tracker) invalidated(rows []string) {
	if t.OnInvalidated != nil {
		t.OnInvalidated(rows)
	}
}
