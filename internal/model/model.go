// Package model walks through everything that a small system can do, in every order, and looks for an order that breaks
// a promise of docs/promises.md. Each package below it is one such system:
//
//   - immediate: how a local cache stays coherent when every write publishes inline
//   - window: the same with a change log and flushes
//   - stretch: who leads while the window is stretched
//   - idle: what a node may serve after it has not pulsed for long
//   - unnotified: which changes a node that receives no notifications takes for published
//   - loads: the fence that keeps a load from storing over a change
//   - groups: which rows the removal of a group is about
//   - shards: how a key moves from one server to another
//
// The tests of those packages walk through everything, up to a few million states in a few seconds; shards has more, and
// is explored up to a limit. Two settings change how much immediate, window and shards explore:
//
//	go test -short ./internal/model/...                           the first states of each configuration; so does -race
//	PGCACHE_MODEL=full go test -timeout 1h ./internal/model/...   larger configurations and all of the variants: minutes
//	                                                              of two cores, some 4 GB
package model

import (
	"hash/maphash"
	"strings"
)

// A System is what Explore explores. S is its state, all there is to know at one moment: a plain value without pointers,
// strings and floats, so that equal states compare equal and have the same hash.
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
	Depth  int  // how many steps the state farthest from the start is away from it
	Capped bool // limit was reached: there may be more states

	Wrong string   // what Check or CheckEnd said, or "" if nothing was ever wrong
	Trace []string // a shortest sequence of steps that leads to it
}

// Counterexample returns what is wrong and how it comes about, on one line.
func (r Result) Counterexample() string { return r.Wrong + " <- " + strings.Join(r.Trace, ", ") }

// Explore tries every step in every state that can be reached, nearest first, until something is wrong or nothing is left.
// After limit states it takes up no new ones, and only checks what the steps from those that it has lead to; 0 is no limit.
//
// It remembers a 64-bit hash of each state rather than the state: the chance that n states hide one of them is below
// n*n/2^65, which is 3e-5 at 30 million.
func Explore[S comparable](system System[S], limit int) Result {
	e := explorer[S]{system: system, limit: limit, seed: maphash.MakeSeed()}
	e.next = system.Start()
	e.reach(-1, "")
	for e.r.Depth = -1; e.waiting.len() > 0 && e.r.Wrong == ""; {
		e.r.Depth++
		for range e.waiting.len() { // the states that are e.r.Depth steps away
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
	left    int // how many states leave is done with, which is the number of the next: states are numbered as they are reached
	r       Result

	// The arguments of leave and reach: the state that steps are taken from, and the one that a step leads to. They are fields
	// because a pointer to a local variable, passed to a method of an interface, would cost an allocation per step.
	here, next S
}

// reach checks the state e.next, to which step led from the state with the number from, and queues it if it is new.
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

// leave takes every step that can happen in the first state that waits.
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
