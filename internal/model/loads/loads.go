// Package loads is a model of the fence that keeps what a loader returned from being stored over a change made meanwhile. Its
// test walks through everything that can happen, in every order, and then once more with each rule taken away, to see that
// it is needed.
//
// One key. A load looks at the row and the incarnation of the tables, runs its loader, and stores in one statement: that
// takes its snapshot (the incarnation, and whether there is another row), and then inserts or updates, judging the newest
// row. Around it happen, each once: a Set and a Delete of another node, a Clear in its steps, TRUNCATE, DELETE and UPDATE
// by hand, a crash of the server, expiry, and the janitor. The lock that keeps other nodes from loading the same
// key is not modelled: the fence must hold without it.
//
// What is checked: a load stores nothing once something else has changed the row after it looked (P6).
//
// What each rule prevents, with the shortest way that the walk finds, is printed by go test -v:
//
//   - The store compares the version that the load saw. Else it overwrites a Set.
//   - Delete leaves a tombstone. Else the row is as absent as the load saw it.
//   - DELETE by hand leaves one, too, and UPDATE by hand makes a new version.
//   - Clear and TRUNCATE change the incarnation, and a crash loses it. Else the tombstone is gone, and the load sees no difference.
//   - Clear changes the incarnation, waits for the statements under way, and then removes the rows. Else a statement with an old
//     snapshot stores after the removal. And it removes nothing that was written after it changed the incarnation. Else it
//     removes a Set that a load must not store over. (Where it can, Clear is a TRUNCATE, which changes the incarnation in its
//     own transaction.)
//   - A store is refused when as much time has gone by as tombstones live. Else the janitor has removed the tombstone.
//   - The store reads the incarnation in a snapshot from after the look of its own load; the level of isolation must not
//     make it an older one. Else a Clear in between is not seen.
package loads

import "fmt"

// version of the row. Each operation makes its own.
type version int8

const (
	absent    version = iota // no row
	initial                  // was there at the start, expired or not readable for the loader
	setV                     // another node's Set
	tombstone                // another node's Delete
	byHand                   // an UPDATE by hand
	handGone                 // the tombstone of a DELETE by hand
	loaded                   // the load's own
)

// phase is how far the load has come.
type phase int8

const (
	idle phase = iota
	looked
	storing // the statement has its snapshot
	ended
)

// clearing is how far Clear has come.
type clearing int8

const (
	notYet clearing = iota
	turned          // the incarnation has changed
	waited          // no statement from before is under way
	cleared
)

type state struct {
	row         version
	incarnation int8

	load    phase
	base    version // what the load saw
	inc     int8    // the incarnation that it saw
	allowed bool    // by the snapshot of its statement
	changed bool    // since it looked, something else changed the row, and has finished
	stale   bool    // it has stored all the same
	late    bool    // as much time has gone by since it looked as tombstones live

	clear                                            clearing
	after                                            bool // the row was written after Clear changed the incarnation
	set, del, update, handDelete, truncated, crashed bool
	janitor                                          bool
}

// rule is one that can be taken away. What each means is said in the test.
type rule int

const (
	none rule = iota
	noVersion
	noTombstone
	noHandTombstone
	noHandVersion
	noTurn
	noTruncateTurn
	noCrashTurn
	noWait
	noLimit
	noTime
	oldSnapshot
)

type algorithm struct {
	missing rule
	absent  bool // there is no row at the start
}

func (a algorithm) Start() state {
	s := state{row: initial, incarnation: 1}
	if a.absent {
		s.row = absent
	}
	return s
}

