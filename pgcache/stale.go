package pgcache

import (
	"context"
	"errors"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// maxThrottle bounds for how long a process calls no loader of a key after one has failed.
const maxThrottle = 10 * time.Second

// throttleFor is for how long a process calls no loader of a key after one has failed, in nanoseconds. d is how long the value that is
// there may still be handed out.
func throttleFor(d time.Duration) int64 { return int64(min(maxThrottle, d/4)) }

// offer offers a row that was read to the callers that wait for l: it may be stale, live or neither. Unless into is nil, only a value that
// decodes into it is offered. stale says that a stale value was offered.
func (v *view) offer(l *coherence.Load, row store.Row, into reflect.Type, step int, sent int64) (stale bool) {
	out := &coherence.Loaded{Since: step}
	left, stale := row.Stale()
	if !stale {
		left = row.Remaining
	}
	stale = stale && left > 0
	if row.Live() && left > 0 && row.Codec != codecNegative && (into == nil || v.unmarshal(l.Key, row.Codec, row.Value, reflect.New(into).Interface()) == nil) {
		out.Row, out.Found, out.Stale, out.Until = row, true, stale, coherence.Until(sent, left)
	}
	l.Offer(out)
	return stale && out.Found
}

// offersStale says whether a stale value was offered to callers of l, whenever they came.
func offersStale(l *coherence.Load) bool {
	out := l.Offered(-1, 0)
	return out != nil && out.Found && out.Stale
}

// takeOffer decodes what was offered, for a caller that got no result of the load. why is the reason: a timeout, or the loader's error.
func (v *view) takeOffer(w waiter, dst any, why error) (answer, bool) {
	out := w.offered()
	if out == nil || !out.Found || out.Expired() || v.unmarshal(w.load.Key, out.Row.Codec, out.Row.Value, dst) != nil {
		return answer{}, false
	}
	g := answer{source: sourceOf(out)}
	if out.Stale {
		g.stale, g.err = true, why
		v.c.stats.stale.Add(1)
	}
	return g, true
}

// offerMemory offers the expired entry that memory still has, where the database does not answer.
func (v *view) offerMemory(l *coherence.Load, into reflect.Type, step int) (row store.Row, stale bool) {
	out := &coherence.Loaded{Since: step}
	row, until, ok := v.oldInMemory(l.Key)
	if ok && (into == nil || v.unmarshal(l.Key, row.Codec, row.Value, reflect.New(into).Interface()) == nil) {
		out.Row, out.Found, out.Stale, out.Memory, out.Until = row, true, true, true, until
	}
	l.Offer(out)
	return row, out.Found
}

// oldInMemory returns the expired entry of k that memory still has, as a row, and until when it may be handed out as stale. That is known
// only of rows that this process has written, see noteStale. Without a Listener there is none: another node may have written the key.
func (v *view) oldInMemory(k localcache.Key) (row store.Row, until int64, ok bool) {
	now := coherence.Now()
	if v.staleFor() == 0 || v.c.opts.Listener == nil {
		return row, 0, false
	}
	e := v.c.local.Stale(k, now)
	if e == nil {
		return row, 0, false
	}
	version, until, known := v.c.staleness.get(k, now)
	if !known || version != e.Version {
		return row, 0, false
	}
	row, ok = v.rowOf(k, e)
	return row, until, ok
}

// takeMemory decodes the expired entry that memory still has, for a caller that has waited for the database for too long. why is the
// error that says so.
func (v *view) takeMemory(k localcache.Key, dst any, why error) (answer, bool) {
	row, _, ok := v.oldInMemory(k)
	if !ok || v.unmarshal(k, row.Codec, row.Value, dst) != nil {
		return answer{}, false
	}
	v.c.stats.stale.Add(1)
	return answer{source: FromMemory, stale: true, err: why}, true
}

// rowOf is the row that an entry in memory was made of.
func (v *view) rowOf(k localcache.Key, e *localcache.Entry) (store.Row, bool) {
	row := store.Row{Key: k.Row(), Version: e.Version, Codec: e.Codec.Value()}
	if e.Raw != nil {
		row.Value = *e.Raw
		return row, e.Codec != negativeID
	}
	data, err := v.encode(k, e.Value)
	row.Value = data
	return row, err == nil && e.Codec == v.codecID
}

// offerAllFromMemory is offerMemory for a run without a database.
func (r *loadRun) offerAllFromMemory(loads []*coherence.Load) {
	if r.staleFor() == 0 {
		return
	}
	r.old = map[localcache.Key]store.Row{}
	step := r.run.Step()
	for _, l := range loads {
		if row, ok := r.offerMemory(l, r.into, step); ok {
			r.old[l.Key] = row
		}
	}
}

// noteStale notes until when the row that was just written may be handed out as stale, for oldInMemory.
func (v *view) noteStale(k localcache.Key, w *store.Write, sent int64) {
	if w.Stale > 0 && w.TTL != store.Never && !store.NeverKept(w.Version) {
		v.c.staleness.put(k, w.Version, coherence.Now(), coherence.Until(sent, w.TTL+w.Stale))
	}
}

// failed ends loads whose loader returned err. Where a stale value was offered, this process calls no loader of that key for a while.
func (r *loadRun) failed(ctx context.Context, loads []*coherence.Load, err error) {
	now := coherence.Now()
	for _, l := range loads {
		if r.staleFor() > 0 && ctx.Err() == nil && offersStale(l) {
			r.c.failing.put(l.Key, err, now, now+throttleFor(r.staleFor()))
		}
	}
	r.stats.loadErrors.Add(1)
	if r.early {
		r.earlyErr = err
	}
	// If ctx has ended, err is not the loader's: nobody waits any more, or the cache is closed.
	end(loads, coherence.Loaded{All: true, Err: err, Failed: ctx.Err() == nil})
}

// throttled says whether no loader of k is to be called now because one has failed, and with which error.
func (v *view) throttled(k localcache.Key) (err error, yes bool) { //nolint:revive // the error is what is asked for
	if v.staleFor() == 0 {
		return nil, false
	}
	err, _, yes = v.c.failing.get(k, coherence.Now())
	return err, yes
}

// endThrottled ends those loads that are throttled and whose rows have a value, stale or live, and returns the others. It reads the rows each
// time: a Delete or a Set may have come since the failure.
func (r *loadRun) endThrottled(ctx context.Context, pending []*coherence.Load) (rest []*coherence.Load) {
	var throttled []*coherence.Load
	var errs []error
	for _, l := range pending {
		if err, yes := r.throttled(l.Key); yes {
			throttled, errs = append(throttled, l), append(errs, err)
		} else {
			rest = append(rest, l)
		}
	}
	if len(throttled) == 0 {
		return pending
	}
	fence, err := r.beginLookup(throttled).fence(ctx)
	if err != nil {
		if errors.Is(err, ErrClosed) || isPermanent(err) {
			return pending
		}
		r.offerAllFromMemory(throttled)
	}
	for i, l := range throttled {
		switch row, ok := fence.found(l.Key); {
		case ok:
			l.End(coherence.Loaded{Row: row, Found: true, Since: fence.step, Until: coherence.Until(fence.sent, row.Remaining)})
		case offersStale(l):
			l.End(coherence.Loaded{Err: errs[i], Failed: true, Skipped: true})
		default:
			rest = append(rest, l)
		}
	}
	return rest
}
