package main

import (
	"math"
	"sync"
	"time"
)

// tally is what one worker has measured.
type tally struct {
	mu            sync.Mutex
	writes, reads histogram
	behind        histogram // of every judged read: how old its value was; 0 for most
}

func (t *tally) add(h *histogram, d time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	h.add(d)
}

func (t *tally) merge(o *tally) {
	t.writes.merge(&o.writes)
	t.reads.merge(&o.reads)
	t.behind.merge(&o.behind)
}

// histogram counts durations in buckets that are 3 % wide, from 100 ns to an hour. The zero value is empty.
type histogram struct {
	buckets  [820]uint64
	n        uint64
	sum, max time.Duration
}

const (
	smallest = 100 * time.Nanosecond
	width    = 1.03
)

var logWidth = math.Log(width)

func (h *histogram) add(d time.Duration) {
	i := 0
	if d > smallest {
		i = min(1+int(math.Log(float64(d)/float64(smallest))/logWidth), len(h.buckets)-1)
	}
	h.buckets[i]++
	h.n++
	h.sum += d
	h.max = max(h.max, d)
}

func (h *histogram) merge(o *histogram) {
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

// quantile returns what the share q of all durations does not exceed, as the upper end of a bucket. What is too small to
// measure counts as 0.
func (h *histogram) quantile(q float64) time.Duration {
	return h.ranked(uint64(math.Ceil(q * float64(h.n))))
}

// quantileOver is quantile among those that are not too small to measure.
func (h *histogram) quantileOver(q float64) time.Duration {
	return h.ranked(h.buckets[0] + uint64(math.Ceil(q*float64(h.over()))))
}

func (h *histogram) ranked(rank uint64) time.Duration {
	for i, n := range h.buckets {
		if rank <= n {
			if i == 0 {
				return 0
			}
			return min(time.Duration(float64(smallest)*math.Pow(width, float64(i))), h.max)
		}
		rank -= n
	}
	return h.max
}

// over counts the durations that are not too small to measure.
func (h *histogram) over() uint64 { return h.n - h.buckets[0] }
