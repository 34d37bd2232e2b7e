package immediate

// The names of the steps, which a counterexample consists of.
var (
	getSteps = [maxGets][3]string{
		{"get0", "get0 reads", "get0 finishes"},
		{"get1", "get1 reads", "get1 finishes"},
	}
	setSteps = [maxSets][5]string{
		{"set0", "set0 commits", "set0 finishes", "set0 gives up", "set0 commits late"},
		{"set1", "set1 commits", "set1 finishes", "set1 gives up", "set1 commits late"},
	}
	remoteSteps = [maxRemotes]string{"remote set0", "remote set1"}
)

func (a algorithm) Start() state { return start() }

func (a algorithm) Next(s *state, emit func(string, state)) {
	if s.queued > 0 && s.listening {
		n := *s
		a.apply(&n)
		emit("apply", n)
	}
	for i := range a.gets {
		a.nextGet(s, i, emit)
	}
	for i := range a.sets {
		a.nextSet(s, i, emit)
	}
	a.nextRemote(s, emit)
	a.nextGap(s, emit)
}

// nextGet is the next step of a Get or of its fetch. Gets start in the order of their numbers: as they are all alike, other
// orders differ in the numbers only.
func (a algorithm) nextGet(s *state, i int, emit func(string, state)) {
	n := *s
	if s.gets[i].phase == idle && (i == 0 || s.gets[i-1].phase != idle) {
		a.startGet(&n, i)
		emit(getSteps[i][0], n)
	}
	switch n = *s; s.fetches[i].phase {
	case begun:
		f := &n.fetches[i]
		f.phase, f.version, f.commit, f.found = read, s.row.version, s.row.commit, s.row.live()
		if !s.row.there {
			f.version = noVersion
		}
		emit(getSteps[i][1], n)
	case read:
		a.finishFetch(&n, i)
		emit(getSteps[i][2], n)
	}
}

// startGet hits, joins a fetch of this epoch, or begins one.
func (a algorithm) startGet(s *state, i int) {
	floor := s.floor()
	if a.servable(s) {
		s.gets[i].phase = done
		s.returns(s.entry.commit, floor)
		return
	}
	if j := s.joinable - 1; j >= 0 && s.fetches[j].epoch == s.epoch && s.fetches[j].phase != done {
		s.gets[i] = get{phase: begun, fetch: j, floor: floor}
		return
	}
	dead := !s.live || s.setRunning() && a.change != fillDuringSet
	s.fetches[i] = fetch{phase: begun, epoch: s.epoch, dead: dead}
	s.joinable = int8(i) + 1
	s.gets[i] = get{phase: begun, fetch: int8(i), floor: floor}
}

// finishFetch evicts what the read has shown to be another version, returns to all who wait, and stores if it may.
func (a algorithm) finishFetch(s *state, i int) {
	f := &s.fetches[i]
	f.phase = done
	if a.change != noEviction {
		if s.entry.there && s.entry.version != f.version {
			s.entry = entry{}
		}
		s.killOtherSets(f.version)
	}
	if s.joinable == int8(i)+1 {
		s.joinable = 0
	}
	for k := range s.gets {
		if g := &s.gets[k]; g.phase == begun && g.fetch == int8(i) {
			g.phase = done
			s.returns(f.commit, g.floor)
		}
	}
	if f.found && !f.dead && a.current(s, f.epoch) && s.live {
		s.entry = entry{there: true, version: f.version, commit: f.commit, epoch: s.epoch}
	}
}

// nextSet is the next step of a Set of the node.
func (a algorithm) nextSet(s *state, i int, emit func(string, state)) {
	n, version := *s, localVersion+int8(i)
	w := &n.sets[i]
	switch w.phase {
	case idle:
		if i == 0 || s.sets[i-1].phase != idle {
			a.startSet(&n, i)
			emit(setSteps[i][0], n)
		}
	case begun:
		a.commitRow(&n, version, false)
		w.phase, w.commit = committed, n.commits
		emit(setSteps[i][1], n)
		if i == a.sets-1 {
			n = *s
			a.kill(&n)
			n.entry = entry{}
			n.sets[i].phase = gaveUp
			emit(setSteps[i][3], n)
		}
	case committed:
		a.finishSet(&n, i)
		emit(setSteps[i][2], n)
	case gaveUp:
		a.commitRow(&n, version, false)
		w.phase = committedLate
		emit(setSteps[i][4], n)
	}
}

// startSet begins a Set. Of Sets that overlap none stores, because nobody on the node knows which one commits last. The entry
// stays until the Set ends.
func (a algorithm) startSet(s *state, i int) {
	overlaps := false
	if a.change != noContention {
		overlaps = s.setRunning()
		s.killOtherSets(noVersion)
	}
	a.kill(s)
	s.sets[i] = set{phase: begun, dead: overlaps || !s.live, epoch: s.epoch}
}

// finishSet is the reply to a Set: it drops the entry, and stores its own value if it may.
func (a algorithm) finishSet(s *state, i int) {
	w := &s.sets[i]
	w.phase = done
	if a.change != noKillAtEnd {
		a.kill(s)
	}
	s.entry = entry{}
	if !w.dead && w.epoch == s.epoch && s.live {
		s.entry = entry{there: true, version: localVersion + int8(i), commit: w.commit, epoch: s.epoch}
	}
	s.set = max(s.set, w.commit)
}

// nextRemote is what others do to the row.
func (a algorithm) nextRemote(s *state, emit func(string, state)) {
	for i := range a.remotes {
		if s.remotes[i] || i > 0 && !s.remotes[i-1] {
			continue
		}
		n, version := *s, remoteVersion+int8(i)
		if a.change == ordered { // versions count up from 1 for as long as the row lives
			version = 1
			if s.row.live() {
				version = s.row.version + 1
			}
		}
		n.remotes[i] = true
		a.commitRow(&n, version, false)
		emit(remoteSteps[i], n)
	}
	if !s.deleted {
		n := *s
		n.deleted = true
		a.deleteRow(&n)
		emit("remote delete", n)
	}
	if !s.janitor && s.row.there && s.row.tombstone {
		n := *s
		n.janitor, n.row.there = true, false
		emit("janitor", n)
	}
}

// deleteRow leaves a tombstone with a version of its own. Where versions are ordered, the row just goes.
func (a algorithm) deleteRow(s *state) {
	if a.change != ordered {
		a.commitRow(s, deleteVersion, true)
		return
	}
	if s.row.there {
		s.commits++
		s.row.there, s.row.commit = false, s.commits
		s.notify(s.row.version)
	}
}

// nextGap loses the listener and brings it back: LISTEN commits, then the node learns of it. With the change liveBeforeListen
// these two change places.
func (a algorithm) nextGap(s *state, emit func(string, state)) {
	n := *s
	early := a.change == liveBeforeListen
	switch {
	case s.gap == noGap:
		n.gap, n.listening, n.live = lost, false, false
		n.queue, n.queued = [maxQueue]note{}, 0
		n.epoch++
		if a.change != noKill {
			n.joinable = 0
		}
		emit("listener lost", n)
	case s.gap == lost && !early, s.gap == halfBack && early:
		n.gap++
		n.listening = true
		emit("listen", n)
	case s.gap == lost, s.gap == halfBack:
		n.gap++
		n.live, n.atLive = true, s.commits
		if a.change != noEpoch {
			n.epoch++
		}
		if !early {
			n.joinable = 0
		}
		emit("live", n)
	}
}
