package shardmap

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strings"
	"testing"
)

// The hashes are those of XXH64, as another implementation gives them: github.com/cespare/xxhash v2.3.0.
func TestHashIsXXH64(t *testing.T) {
	t.Parallel()
	for _, v := range []struct {
		before uint64
		s      string
		want   uint64
	}{
		{0, "", 0xef46db3751d8e999},
		{0, "a", 0xd24ec4f1a98c6e5b},
		{0, "abc", 0x44bc2cf5ad770999},
		{0, "message digest", 0x66ed728fceeb3be},
		{0, "abcdefghijklmnopqrstuvwxyz", 0xcfe1f278fa89835c},
		{0, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 0xaaa46907d3047814},
		{2026, "", 0xf6cf42b7763825c2},
		{2026, "a", 0x8b3d1b70fa99b5b2},
		{2026, "abc", 0xb64ecc80fba7034c},
		{2026, "message digest", 0x1ddaf390734aa77c},
		{2026, "abcdefghijklmnopqrstuvwxyz", 0xdcd940b8c42a204d},
		{2026, "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789", 0x881141d1578f8dab},
	} {
		if got := Hash(v.before, v.s); got != v.want {
			t.Errorf("Hash(%d, %q) is %#x, want %#x", v.before, v.s, got, v.want)
		}
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

// Keys that differ little, as those of programs do, are spread over the slots as evenly as random ones would be: by chi-squared,
// at most six standard deviations from its mean.
func TestKeysSpreadOverSlots(t *testing.T) {
	t.Parallel()
	const keys = 1 << 16
	for name, key := range map[string]func(i int) string{
		"decimal":                func(i int) string { return fmt.Sprint(i) },
		"of equal length":        func(i int) string { return fmt.Sprintf("%08d", i) },
		"steps of 1,000":         func(i int) string { return fmt.Sprint(i * 1000) },
		"prefix":                 func(i int) string { return fmt.Sprintf("session:%x:data", i) },
		"first digits of a uuid": func(i int) string { return fmt.Sprintf("%08x-0000-4000-8000-000000000000", i) },
		"last digits of a uuid":  func(i int) string { return fmt.Sprintf("00000000-0000-4000-8000-%012x", i) },
		"two bytes":              func(i int) string { return string([]byte{byte(i >> 8), byte(i)}) },
		"low bits of four":       func(i int) string { return spreadBits(i, 0) },
		"letters":                func(i int) string { return spreadBits(i, 'a') },
		"length alone":           func(i int) string { return strings.Repeat("x", i%1024) + string(rune('A'+i/1024)) },
		"one bit of many":        func(i int) string { return oneBit(i) },
	} {
		counts := [Slots]int{}
		for i := range keys {
			counts[Slot(Hash(Hash(0, "user"), key(i)))]++
		}
		const fair = float64(keys) / Slots
		chi := 0.0
		for _, n := range counts {
			chi += (float64(n) - fair) * (float64(n) - fair) / fair
		}
		if far := (chi - (Slots - 1)) / math.Sqrt(2*(Slots-1)); math.Abs(far) > 6 {
			t.Errorf("keys %q: chi-squared is %.1f standard deviations from its mean", name, far)
		}
	}
}

// spreadBits has four bits of i in each of four bytes.
func spreadBits(i, first int) string {
	return string([]byte{byte(first + i>>12&15), byte(first + i>>8&15), byte(first + i>>4&15), byte(first + i&15)})
}

// oneBit is a long key of zeros but for two bits.
func oneBit(i int) string {
	b := make([]byte, 64)
	b[i&255/8] |= 1 << (i & 7)
	b[32+i>>8/8] |= 1 << (i >> 8 & 7)
	return string(b)
}

// Whichever bit of a key changes, each bit of the slot changes about every second time, so no choice of keys that differ in some bits
// alone leaves slots empty.
func TestEachBitChangesTheSlot(t *testing.T) {
	t.Parallel()
	random := rand.New(rand.NewPCG(1, 2026))
	for _, length := range []int{2, 3, 4, 5, 8, 9, 12, 16, 31, 32, 40} {
		for bit := range 8 * length {
			const tries = 1500
			changed := [slotBits]int{}
			for range tries {
				key := make([]byte, length)
				for i := range key {
					key[i] = byte(random.Uint32())
				}
				slot := Slot(Hash(0, string(key)))
				key[bit/8] ^= 1 << (bit % 8)
				for i, both := 0, slot^Slot(Hash(0, string(key))); i < slotBits; i++ {
					changed[i] += int(both >> i & 1)
				}
			}
			for i, n := range changed {
				if share := float64(n) / tries; share < .4 || share > .6 {
					t.Errorf("%d bytes: bit %d changes bit %d of the slot in %.2f of the cases", length, bit, i, share)
				}
			}
		}
	}
}

// What a route costs, and what of it is the hash.
func BenchmarkRoute(b *testing.B) {
	tab, prefix := table(names(32)), Hash(0, "user:")
	for _, length := range []int{2, 8, 16, 36, 64, 256, 1024} {
		keys := make([]string, 256)
		for i := range keys {
			keys[i] = fmt.Sprintf("%0*d", length, i*7919)[:length]
		}
		sum := uint64(0)
		b.Run(fmt.Sprint("hash/", length), func(b *testing.B) {
			for i := 0; b.Loop(); i++ {
				sum += Hash(prefix, keys[i&255])
			}
		})
		b.Run(fmt.Sprint("route/", length), func(b *testing.B) {
			b.ReportAllocs()
			for i := 0; b.Loop(); i++ {
				sum += uint64(tab.Of(Hash(prefix, keys[i&255])))
			}
		})
		_ = sum
	}
}

func TestRouteAllocatesNothing(t *testing.T) {
	tab, key := table(names(32)), "8f14e45f-ceea-467f-a8b0-6d3a5b2e7c11"
	if n := testing.AllocsPerRun(100, func() { _ = tab.Of(Hash(1, key)) }); n != 0 {
		t.Error(n, "allocations")
	}
}
