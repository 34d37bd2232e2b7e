// Package mono is the process's monotonic clock as one number. Deadlines in the process are measured by it, so setting the wall
// clock changes nothing.
package mono

import "time"

var base = time.Now()

// Now returns the nanoseconds since the process started. In a synctest bubble, whose clock is in the past, it is negative.
func Now() int64 { return int64(time.Since(base)) }

// At returns t, which must come from time.Now, on the same scale.
func At(t time.Time) int64 { return int64(t.Sub(base)) }
