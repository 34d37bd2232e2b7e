package localcache

import (
	"fmt"
	"math"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestBoundsOf(t *testing.T) {
	t.Parallel()

	const gib = 1 << 30
	for name, tt := range map[string]struct {
		o     Options
		wants bounds
	}{
		"defaults":              {Options{}, bounds{share: 16 << 10, total: 64 << 20, largest: 64 << 20}},
		"not a multiple":        {Options{MaxEntries: 10, MaxBytes: 109}, bounds{share: 10, total: 100, largest: 109}},
		"one entry":             {Options{MaxEntries: 1, MaxBytes: 100}, bounds{share: 100, total: 100, largest: 100}},
		"one byte":              {Options{MaxBytes: 1}, bounds{share: 1, total: 1, largest: 1}},
		"fewer bytes":           {Options{MaxEntries: 10, MaxBytes: 3}, bounds{share: 1, total: 3, largest: 3}},
		"more than 32 bits":     {Options{MaxEntries: 8, MaxBytes: 16 * gib}, bounds{share: 2 * gib, total: 16 * gib, largest: math.MaxUint32}},
		"shares beyond 32 bits": {Options{MaxEntries: 2, MaxBytes: math.MaxInt64}, bounds{share: math.MaxUint32, total: 2 * math.MaxUint32, largest: math.MaxUint32}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if diff := cmp.Diff(tt.wants, tt.o.bounds(), cmp.AllowUnexported(bounds{})); diff != "" {
				t.Errorf("bounds of %+v (-want +got):\n%s", tt.o, diff)
			}
		})
	}
}

func TestWeight(t *testing.T) {
	t.Parallel()

	b := Options{MaxEntries: 10, MaxBytes: 109}.bounds()
	for size, wants := range map[int]uint32{
		math.MinInt: 10, // nonsense weighs no less than the rest
		-1:          10,
		0:           10,
		10:          10,
		11:          11,
		100:         100,
		101:         100, // within MaxBytes, so it is kept, alone
		109:         100,
	} {
		e := &Entry{Size: size}
		if !b.fits(e) {
			t.Errorf("an entry of %d bytes does not fit", size)
		}
		if got := b.weight(e); got != wants {
			t.Errorf("an entry of %d bytes weighs %d, want %d", size, got, wants)
		}
	}
	for _, size := range []int{110, math.MaxInt} {
		if b.fits(&Entry{Size: size}) {
			t.Errorf("an entry of %d bytes fits", size)
		}
	}
}

func TestSize(t *testing.T) {
	t.Parallel()
	c := New(Options{MaxEntries: 10, MaxBytes: 1000}).(*bounded)
	for i := range 4 {
		c.Set(Key{Name: fmt.Sprint(i)}, &Entry{Size: 1})
	}
	c.CleanUp()
	if entries, full := c.Size(); entries != 4 || full != 0.4 {
		t.Errorf("%d entries, full %v", entries, full)
	}
}
