// Package mono is the process's monotonic clock as one number. Local deadlines count on it, so a wall clock that is set
// changes nothing.
package mono

import "time"

var base = time.Now()

// Now returns the nanoseconds since the process started.
func Now() int64 { return int64(time.Since(base)) }

// At returns t, which must come from time.Now, on the same scale.
func At(t time.Time) int64 { return int64(t.Sub(base)) }