func (a algorithm) Next(s *state, emit func(string, state)) {
	a.nextLoad(s, emit)
	a.nextClear(s, emit)
	write := func(step string, done func(*state) *bool, v version) {
		if *done(s) {
			return
		}
		n := *s
		*done(&n) = true
		n.row = v
		n.changed = n.load != idle
		n.after = n.clear != notYet
		emit(step, n)
	}
	write("Set", func(s *state) *bool { return &s.set }, setV)
	if a.missing == noTombstone {
		write("Delete", func(s *state) *bool { return &s.del }, absent)
	} else {
		write("Delete", func(s *state) *bool { return &s.del }, tombstone)
	}
	if s.row != absent {
		v := byHand
		if a.missing == noHandVersion {
			v = s.row
		}
		write("UPDATE by hand", func(s *state) *bool { return &s.update }, v)
		v = handGone
		if a.missing == noHandTombstone {
			v = absent
		}
		write("DELETE by hand", func(s *state) *bool { return &s.handDelete }, v)
	}
	a.nextEmpty(s, emit)
}

// nextLoad is the load: it looks, its statement takes its snapshot, and stores.
func (a algorithm) nextLoad(s *state, emit func(string, state)) {
	n := *s
	switch s.load {
	case idle:
		n.load, n.base, n.inc = looked, s.row, s.incarnation
		emit("the load looks", n)
	case looked:
		n.load = storing
		inc := s.incarnation
		if a.missing == oldSnapshot {
			inc = s.inc // of a transaction that began when the load looked
		}
		n.allowed = inc == s.inc && (!s.late || a.missing == noTime) && (s.row == absent || s.row == s.base || a.missing == noVersion)
		emit("the store takes its snapshot", n)
	case storing:
		n.load = ended
		if s.allowed && (s.row == absent || s.row == s.base || a.missing == noVersion) {
			n.row, n.stale, n.after = loaded, s.changed, s.clear != notYet
		}
		emit("the store ends", n)
	}
}

// nextClear changes the incarnation, waits for the statements under way, and removes the rows.
func (a algorithm) nextClear(s *state, emit func(string, state)) {
	n := *s
	switch s.clear {
	case notYet:
		if n.clear = turned; a.missing != noTurn {
			n.incarnation++
		}
		emit("Clear turns the incarnation", n)
	case turned:
		if s.load == storing && a.missing != noWait {
			return // it waits
		}
		n.clear = waited
		emit("Clear has waited", n)
	case waited:
		n.clear = cleared
		if !s.after || a.missing == noLimit {
			n.row = absent
			// A load that began while Clear was under way need not be fenced by it: its loader read what is there now.
			n.changed = s.changed || n.load != idle && s.inc != s.incarnation
		}
		emit("Clear removes the rows", n)
	}
}

// nextEmpty is what removes rows without leaving a tombstone: TRUNCATE, a crash and the janitor. Time is here too.
func (a algorithm) nextEmpty(s *state, emit func(string, state)) {
	if !s.truncated && s.load != storing { // TRUNCATE waits for the statement
		n := *s
		n.truncated, n.row, n.changed = true, absent, n.load != idle
		if a.missing != noTruncateTurn {
			n.incarnation++
		}
		emit("TRUNCATE by hand", n)
	}
	if !s.crashed {
		n := *s
		// A crash loses all rows, but changed stays: a Delete that was acknowledged before the crash must not be undone by a load
		// that looked before the Delete.
		n.crashed, n.row = true, absent
		if a.missing != noCrashTurn {
			n.incarnation++
		}
		if n.load == storing {
			n.load = ended // its session ends
		}
		emit("the server crashes", n)
	}
	if !s.late && s.load != idle {
		n := *s
		n.late = true
		emit("time goes by", n)
	}
	// The janitor removes what expired long ago: before the load looked, or after as much time.
	if !s.janitor && (s.row == tombstone || s.row == handGone || s.row == setV || s.row == initial) && (s.load == idle || s.late) && s.load != storing {
		n := *s
		n.janitor, n.row = true, absent
		emit("the janitor", n)
	}
}

func (a algorithm) Check(s *state) string {
	if s.stale {
		return fmt.Sprintf("what was loaded before is stored over a change that has finished (row %d)", s.row)
	}
	return ""
}

func (a algorithm) CheckEnd(*state) string { return "" }
