// Package shardmap says which shard a key belongs to. It is the same in every process and every release: servers have recorded maps
// that were made by it, so nothing of it may change but with another version.
//
// A key is hashed to one of 16,384 slots, by XXH64. Each slot belongs to the shard whose name has the highest score for it
// (rendezvous hashing), so a shard that is added takes slots from all others and moves none between them.
package shardmap

import (
	"errors"
	"fmt"
	"slices"
	"strings"
)

// Slots is the number of slots, MaxShards how many shards a map may have, and MaxName how long a name may be.
const (
	Slots     = 1 << slotBits
	MaxShards = 128
	MaxName   = 63

	slotBits = 14
)

// None is the owner of slots whose shard is not among those known.
const None uint8 = 255

// Table has the number of the owner of each slot.
type Table [Slots]uint8

// Of returns the owner of a key, given its Hash.
func (t *Table) Of(hash uint64) uint8 { return t[Slot(hash)] }

// Slot returns the slot of a key, given its Hash.
func Slot(hash uint64) uint64 { return hash >> (64 - slotBits) }

// Build returns who of owners has each slot. known says which number each owner has in the table.
func Build(owners []string, known func(name string) uint8) *Table {
	t := &Table{}
	seeds, numbers := make([]uint64, len(owners)), make([]uint8, len(owners))
	for i, name := range owners {
		seeds[i], numbers[i] = mix(Hash(0, name)), known(name)
	}
	for slot := range t {
		best, most := 0, uint64(0)
		for i, seed := range seeds {
			score := mix(seed ^ mix(uint64(slot)+1))
			if i == 0 || score > most || score == most && owners[i] < owners[best] {
				best, most = i, score
			}
		}
		if len(owners) > 0 {
			t[slot] = numbers[best]
		}
	}
	return t
}

// mix is the finalizer of SplitMix64: each bit of its result depends on all of x.
func mix(x uint64) uint64 {
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	return x ^ x>>31
}

// version begins a recorded map, so that a release which spreads keys in another way refuses it.
const version = "v1:"

// Text is how a map is recorded: equal texts spread keys equally.
func Text(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	return version + strings.Join(sorted, ",")
}

// Parse returns the names of a recorded map.
func Parse(text string) ([]string, error) {
	list, ok := strings.CutPrefix(text, version)
	if !ok {
		return nil, fmt.Errorf("the recorded map %q is of another version than this release knows", text)
	}
	names := strings.Split(list, ",")
	return names, Check(names)
}

// Check says what is wrong with the names of a map.
func Check(names []string) error {
	if len(names) == 0 {
		return errors.New("a map needs at least one shard")
	}
	if len(names) > MaxShards {
		return fmt.Errorf("%d shards, at most %d are allowed", len(names), MaxShards)
	}
	for i, name := range names {
		if err := CheckName(name); err != nil {
			return err
		}
		if slices.Contains(names[:i], name) {
			return fmt.Errorf("two shards are named %q", name)
		}
	}
	return nil
}

// CheckName says what is wrong with a shard's name.
func CheckName(name string) error {
	bad := strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	})
	if name == "" || len(name) > MaxName || bad >= 0 {
		return fmt.Errorf("the name of a shard is %.80q: want 1 to %d letters, digits, '_', '-' and '.'", name, MaxName)
	}
	return nil
}
