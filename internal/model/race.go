//go:build race

package model

// underRace: the race detector makes a walk ten times slower, and finds nothing in one that is a single goroutine.
const underRace = true
