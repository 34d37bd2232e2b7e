// Package groups is a model of how groups of entries are removed: a removal leaves a removal record, and each row notes which
// records the statement that wrote it had seen. A row is dead, and reads as absent, if there is a record of its group that it does
// not note. The test walks through everything that can happen, in every order, and then once more with each rule taken away, to
// see that it is needed.
//
// One key of a group. Around it happen, each once: a removal, a removal in a transaction that commits or is rolled back and may
// store the key after it, a Set with its snapshot and its commit, a Set in a transaction whose snapshot is old (REPEATABLE READ), a
// load, the janitor, who removes dead rows, expired rows and records, and the replacement of one record by the other. What the load
// stores is of the group or of none.
//
// What is checked: a row that was stored without having seen a removal that has committed is dead, and one that had seen all of
// them is not. And a load stores over nothing that came after its look: no other row, nor a removal of the group of the row that
// it saw, if that removal was there when the store began.
//
// What each rule prevents, with the shortest way that the walk finds, is printed by go test -v:
//
//   - A row notes what its statement had seen. Else what is stored after a removal is dead as well.
//   - It notes what the snapshot showed, not what is there at the commit. Else a Set from before lives.
//   - A transaction sees its own removal. Else what it stores after it is dead.
//   - A removal counts from its commit, and a rollback leaves none.
//   - The store of a load asks whether there is a record that its look had not seen. Else it stores what it read before.
//   - It asks that of the group of the row that it saw too. Else it stores outside the group what it read before the removal.
//   - Which group that was is known from the look. Else it stores so where the row has expired and is gone.
//   - A record is replaced only by one whose snapshot shows it. Else what has seen the other alone lives.
//   - A record stays while there is a dead row. Else the row is alive again.
//   - A record stays while there is a snapshot that had not seen it. Else what is written by that snapshot lives.
//   - A record stays as long as a load may take. Else the load finds no record.
//   - A dead row stays as long as a load may take. Else the load, of another group now, finds no row to be fenced by.
package groups

// removals is a set of the two removals.
type removals uint8

const (
	plain removals = 1 << iota // in a statement of its own
	inTx                       // in a transaction
)

// content is who wrote the row.
type content int8

const (
	absent content = iota
	initial
	setByOne
	setByOld
	setByTx
	loaded
)

// phase is how far a transaction, a Set or the load has come.
type phase int8

const (
	idle    phase = iota
	snapped       // it has its snapshot; of the load: it has looked
	storing       // of the load: the statement that stores has its snapshot
	ended
)

type state struct {
	row    content
	tagged bool
	seen   removals // what the row notes
	knew   removals // the removals that had committed when its value was read or set; Check compares them with committed

	committed removals // the removals that have committed so far
	records   removals // that are there and visible
	plainSaw  bool     // the snapshot of the plain removal shows the other
	txSaw     bool     // the other way round

	tx       phase    // of the transaction that removes: snapped after its removal
	txStored bool     // it has also stored the key, with its row locked
	txNotes  removals // what the row notes, and
	txKnew   removals // what had committed when it was stored
	one      phase    // of the Set
	oneSaw   removals
	oneNotes removals // what it will note: the records that its snapshot shows
	old      phase    // of the transaction with an old snapshot
	oldSaw   removals
	oldNotes removals

	load     phase
	fence    content  // the row of its look
	fenceIn  bool     // that row is of the group
	looked   removals // the records that its look had seen
	loadKnew removals
	loadSaw  removals // by the snapshot of its store
	allowed  bool
	behind   bool // when its store began, a removal of the group of the row it had seen had committed since its look
	changed  bool // the row has changed since it looked
	late     bool // as much time has gone by since it looked as a load may take
	wrong    bool // it has stored over a change
}

// rule is one that can be taken away. What each means is said in the test.
type rule int

const (
	none rule = iota
	noSeen
	seenAtCommit
	ownUnseen
	countsAtOnce
	rollbackLeaves
	noOvertaken
	newGroupsAlone
	groupsOfTheRow
	replaceUnseen
	retireDead
	retireUnderSnapshot
	retireUnderLoad
	burySoon
)

type algorithm struct {
	missing  rule
	untagged bool // what the load stores is of no group
}

func (a algorithm) Start() state { return state{row: initial, tagged: true} }

// shows says whether the first removal's snapshot shows the second.
func (s *state) shows(of, other removals) bool {
	return of == plain && other == inTx && s.plainSaw || of == inTx && other == plain && s.txSaw
}

func (s *state) dead() bool { return s.row != absent && s.tagged && s.records&^s.seen != 0 }

// locked says whether the transaction that removes has stored the key and not ended: whoever else writes the key waits.
func (s *state) locked() bool { return s.tx == snapped && s.txStored }

// put commits a row that notes seen; knew is for Check.
func (a algorithm) put(s *state, c content, tagged bool, seen, knew removals) {
	if a.missing == noSeen {
		seen = 0
	}
	if a.missing == seenAtCommit {
		seen = s.records
	}
	s.row, s.tagged, s.seen, s.knew = c, tagged, seen, knew
	s.changed = s.load != idle
}

func (a algorithm) Next(s *state, emit func(string, state)) {
	if s.committed&plain == 0 {
		n := *s
		n.plainSaw = s.committed&inTx != 0
		n.committed |= plain
		n.records |= plain
		emit("a removal", n)
	}
	a.nextTx(s, emit)
	a.nextSets(s, emit)
	a.nextLoad(s, emit)
	a.nextJanitor(s, emit)
}

