package pgcache

import (
	"context"
	"errors"
	"unique"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A negative row says that there is nothing under its key. It is a row like any other, with an empty value: so a Set over it is an
// update, which is published, and memory may keep it. No codec can have its codec's name.
// atomic.sql names it too.
const codecNone = "!none"

var noneID = unique.Make(codecNone)

// negative says that the row is live and says that there is nothing.
func negative(row *store.Row) bool { return row.Codec == codecNone && row.Live() }

// noneInMemory says that memory knows of k that there is nothing, for a view with a NegativeTTL.
func (v *view) noneInMemory(k localcache.Key) bool {
	if v.negativeTTL() == 0 {
		return false
	}
	e := v.c.local.Hit(k, coherence.Now())
	return e != nil && e.Codec == noneID && v.none()
}

// noneInRow says the same of a row.
func (v *view) noneInRow(row *store.Row) bool {
	return v.negativeTTL() > 0 && negative(row) && v.none()
}

// none counts.
func (v *view) none() bool {
	v.c.stats.negativeHits.Add(1)
	return true
}

// absent makes w the row of a key that the loader of l found nothing under. Without a NegativeTTL there is one only where a stale
// value is to end, or the value that a load in the background was to replace: it expires at once.
//
//	row v1, stale        loader: ErrNotFound        another loader fails: without that row, v1 again
func (r *loadRun) absent(l *coherence.Load, w *store.Write) bool {
	if r.negativeTTL() == 0 && !r.early && !offersStale(l) {
		return false
	}
	w.Value, w.Codec, w.TTL, w.Stale = []byte{}, codecNone, r.negativeTTL(), 0
	return true
}

// knewNothing says that l found that there is nothing, which may be from before a Delete that this caller must see. That is an answer
// like any other where it is kept. Where no database is asked, as while a key of Shards moves, no Delete overtakes a load, and
// it always is.
func (v *view) knewNothing(l *coherence.Load, steps int, arrived int64) bool {
	return (v.negativeTTL() > 0 || v.c.null) && errors.Is(l.Result().Err, ErrNotFound) && !l.Answers(steps, arrived)
}

// readFirst is what comes before a load: it reads the row of k into dst. ErrNotFound says that there is nothing, for a view with a
// NegativeTTL. While the loader of k fails, the load looks for itself. It takes no longer than HardTimeout.
func (v *view) readFirst(ctx context.Context, k localcache.Key, arrived int64, dst any) (row store.Row, found bool, err error) {
	if v.resilience == nil {
		row, err = v.read(ctx, k)
		return row, err == nil && v.take(k, row, dst), err
	}
	if v.noneInMemory(k) {
		return row, false, ErrNotFound
	}
	if _, yes := v.throttled(k); yes {
		return row, false, nil
	}
	reading, cancel := v.inTime(ctx, arrived)
	defer cancel()
	row, err = v.read(reading, k)
	switch {
	case err != nil && ctx.Err() == nil && reading.Err() != nil:
		return row, false, v.resilience.late(hardTimeout)
	case err != nil:
		return row, false, err
	case v.noneInRow(&row):
		return row, false, ErrNotFound
	}
	return row, v.take(k, row, dst), nil
}
