package main

import (
	"io"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
)

// TestJudgeSoak: what goes up and down is accepted, what grows is named, and the first third does not count.
func TestJudgeSoak(t *testing.T) {
	t.Parallel()
	series := func(grows int, rate float64) []sample {
		var all []sample
		for i := range 90 {
			s := sample{at: time.Duration(i) * time.Second}
			for j, w := range allSeries {
				base := 4 * w.floor / max(w.share, 0.1)
				v := base * (1 + 0.02*(rand.Float64()-0.5))
				if i < 30 {
					v *= float64(i+10) / 40 // warming up
				}
				if j == grows {
					v += rate * max(w.share*base, w.floor) * float64(i) / 90
				}
				s.values = append(s.values, v)
			}
			all = append(all, s)
		}
		return all
	}
	if err := judgeSoak(io.Discard, series(-1, 0)); err != nil {
		t.Error(err)
	}
	for i, w := range allSeries {
		if err := judgeSoak(io.Discard, series(i, 3)); err == nil || !strings.HasPrefix(err.Error(), w.name) {
			t.Errorf("%s grew, and the verdict is %v", w.name, err)
		}
		if err := judgeSoak(io.Discard, series(i, -3)); err != nil {
			t.Error(w.name, "shrank:", err)
		}
	}
	if err := judgeSoak(io.Discard, series(-1, 0)[:12]); err == nil {
		t.Error("too few samples were accepted")
	}
}
