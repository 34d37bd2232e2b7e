package store

import "math/rand/v2"

// A version is the identity of one write of one key, random and known before its statement is sent. Two of its bits say something:
//
//	bit 62   no process keeps the row in memory, so nobody needs to hear of the next change of it
//	bit 0    only with bit 62: the row replaced another one with bit 62, so its change is not logged. The statement sets this bit
//	         in the row, and answers and logs the version without it
//
// The statements in sqlc/queries that write rows go by these bits. Versions that functions in the database make have neither.
const (
	neverKept = 1 << 62
	silenced  = 1
)

// NewVersion makes the version of a write of a row that may be kept in memory, or never is.
func NewVersion(never bool) int64 {
	for {
		switch v := rand.Int64() &^ neverKept; {
		case never:
			return v&^silenced | neverKept
		case v != 0:
			return v
		}
	}
}

// NeverKept says that no process may keep a row of this version in memory: its changes are not published.
func NeverKept(version int64) bool { return version&neverKept != 0 }
