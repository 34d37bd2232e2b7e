package shardmap

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"testing"
)

func names(n int) []string {
	list := make([]string, n)
	for i := range list {
		list[i] = fmt.Sprintf("shard-%d", i)
	}
	return list
}

func table(list []string) *Table {
	return Build(list, func(name string) uint8 { return uint8(slices.Index(list, name)) })
}

// Servers have recorded maps: these must stay as they are.
func TestSlotsNeverChange(t *testing.T) {
	t.Parallel()
	tab := table([]string{"a", "b", "c"})
	for key, want := range map[string][2]int{
		"k": {664, 2}, "8f14e45f-ceea-467f": {7772, 2}, "é": {9359, 2},
	} {
		h := Hash(0, key)
		if got := [2]int{int(Slot(h)), int(tab.Of(h))}; got != want {
			t.Errorf("%q has slot and owner %v, want %v", key, got, want)
		}
	}
	sum := uint64(0)
	for _, owner := range tab {
		sum = Hash(sum, string(rune('0'+owner)))
	}
	if sum != 17134061778932537360 {
		t.Errorf("the sum of the table is %d", sum)
	}
}

// A key and its parts are hashed differently: "a" of the namespace "b" is another key than "ab".
func TestHash(t *testing.T) {
	t.Parallel()
	seen := map[uint64]string{}
	for _, key := range []string{"", "a", "b", "ab", "ba", "aab", "aaab", "aaaab", "aaaaaaaab", "aaaaaaaabb", "\x00", "\x00\x00"} {
		for name, h := range map[string]uint64{key: Hash(0, key), "b:" + key: Hash(Hash(0, "b"), key)} {
			if other, ok := seen[h]; ok {
				t.Errorf("%q and %q have one hash", name, other)
			}
			seen[h] = name
		}
	}
}

// A shard that is added takes its share from all others, and nothing else moves. Slots and keys are spread evenly.
func TestSpread(t *testing.T) {
	t.Parallel()
	for n := 1; n <= 32; n++ {
		before, after := table(names(n)), table(names(n+1))
		counts, moved := make([]int, n+1), 0
		for slot := range after {
			counts[after[slot]]++
			if before[slot] != after[slot] {
				moved++
				if int(after[slot]) != n {
					t.Fatalf("with %d shards slot %d moved from %d to %d", n+1, slot, before[slot], after[slot])
				}
			}
		}
		fair := float64(Slots) / float64(n+1)
		for i, c := range counts {
			if math.Abs(float64(c)-fair) > 6*math.Sqrt(fair) {
				t.Errorf("of %d shards, %d has %d slots, want about %.0f", n+1, i, c, fair)
			}
		}
		if moved != counts[n] {
			t.Errorf("%d slots moved, the new shard has %d", moved, counts[n])
		}
	}
	for _, pattern := range []string{"user:%d", "%08d", "session:%x:data"} {
		tab, counts := table(names(4)), [4]int{}
		for i := range 100_000 {
			counts[tab.Of(Hash(0, fmt.Sprintf(pattern, i)))]++
		}
		for i, c := range counts {
			if c < 22_000 || c > 28_000 {
				t.Errorf("%s: shard %d has %d of 100,000 keys", pattern, i, c)
			}
		}
	}
}

// The order of the names is nothing.
func TestText(t *testing.T) {
	t.Parallel()
	if Text([]string{"b", "a"}) != Text([]string{"a", "b"}) {
		t.Error("the order counts")
	}
	got, err := Parse(Text([]string{"b", "a"}))
	if err != nil || !slices.Equal(got, []string{"a", "b"}) {
		t.Error(got, err)
	}
	for _, bad := range []string{"", "v2:a", "v1:", "v1:a,a", "v1:a b", "v1:" + strings.Repeat("x", 64)} {
		if _, err := Parse(bad); err == nil {
			t.Errorf("%q is accepted", bad)
		}
	}
}

func BenchmarkRoute(b *testing.B) {
	tab, prefix := table(names(32)), Hash(0, "user:")
	for _, key := range []string{"42", "8f14e45f-ceea-467f-a8b0-6d3a5b2e7c11"} {
		b.Run(fmt.Sprint(len(key)), func(b *testing.B) {
			b.ReportAllocs()
			sum := 0
			for b.Loop() {
				sum += int(tab.Of(Hash(prefix, key)))
			}
			_ = sum
		})
	}
}

func TestRouteAllocatesNothing(t *testing.T) {
	tab, key := table(names(32)), "8f14e45f-ceea-467f-a8b0-6d3a5b2e7c11"
	if n := testing.AllocsPerRun(100, func() { _ = tab.Of(Hash(1, key)) }); n != 0 {
		t.Error(n, "allocations")
	}
}
