package window

// The names of the steps, which a counterexample consists of.
var (
	getSteps = [2][3]string{
		{"get0", "get0 reads", "get0 finishes"},
		{"get1", "get1 reads", "get1 finishes"},
	}
	setSteps = [2][5]string{
		{"setA", "setA commits", "setA finishes", "setA gives up", "setA commits late"},
		{"setB", "setB commits", "setB finishes", "setB gives up", "setB commits late"},
	}
)

// servable says whether a Get is answered by the local cache.
func (a algorithm) servable(s *state) bool {
	return s.entry.there && s.live && a.current(s, s.entry.epoch)
}

// current says whether epoch, of an entry or a fetch, has not ended yet.
func (a algorithm) current(s *state, epoch int8) bool { return epoch == s.epoch || a.change == noEpoch }

func (s *state) setRunning() bool { return s.sets[0].running() || s.sets[1].running() }

// kill keeps the fetches under way from storing and from being joined. Their own callers get what they read.
func (a algorithm) kill(s *state) {
	for i := range s.fetches {
		if f := &s.fetches[i]; f.phase == begun || f.phase == read {
			f.dead = true
		}
	}
	if a.change != joinDead {
		s.joinable = 0
	}
}

// apply is L's listener taking the next notification.
func (a algorithm) apply(s *state) {
	versions := s.queue[0]
	copy(s.queue[:], s.queue[1:])
	s.queued--
	s.queue[s.queued] = 0

	if s.entry.there && a.evicts(s, versions, s.entry.op) {
		s.entry = entry{}
	}
	if a.change != noKill {
		a.kill(s)
	}
	for i := range s.sets {
		if s.sets[i].running() && a.evicts(s, versions, setOp(i)) && a.change != noDeadSet {
			s.sets[i].dead = true
		}
	}
	a.settle(s, versions, nodeL)
	for o := range numOps {
		if versions.has(o) {
			s.floor = max(s.floor, s.at[o])
		}
	}
}

// nextGet is the next step of a Get or of its fetch. Gets start in the order of their numbers: as they are all alike, other
// orders differ in the numbers only.
func (a algorithm) nextGet(s *state, i int, emit func(string, state)) {
	n := *s
	switch {
	case s.gets[i].phase == idle && (i == 0 || s.gets[i-1].phase != idle):
		a.startGet(&n, i)
		emit(getSteps[i][0], n)
	case s.fetches[i].phase == begun:
		f := &n.fetches[i]
		f.phase, f.op, f.upTo = read, s.row, s.commits
		emit(getSteps[i][1], n)
	case s.fetches[i].phase == read:
		a.finishFetch(&n, i)
		emit(getSteps[i][2], n)
	}
}

// startGet hits, joins a fetch of this epoch, or begins one.
func (a algorithm) startGet(s *state, i int) {
	if a.servable(s) {
		s.gets[i].phase = done
		s.returns(s.at[s.entry.op], s.floor)
		return
	}
	if j := s.joinable - 1; j >= 0 && s.fetches[j].epoch == s.epoch && s.fetches[j].phase != done {
		s.gets[i] = get{phase: begun, fetch: j, floor: s.floor}
		return
	}
	dead := !s.live || s.setRunning() && a.change != fillDuringSet
	s.fetches[i] = fetch{phase: begun, epoch: s.epoch, dead: dead}
	s.joinable = int8(i) + 1
	s.gets[i] = get{phase: begun, fetch: int8(i), floor: s.floor}
}

// finishFetch evicts what the read has shown to be another version, returns to all who wait, and stores if it may.
func (a algorithm) finishFetch(s *state, i int) {
	f := s.fetches[i]
	s.fetches[i] = fetch{phase: done}
	if a.change != noEviction {
		if s.entry.there && s.entry.op != f.op {
			s.entry = entry{}
		}
		s.killOtherSets(f.op)
	}
	if s.joinable == int8(i)+1 {
		s.joinable = 0
	}
	for k := range s.gets {
		if g := s.gets[k]; g.phase == begun && g.fetch == int8(i) {
			s.gets[k] = get{phase: done}
			s.returns(f.upTo, g.floor)
		}
	}
	found := f.op != noOp && f.op != opDelete && (!a.neverKept(f.op) || a.change == keepsNever)
	if found && !f.dead && a.current(s, f.epoch) && s.live {
		s.entry = entry{there: true, op: f.op, epoch: s.epoch}
	}
}

// returns is a Get, which had to return floor or newer, returning commit.
func (s *state) returns(commit, floor int8) {
	if commit < floor && s.broken.floor == 0 {
		s.broken.commit, s.broken.floor = commit, floor
	}
	s.floor = max(s.floor, commit)
}

// killOtherSets keeps the Sets under way that did not write version o from storing.
func (s *state) killOtherSets(o op) {
	for i := range s.sets {
		if s.sets[i].running() && o != setOp(i) {
			s.sets[i].dead = true
		}
	}
}

// nextSet is the next step of a Set of L.
func (a algorithm) nextSet(s *state, i int, emit func(string, state)) {
	n := *s
	switch s.sets[i].phase {
	case idle:
		if i == 0 || s.sets[i-1].phase != idle {
			a.startSet(&n, i)
			emit(setSteps[i][0], n)
		}
	case begun:
		n.sets[i].phase = committed
		a.commit(&n, setOp(i), a.localNow)
		emit(setSteps[i][1], n)
		if a.givesUp && i == a.sets-1 {
			n = *s
			a.giveUpSet(&n, i)
			emit(setSteps[i][3], n)
		}
	case committed:
		a.finishSet(&n, i)
		emit(setSteps[i][2], n)
	case gaveUp:
		n.sets[i].phase = committedLate
		a.commit(&n, setOp(i), a.localNow)
		emit(setSteps[i][4], n)
	}
}

// startSet registers a pending change before anything is sent. Of Sets that overlap none stores, because nobody on the node
// knows which one commits last. The entry stays until the Set ends.
func (a algorithm) startSet(s *state, i int) {
	overlaps := false
	if a.change != noContention {
		overlaps = s.setRunning()
		s.killOtherSets(noOp)
	}
	a.kill(s)
	s.sets[i] = set{phase: begun, dead: overlaps || !s.live, epoch: s.epoch}
	if !a.localNow {
		s.pending |= setOp(i).bit()
	}
}

// giveUpSet leaves the pending change there for one flush: the commit may still come, and later than that a pulse finds it.
func (a algorithm) giveUpSet(s *state, i int) {
	a.kill(s)
	s.entry = entry{}
	s.sets[i] = set{phase: gaveUp}
	if a.change == giveUpForgets {
		s.pending = s.pending.without(setOp(i).bit())
	}
}

// finishSet is the reply to a Set: it drops the entry, and stores its own value if it may.
func (a algorithm) finishSet(s *state, i int) {
	w := s.sets[i]
	s.sets[i] = set{phase: done}
	if a.change != noKillAtEnd {
		a.kill(s)
	}
	s.entry = entry{}
	if !w.dead && w.epoch == s.epoch && s.live && !a.neverKept(setOp(i)) {
		s.entry = entry{there: true, op: setOp(i), epoch: s.epoch}
	}
	s.floor = max(s.floor, s.at[setOp(i)])
}
