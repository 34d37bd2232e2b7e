package window

var remoteSteps = [2][3]string{
	{"R sets A", "R sets A inline", "R logs A"},
	{"R sets B", "R sets B inline"},
}

func (a algorithm) Start() state { return start() }

func (a algorithm) Next(s *state, emit func(string, state)) {
	reach := func(step string, n state) {
		n.forget()
		emit(step, n)
	}
	if s.queued > 0 && s.listening {
		n := *s
		a.apply(&n)
		reach("L applies", n)
	}
	for i := range a.gets {
		a.nextGet(s, i, reach)
	}
	for i := range a.sets {
		a.nextSet(s, i, reach)
	}
	if !s.rDead {
		a.nextRemote(s, reach)
	}
	a.nextFlush(s, nodeL, reach)
	a.nextFlush(s, nodeR, reach)
	a.nextPulse(s, reach)
	if !s.janitor && s.row == opDelete {
		n := *s
		n.janitor, n.row = true, noOp
		reach("janitor", n)
	}
	if a.gap {
		a.nextGap(s, reach)
	}
}

// nextRemote is what R does, as long as it lives.
func (a algorithm) nextRemote(s *state, emit func(string, state)) {
	for i := range a.remotes {
		switch {
		case s.remotes[i] == remoteHalf:
			a.finishRemoteSet(s, emit)
		case s.remotes[i] == remoteIdle && (i == 0 || s.remotes[i-1] == remoteDone):
			a.remoteSet(s, i, emit)
		}
	}
	if !s.deleted {
		n := *s
		n.deleted = true
		a.remoteWrite(n, opDelete, "R deletes", "R deletes inline", emit)
	}
	if s.remotes[0] != remoteIdle || s.deleted {
		n := *s
		n.rDead = true
		n.pending = n.pending.without(ofR)
		emit("R dies", n)
	}
}

func (a algorithm) remoteSet(s *state, i int, emit func(string, state)) {
	n := *s
	n.remotes[i] = remoteDone
	switch {
	case i == 0 && a.change == logBefore:
		n.remotes[i] = remoteHalf
		n.log |= opRemoteA.bit()
		n.pending |= opRemoteA.bit()
		emit(remoteSteps[i][2], n)
		return
	case i == 0 && a.change == logAfter && s.row != noOp:
		n.remotes[i] = remoteHalf
	}
	a.remoteWrite(n, remoteOp(i), remoteSteps[i][0], remoteSteps[i][1], emit)
}

// finishRemoteSet is the other half of the first Set, where the write and the log row commit apart.
func (a algorithm) finishRemoteSet(s *state, emit func(string, state)) {
	n := *s
	n.remotes[0] = remoteDone
	if a.change == logBefore {
		a.commit(&n, opRemoteA, false)
		emit(remoteSteps[0][0], n)
		return
	}
	n.log |= opRemoteA.bit()
	emit(remoteSteps[0][2], n)
}

// remoteWrite is a write of R and its reply, by way of the log or, where the scenario has it, publishing inline.
func (a algorithm) remoteWrite(s state, o op, logged, inline string, emit func(string, state)) {
	n := s
	n.pending |= o.bit()
	a.commit(&n, o, false)
	emit(logged, n)
	if a.inline {
		n = s
		a.commit(&n, o, true)
		emit(inline, n)
	}
}

// nextGap loses L's listener and brings it back: LISTEN commits, then a probe comes back and L is live.
func (a algorithm) nextGap(s *state, emit func(string, state)) {
	n := *s
	early := a.change == liveBeforeListen
	switch {
	case s.gap == noGap:
		n.gap, n.listening, n.live = lost, false, false
		n.queue, n.queued = [maxQueue]ops{}, 0
		n.epoch++
		if a.change != noKill {
			n.joinable = 0
		}
		if a.change == gapForgets {
			n.pending = n.pending.without(ofL)
		}
		emit("L's listener is lost", n)
	case s.gap == lost && !early, s.gap == halfBack && early:
		n.gap++
		n.listening = true
		emit("L listens", n)
	case s.gap == lost, s.gap == halfBack:
		n.gap++
		n.live, n.joinable = true, 0
		if a.change != noEpoch {
			n.epoch++
		}
		n.floor = max(n.floor, s.commits) // nothing older is served from here on
		emit("L is live", n)
	}
}
