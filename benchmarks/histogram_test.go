package main

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"
)

func TestBucketsAreNarrowAndInOrder(t *testing.T) {
	t.Parallel()
	last := -1
	for d := time.Duration(0); d < math.MaxInt64/2; d += d/300 + 1 {
		i := bucket(d)
		if i < last || i > last+1 {
			t.Fatalf("%d ns is in bucket %d, after %d", d, i, last)
		}
		last = i
		if off := math.Abs(float64(middle(i)-d)) / max(float64(d), 1); off > .008 {
			t.Fatalf("%d ns counts as %d: %.2f %% off", d, middle(i), 100*off)
		}
	}
	var h histogram
	h.add(math.MaxInt64) // the last bucket
	h.add(-1)            // clocks don't, but nothing breaks
}

func TestQuantilesAreThoseOfTheSortedValues(t *testing.T) {
	t.Parallel()
	r := rand.New(rand.NewPCG(1, 2))
	var all []time.Duration
	var h, part histogram
	for i := range 10_007 {
		d := time.Duration(math.Exp(5 + 12*r.Float64()))
		all = append(all, d)
		if i%3 == 0 {
			part.add(d)
		} else {
			h.add(d)
		}
	}
	h.merge(&part)
	slices.Sort(all)
	for _, q := range []float64{0, .01, .5, .95, .99, .999, 1} {
		want := all[min(int(q*float64(len(all))), len(all)-1)]
		if off := math.Abs(float64(h.quantile(q)-want)) / float64(want); off > .01 {
			t.Errorf("quantile %v is %v, want %v", q, h.quantile(q), want)
		}
	}
	if h.max != all[len(all)-1] || h.quantile(1) > h.max {
		t.Errorf("largest is %v, quantile 1 is %v, want %v", h.max, h.quantile(1), all[len(all)-1])
	}
	var sum time.Duration
	for _, d := range all {
		sum += d
	}
	if h.mean() != sum/time.Duration(len(all)) {
		t.Errorf("mean is %v, want %v", h.mean(), sum/time.Duration(len(all)))
	}
	var empty histogram
	if empty.mean() != 0 || empty.quantile(.5) != 0 || len(empty.metrics("read", time.Second)) != 0 {
		t.Error("an empty histogram has figures")
	}
}
