// Package shardmap says which shard a key belongs to. Every process and every release must give the same answer, because servers
// keep recorded maps: a change of how keys are spread needs another version.
//
// XXH64 hashes a key to one of 16,384 slots. Each slot belongs to the shard whose name has the highest score for that slot
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

// None is the number of an owner that the maker of a Table does not know.
const None uint8 = 255

// Table has the number of the owner of each slot. What a number means is up to the caller of Build.
type Table [Slots]uint8

// Of returns the number of the owner of a key, given the key's Hash.
func (t *Table) Of(hash uint64) uint8 { return t[Slot(hash)] }

// Slot returns the slot of a key, given the key's Hash.
func Slot(hash uint64) uint64 { return hash >> (64 - slotBits) }

// Build returns the Table of the shards named owners, in which an owner has the number that known returns for its name. The order of
// owners does not matter. There must be at least one: without owners each slot has the number 0, not None.
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

// version begins a recorded map, so that a release which spreads keys in another way refuses that map.
const version = "v1:"

// Text returns a map of names as it is recorded. Maps of equal texts spread keys equally.
func Text(names []string) string {
	sorted := slices.Sorted(slices.Values(names))
	return version + strings.Join(sorted, ",")
}

// Parse returns the names of a recorded map, or an error if this release can't use it.
func Parse(text string) ([]string, error) {
	list, ok := strings.CutPrefix(text, version)
	if !ok {
		return nil, fmt.Errorf("the recorded map %q is of another version than this release knows", text)
	}
	names := strings.Split(list, ",")
	return names, Check(names)
}

// Check returns an error if names can't be the shards of a map.
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

// CheckName returns an error if name can't be the name of a shard.
func CheckName(name string) error {
	bad := strings.IndexFunc(name, func(r rune) bool {
		return !(r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-' || r == '.')
	})
	if name == "" || len(name) > MaxName || bad >= 0 {
		return fmt.Errorf("the name of a shard is %.80q: want 1 to %d letters, digits, '_', '-' and '.'", name, MaxName)
	}
	return nil
}
