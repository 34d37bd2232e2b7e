// Package model walks through everything that a small system can do, in every order, and looks for an order that breaks
// a promise of docs/promises.md. Each package below it is one such system:
//
//   - immediate: how a local cache stays coherent when every write publishes inline
//   - window: the same with a change log and flushes
//   - stretch: who leads while the window is stretched
//   - unnotified: which changes a node that receives no notifications takes for published
//   - loads: the fence that keeps a load from storing over a change
//   - groups: which rows the removal of a group is about
//   - shards: how a key moves from one server to another
//
// The tests of those packages walk through everything, up to a few million states in a few seconds. Two settings change
// how much that is:
//
//	go test -short ./internal/model/...                           the first states of each configuration; so does -race
//	PGCACHE_MODEL=full go test -timeout 1h ./internal/model/...   larger configurations and all of the variants: minutes
//	                                                              of two cores, some 4 GB
package model

import (
	"hash/maphash"
	"strings"
)

// A System is what can be explored. S is all there is to know at one moment: a plain value that holds no pointers,
// strings or floats, so that two equal moments are one state.
type System[S comparable] interface {
	// Start returns the state that everything begins with.
	Start() S
	// Next calls emit with each step that can happen in s, and the state after it. It does not change s.
	Next(s *S, emit func(step string, next S))
	// Check says what is wrong with s, or "". Nothing is explored beyond a state that is wrong.
	Check(s *S) string
	// CheckEnd says what is wrong with s being the end, or "". It is called where nothing can happen any more.
	CheckEnd(s *S) string
}

// Result is what Explore found.
type Result struct {
	States int  // different states seen
	Steps  int  // steps taken between them
	Depth  int  // steps of the longest of the shortest ways
	Capped bool // limit was reached: there may be more

	Wrong string   // what Check or CheckEnd said, or "" if nothing was ever wrong
	Trace []string // a shortest sequence of steps that leads to it
}

// Counterexample returns what is wrong and how it comes about, on one line.
func (r Result) Counterexample() string { return r.Wrong + " <- " + strings.Join(r.Trace, ", ") }

// Explore tries every step in every state that can be reached, nearest first, until something is wrong, nothing is
// left, or limit states have been seen; 0 is no limit.
//
// It remembers a 64-bit hash of each state rather than the state: the chance that n states hide one of them is below
// n*n/2^65, which is 3e-5 at 30 million.
func Explore[S comparable](system System[S], limit int) Result {
	e := explorer[S]{system: system, limit: limit, seed: maphash.MakeSeed()}
	e.next = system.Start()
	e.reach(-1, "")
	for e.r.Depth = -1; e.waiting.len() > 0 && e.r.Wrong == ""; {
		e.r.Depth++
		for range e.waiting.len() { // those that are as far away
			e.leave()
		}
	}
	e.r.States = e.seen.n
	return e.r
}

type explorer[S comparable] struct {
	system  System[S]
	limit   int
	seed    maphash.Seed
	seen    set
	waiting queue[S]
	trail   trail
	left    int // states that have been left: they are numbered in the order they were reached and are left in
	r       Result

	// The state that is being left, and the one that is being reached. They are here because a pointer to a local
	// variable, handed to an interface, would cost an allocation per step.
	here, next S
}

// reach enters the state e.next, which a step of the state numbered from led to.
func (e *explorer[S]) reach(from int, step string) {
	if e.r.Wrong = e.system.Check(&e.next); e.r.Wrong != "" {
		e.r.Trace = e.trail.to(from, step)
		return
	}
	if e.r.Capped || !e.seen.add(maphash.Comparable(e.seed, e.next)) {
		return
	}
	e.trail.add(from, step)
	e.waiting.push(e.next)
	e.r.Capped = e.limit > 0 && e.seen.n >= e.limit
}

// leave takes every step from the next state that is waiting.
func (e *explorer[S]) leave() {
	if e.r.Wrong != "" {
		return
	}
	e.here = e.waiting.pop()
	before := e.r.Steps
	e.system.Next(&e.here, func(step string, next S) {
		if e.r.Wrong != "" {
			return
		}
		e.r.Steps++
		e.next = next
		e.reach(e.left, step)
	})
	if e.r.Steps == before {
		if e.r.Wrong = e.system.CheckEnd(&e.here); e.r.Wrong != "" {
			e.r.Trace = e.trail.to(e.left, "(the end)")
		}
	}
	e.left++
}
