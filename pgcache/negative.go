package pgcache

import (
	"unique"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// A negative row says that there is nothing under its key. It is a row like any other, with an empty value: so a Set over it is an
// update, which is published, and memory may keep it. No codec can have its codec's name.
// atomic.sql names it too.
const codecNegative = "!none"

var negativeID = unique.Make(codecNegative)

// negative says that the row is live and says that there is nothing.
func negative(row *store.Row) bool { return row.Codec == codecNegative && row.Live() }

// negativeInMemory says that memory knows of k that there is nothing, for a view with a NegativeTTL.
func (v *view) negativeInMemory(k localcache.Key) bool {
	if v.negativeTTL() == 0 {
		return false
	}
	e := v.c.local.Hit(k, coherence.Now())
	return e != nil && e.Codec == negativeID && v.none()
}

// negativeInRow says the same of a row.
func (v *view) negativeInRow(row *store.Row) bool {
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
	w.Value, w.Codec, w.TTL, w.Stale = []byte{}, codecNegative, r.negativeTTL(), 0
	return true
}
