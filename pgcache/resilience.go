package pgcache

import (
	"fmt"
	"time"
)

// resilience is what a view does where a loader fails, is slow or finds nothing, and where an entry nears its end. It is nil where none of
// these options is set. Once a view or a call uses it, it is not changed.
type resilience struct {
	stale        time.Duration // StaleFor, added to the TTL
	soft         time.Duration // SoftTimeout
	hard         time.Duration // HardTimeout
	negative     time.Duration // NegativeTTL
	refreshAfter float64       // part of the TTL
}

// StaleFor keeps an entry for d after its TTL, in the table alone, for the case that a loader fails or, with SoftTimeout, is slow.
// GetOrSet and Fetch then return that value and no error; everybody else finds nothing there. A Set, a Delete and a Clear end it at
// once. It holds for entries that are written through a view or a call with this option: where the entry itself never expires
// it does nothing.
//
// After a failure this process does not call a loader of the key again for a quarter of d, ten seconds at the most: callers get the stale
// value at once. ErrNotFound is no failure: it ends the stale value. 0 turns it off, and SoftTimeout with it.
func StaleFor(d time.Duration) Option { return Option{kind: optionStale, dur: d} }

// SoftTimeout bounds how long a caller waits where there is a stale value, see [StaleFor], which it needs. The load goes on, until
// LoadTimeout, and what it brings is stored. 0 waits until the loader has returned or failed.
func SoftTimeout(d time.Duration) Option { return Option{kind: optionSoft, dur: d} }

// HardTimeout bounds how long a caller of GetOrSet, GetOrSetMany or Fetch waits in all: then it gets a stale value, if there is one, or an
// error that is ErrLoadTimeout. The load goes on, until LoadTimeout, and what it brings is stored. 0 is no bound but ctx.
func HardTimeout(d time.Duration) Option { return Option{kind: optionHard, dur: d} }

// RefreshAfter lets a hit of GetOrSet, GetOrSetMany or Fetch start a load in the background when the part f of the entry's TTL is over,
// 0 < f < 1, or up to a tenth of the TTL later: at most one per key in a process and, with a Guard, in the fleet. Nobody waits for it. A
// load that fails, or whose value is not stored, is tried again after a quarter of the time that was left, ten seconds at the most; one
// that finds nothing (ErrNotFound) ends the entry. Entries that nobody asks for are not refreshed. The TTL is that of the call: entries
// that others wrote with a shorter one are refreshed early, or at every hit, again and again. Where LocalTTL is shorter than the TTL,
// hits in memory start no load, hits in the database do. 0 turns it off.
func RefreshAfter(f float64) Option { return Option{kind: optionRefresh, fraction: f} }

// NegativeTTL keeps for d that there is nothing under a key, when a loader of GetOrSet or Fetch has returned ErrNotFound or one of
// GetOrSetMany has left the key out without returning an error: for so long GetOrSet returns ErrNotFound without a load,
// on every node, and GetOrSetMany leaves the key out. A Set is published and seen as ever. Views without this option find no
// entry and load. 0 turns it off; at most MaxTTL.
func NegativeTTL(d time.Duration) Option { return Option{kind: optionNegative, dur: d} }

// applyResilience applies one of the options above to v, a copy of before. v gets a resilience of its own with the first such option.
func (v *view) applyResilience(o *Option, before *view) error {
	if name, d := o.kind.String(), o.dur; d < 0 || d > MaxTTL {
		return fmt.Errorf("%w: %s(%v): want 0 to %v", ErrInvalidOption, name, d, MaxTTL)
	}
	if !(o.fraction >= 0 && o.fraction < 1) { //nolint:staticcheck // NaN too
		return fmt.Errorf("%w: RefreshAfter(%v): want a part of the TTL, between 0 and 1", ErrInvalidOption, o.fraction)
	}
	if v.resilience == before.resilience {
		v.resilience = &resilience{}
		if before.resilience != nil {
			*v.resilience = *before.resilience
		}
	}
	r := v.resilience
	switch o.kind {
	case optionStale:
		if r.stale = o.dur; o.dur == 0 {
			r.soft = 0
		}
	case optionSoft:
		r.soft = o.dur
	case optionHard:
		r.hard = o.dur
	case optionNegative:
		r.negative = o.dur
	default:
		r.refreshAfter = o.fraction
	}
	return nil
}

// completeResilience checks the options together, after all have been applied, and derives v.due from them.
func (v *view) completeResilience() error {
	r := v.resilience
	if r.soft > 0 && r.stale == 0 {
		return fmt.Errorf("%w: SoftTimeout(%v) without StaleFor: there is no stale value to return", ErrInvalidOption, r.soft)
	}
	v.due = 0
	if r.refreshAfter > 0 && v.ttl > 0 {
		// Not beyond the last nanosecond: an entry is to be refreshed before it has expired.
		v.due = max(1, v.ttl-time.Duration(r.refreshAfter*float64(v.ttl)))
	}
	return nil
}

func (v *view) staleFor() time.Duration {
	if v.resilience == nil {
		return 0
	}
	return v.resilience.stale
}

func (v *view) negativeTTL() time.Duration {
	if v.resilience == nil {
		return 0
	}
	return v.resilience.negative
}
