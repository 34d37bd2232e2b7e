//go:build race

package model

// underRace is true under the race detector. It makes a walk ten times slower and can find nothing in it, as a walk is a single
// goroutine.
const underRace = true
