package pgcache

import (
	"errors"
	"unique"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A negative row says that there is nothing under its key (NegativeTTL). It is live, with an empty value and a codec's name that
// no codec may have. So a Set over it is an update, which is published, and memory may keep it. atomic.sql has the name too.
const codecNegative = "!none"

var negativeID = unique.Make(codecNegative)

// negative says whether row is a negative one that is live.
func negative(row *store.Row) bool { return row.Codec == codecNegative && row.Live() }

// negativeInMemory says whether memory has a negative entry of k, for a view with a NegativeTTL, and counts the hit.
func (v *view) negativeInMemory(k localcache.Key) bool {
	if v.negativeTTL() == 0 {
		return false
	}
	e := v.c.local.Hit(k, coherence.Now())
	return v.negativeHit(e != nil && e.Codec == negativeID)
}

// negativeInRow says whether row is a negative one, for a view with a NegativeTTL, and counts the hit.
func (v *view) negativeInRow(row *store.Row) bool {
	return v.negativeHit(v.negativeTTL() > 0 && negative(row))
}

func (v *view) negativeHit(hit bool) bool {
	if hit {
		v.c.stats.negativeHits.Add(1)
	}
	return hit
}

// negativeWrite makes w a negative row, because the loader of l found nothing, and says whether it is to be written. Without a NegativeTTL
// it is written only in place of a stale value, or of the live one that an early load was to replace, and expires at once:
//
//	row v1, stale        loader: ErrNotFound        another loader fails: without that row, v1 again
func (r *loadRun) negativeWrite(l *coherence.Load, w *store.Write) bool {
	if r.negativeTTL() == 0 && !r.early && !offersStale(l) {
		return false
	}
	w.Value, w.Codec, w.TTL, w.Stale = []byte{}, codecNegative, r.negativeTTL(), 0
	return true
}

// foundNothingBefore says that the load of w has ended with ErrNotFound and may be from before a write that this caller must see: the
// caller asks again. Without a NegativeTTL, ErrNotFound is a loader's error like any other, and is returned. In a Null cache, which Shards
// use while keys move, it is always checked: no write there keeps later callers from joining a load that began before it.
func (v *view) foundNothingBefore(w waiter) bool {
	return (v.negativeTTL() > 0 || v.c.null) && errors.Is(w.load.Result().Err, ErrNotFound) && !w.answers()
}
