package shardmap

import "math/bits"

// The primes of XXH64.
const (
	prime1 uint64 = 0x9E3779B185EBCA87
	prime2 uint64 = 0xC2B2AE3D27D4EB4F
	prime3 uint64 = 0x165667B19E3779F9
	prime4 uint64 = 0x85EBCA77C2B2AE63
	prime5 uint64 = 0x27D4EB2F165667C5
)

// Hash returns the XXH64 of s, with before as its seed. before is the hash of the part of the key that precedes s, and 0 if s is the
// first part. The hash of a key is Hash(Hash(0, namespace), name), or Hash(0, name) for a key without a namespace, so a view
// hashes its namespace once. Hash does not allocate, and is the same on every architecture.
//
// XXH64 is by Yann Collet: https://github.com/Cyan4973/xxHash/blob/dev/doc/xxhash_spec.md specifies it.
func Hash(before uint64, s string) uint64 {
	length := uint64(len(s))
	var h uint64
	if len(s) < 32 {
		h = before + prime5
	} else {
		a, b, c, d := before+prime1+prime2, before+prime2, before, before-prime1
		for ; len(s) >= 32; s = s[32:] {
			a, b = round(a, load64(s)), round(b, load64(s[8:]))
			c, d = round(c, load64(s[16:])), round(d, load64(s[24:]))
		}
		h = bits.RotateLeft64(a, 1) + bits.RotateLeft64(b, 7) + bits.RotateLeft64(c, 12) + bits.RotateLeft64(d, 18)
		h = merge(merge(merge(merge(h, a), b), c), d)
	}
	h += length
	for ; len(s) >= 8; s = s[8:] {
		h = bits.RotateLeft64(h^round(0, load64(s)), 27)*prime1 + prime4
	}
	if len(s) >= 4 {
		h = bits.RotateLeft64(h^load32(s)*prime1, 23)*prime2 + prime3
		s = s[4:]
	}
	for i := range len(s) {
		h = bits.RotateLeft64(h^uint64(s[i])*prime5, 11) * prime1
	}
	h = (h ^ h>>33) * prime2
	h = (h ^ h>>29) * prime3
	return h ^ h>>32
}

// round and merge are the steps of the same names in the specification.
func round(lane, input uint64) uint64 { return bits.RotateLeft64(lane+input*prime2, 31) * prime1 }

func merge(h, lane uint64) uint64 { return (h^round(0, lane))*prime1 + prime4 }

// load64 and load32 read the first bytes of s in little-endian order. The first line of each spares the bounds checks after it.
func load64(s string) uint64 {
	_ = s[7]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24 |
		uint64(s[4])<<32 | uint64(s[5])<<40 | uint64(s[6])<<48 | uint64(s[7])<<56
}

func load32(s string) uint64 {
	_ = s[3]
	return uint64(s[0]) | uint64(s[1])<<8 | uint64(s[2])<<16 | uint64(s[3])<<24
}