func (a algorithm) nextTx(s *state, emit func(string, state)) {
	switch s.tx {
	case idle:
		n := *s
		n.tx, n.txSaw = snapped, s.committed&plain != 0
		if a.missing == countsAtOnce {
			n.records |= inTx
		}
		emit("a transaction removes", n)
		if n.txSaw {
			n.txSaw = false
			emit("a transaction with an older snapshot removes", n)
		}
	case snapped:
		if !s.txStored && !s.locked() {
			n := *s
			own := inTx
			if a.missing == ownUnseen {
				own = 0
			}
			n.txStored, n.txNotes, n.txKnew = true, s.records|own, s.committed|inTx
			emit("the transaction stores", n)
		}
		n := *s
		n.tx = ended
		n.committed |= inTx
		n.records |= inTx
		if s.txStored {
			a.put(&n, setByTx, true, s.txNotes, s.txKnew)
		}
		emit("the transaction commits", n)
		n = *s
		if n.tx = ended; a.missing == rollbackLeaves {
			n.records |= inTx
		}
		emit("the transaction is rolled back", n)
	}
}

func (a algorithm) nextSets(s *state, emit func(string, state)) {
	n := *s
	switch {
	case s.one == idle:
		n.one, n.oneSaw, n.oneNotes = snapped, s.committed, s.records
		emit("Set begins", n)
	case s.one == snapped && !s.locked():
		n.one = ended
		a.put(&n, setByOne, true, s.oneNotes, s.oneSaw)
		emit("Set commits", n)
	}
	n = *s
	switch {
	case s.old == idle:
		n.old, n.oldSaw, n.oldNotes = snapped, s.committed, s.records
		emit("a transaction takes its snapshot", n)
	case s.old == snapped && !s.locked() && s.row != setByOne && s.row != setByTx && s.row != loaded: // else it fails: the row is newer
		n.old = ended
		a.put(&n, setByOld, true, s.oldNotes, s.oldSaw)
		emit("it stores and commits", n)
	}
}

func (a algorithm) nextLoad(s *state, emit func(string, state)) {
	n := *s
	switch s.load {
	case idle:
		n.load, n.fence, n.fenceIn, n.looked, n.loadKnew = snapped, s.row, s.tagged, s.records, s.committed
		emit("the load looks", n)
	case snapped:
		n.load, n.loadSaw = storing, s.records
		asks := !a.untagged || s.fenceIn
		switch a.missing {
		case noOvertaken:
			asks = false
		case newGroupsAlone:
			asks = !a.untagged
		case groupsOfTheRow:
			asks = !a.untagged || s.tagged
		}
		overtaken := asks && s.records&^s.looked != 0
		n.behind = s.fenceIn && s.committed&^s.loadKnew != 0
		n.allowed = !overtaken && !s.late && (s.row == s.fence || s.row == absent)
		emit("the store of the load begins", n)
	case storing:
		if s.locked() {
			return
		}
		n.load = ended
		if s.allowed && (s.row == s.fence || s.row == absent) {
			a.put(&n, loaded, !a.untagged, s.loadSaw, s.loadKnew)
			n.wrong = s.changed || s.behind
		}
		emit("the store of the load ends", n)
	}
	if s.load != idle && !s.late {
		n = *s
		n.late = true
		emit("time goes by", n)
	}
}

func (a algorithm) nextJanitor(s *state, emit func(string, state)) {
	loading := s.load == storing || s.load == snapped && !s.late
	if s.dead() && !s.locked() && (!loading || a.missing == burySoon) {
		n := *s
		n.row, n.seen, n.knew, n.tagged = absent, 0, 0, false
		emit("the janitor removes the row", n)
	}
	if s.row != absent && !s.locked() && (!loading || s.row == s.fence) { // of a load, what was written after its look stays
		n := *s
		n.row, n.seen, n.knew, n.tagged = absent, 0, 0, false
		emit("the row expires and the janitor removes it", n)
	}
	for _, r := range []removals{plain, inTx} {
		if other := (plain | inTx) &^ r; s.records == plain|inTx && s.committed == plain|inTx && (s.shows(other, r) || a.missing == replaceUnseen) {
			n := *s
			n.records = other
			emit("a record is replaced", n)
		}
		// A snapshot of a statement or a transaction that is under way.
		held := s.locked() && s.txKnew&r == 0 || s.one == snapped && s.oneSaw&r == 0 || s.old == snapped && s.oldSaw&r == 0 || s.load == storing && s.loadSaw&r == 0
		switch {
		case s.records&r == 0 || s.committed&r == 0:
		case s.dead() && a.missing != retireDead:
		case held && a.missing != retireUnderSnapshot:
		case loading && a.missing != retireUnderLoad:
		default:
			n := *s
			n.records = s.records &^ r
			emit("the janitor retires a record", n)
		}
	}
}

func (a algorithm) Check(s *state) string {
	switch unseen := s.tagged && s.committed&^s.knew != 0; {
	case s.row == absent:
	case s.wrong:
		return "what was loaded before is stored over a change"
	case unseen && !s.dead():
		return "what had not seen a removal lives"
	case !unseen && s.dead():
		return "what no removal was about is dead"
	}
	return ""
}

func (a algorithm) CheckEnd(*state) string { return "" }
