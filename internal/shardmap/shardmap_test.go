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
	for _, v := range []struct {
		namespace, name string
		slot, owner     int
	}{
		{"", "k", 12532, 2},
		{"", "8f14e45f-ceea-467f", 2035, 0},
		{"", "é", 1525, 0},
		{"user", "42", 3241, 2},
		{"user", "8f14e45f-ceea-467f-a8b0-6d3a5b2e7c11", 8991, 2},
		{"session", strings.Repeat("long", 250), 1998, 0},
	} {
		h := Hash(0, v.name)
		if v.namespace != "" {
			h = Hash(Hash(0, v.namespace), v.name)
		}
		if slot, owner := int(Slot(h)), int(tab.Of(h)); slot != v.slot || owner != v.owner {
			t.Errorf("%.40q of the namespace %q has slot %d and owner %d, want %d and %d", v.name, v.namespace, slot, owner, v.slot, v.owner)
		}
	}
	sum := uint64(0)
	for _, owner := range tab {
		sum = Hash(sum, string(rune('0'+owner)))
	}
	if sum != 18253542421741932213 {
		t.Errorf("the sum of the table is %d", sum)
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
