package main

import (
	"math/bits"
	"time"
)

// histogram counts durations in buckets that are 1.6 % wide at most. The zero value is empty.
type histogram struct {
	buckets  [58*subBuckets + subBuckets]uint32
	n        uint64
	sum, max time.Duration
}

const (
	subBits    = 6
	subBuckets = 1 << subBits
)

// bucket: small durations have one each, larger ones share them by their first subBits+1 bits.
func bucket(d time.Duration) int {
	v := uint64(max(d, 0))
	shift := max(bits.Len64(v)-subBits-1, 0)
	return shift*subBuckets + int(v>>shift)
}

// middle of a bucket.
func middle(i int) time.Duration {
	shift := max(i/subBuckets-1, 0)
	low := uint64(i-shift*subBuckets) << shift
	return time.Duration(low + (uint64(1)<<shift)/2)
}

func (h *histogram) add(d time.Duration) {
	h.buckets[bucket(d)]++
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
	if o.n == 0 {
		return
	}
	for i, n := range o.buckets {
		h.buckets[i] += n
	}
	h.n += o.n
	h.sum += o.sum
	h.max = max(h.max, o.max)
}

func (h *histogram) mean() time.Duration {
	if h.n == 0 {
		return 0
	}
	return h.sum / time.Duration(h.n)
}

// quantile is what the share q of all durations does not exceed, within a bucket's width.
func (h *histogram) quantile(q float64) time.Duration {
	if h.n == 0 {
		return 0
	}
	rank := min(uint64(q*float64(h.n))+1, h.n)
	for i, n := range h.buckets {
		if rank <= uint64(n) {
			return min(middle(i), h.max)
		}
		rank -= uint64(n)
	}
	return h.max
}

// metrics are the figures of the operations kind, done in elapsed.
func (h *histogram) metrics(kind string, elapsed time.Duration) metrics {
	if h.n == 0 {
		return metrics{}
	}
	return metrics{
		kind + ".count":   float64(h.n),
		kind + ".ops":     float64(h.n) / elapsed.Seconds(),
		kind + ".mean_us": micros(h.mean()),
		kind + ".p50_us":  micros(h.quantile(.5)),
		kind + ".p95_us":  micros(h.quantile(.95)),
		kind + ".p99_us":  micros(h.quantile(.99)),
		kind + ".max_us":  micros(h.max),
	}
}

func micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }
