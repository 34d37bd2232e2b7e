package window

var flushSteps = [2][4]string{
	{"L flushes", "L flush halfway", "L flush commits", "L flush fails"},
	{"R flushes", "R flush halfway", "R flush commits", "R flush fails"},
}

// nextFlush is the next step of a flush of x.
func (a algorithm) nextFlush(s *state, x node, emit func(string, state)) {
	switch s.flushes[x].stage {
	case notFlushing:
		a.startFlush(s, x, emit)
	case started:
		a.flushOn(s, x, emit)
		a.failFlush(s, x, emit)
	case halfway:
		a.finishFlush(s, x, emit)
		a.failFlush(s, x, emit)
	}
}

// startFlush takes the flush's lock and its snapshot. A node flushes while it has pending changes; L's pulse also flushes
// whatever there is. Beside another flush it does nothing and settles nothing.
func (a algorithm) startFlush(s *state, x node, emit func(string, state)) {
	pulses := x == nodeL && s.log != 0 && a.change != noPulse
	if a.stuck || s.pending&x.own() == 0 && !pulses || x == nodeR && s.rDead {
		return
	}
	if s.flushes[1-x].stage != notFlushing && a.change != skipLocked && a.change != skipReturning {
		if a.change == busySettles {
			n := *s
			n.pending = n.pending.without(a.acknowledged(s, x))
			if n != *s {
				emit(flushSteps[x][3], n)
			}
		}
		return
	}
	n := *s
	f := &n.flushes[x]
	*f = flush{stage: started, snapshot: s.log, acknowledged: a.acknowledged(s, x)}
	if a.change == ownRows {
		f.snapshot &= x.own()
	}
	if f.snapshot|f.acknowledged == 0 && a.change != ackless {
		return // it would drain nothing and take no pending change off
	}
	emit(flushSteps[x][0], n)
}

// acknowledged returns x's pending changes whose writes have been answered or have given up. A flush that begins now publishes
// those that are committed; what commits after a write gave up a pulse publishes.
func (a algorithm) acknowledged(s *state, x node) ops {
	acknowledged := s.pending & x.own()
	for i, w := range s.sets {
		if w.running() {
			acknowledged = acknowledged.without(setOp(i).bit())
		}
	}
	return acknowledged
}

// nextPulse is L's pulse where flushes fail: it forgets, and from then on serves nothing older than it has found.
func (a algorithm) nextPulse(s *state, emit func(string, state)) {
	if !a.stuck || !s.live || s.log == 0 || s.forgets == maxForgets {
		return
	}
	n := *s
	n.forgets++
	n.floor = max(n.floor, n.commits)
	if a.change != noForget {
		n.epoch++
		n.joinable = 0
	}
	emit("L's pulse can't flush and forgets", n)
}

// flushOn is the rest of a flush: one statement deletes the rows of its snapshot that no other has drained meanwhile,
// and publishes them. The changes of the algorithm stop halfway.
func (a algorithm) flushOn(s *state, x node, emit func(string, state)) {
	n := *s
	rows := s.flushes[x].snapshot & s.log
	held := rows
	switch a.change {
	case skipLocked, skipReturning:
		held = rows.without(s.flushes[1-x].held)
	case splitDelete, notifyFirst:
		a.notify(&n, rows)
	case deleteFirst:
		n.log = n.log.without(rows)
	default:
		n.log = n.log.without(rows)
		a.notify(&n, rows)
		a.flushed(n, x, s.flushes[x].acknowledged, emit)
		return
	}
	n.flushes[x].stage, n.flushes[x].held = halfway, held
	emit(flushSteps[x][1], n)
}

// finishFlush is the second half of what changes of the algorithm split in two.
func (a algorithm) finishFlush(s *state, x node, emit func(string, state)) {
	n, held, settled := *s, s.flushes[x].held, s.flushes[x].acknowledged
	switch a.change {
	case skipLocked:
		n.log = n.log.without(held)
		a.notify(&n, held)
	case skipReturning:
		n.log = n.log.without(held)
		a.notify(&n, held)
		settled = held & x.own()
	case splitDelete:
		n.log = 0
	case notifyFirst:
		n.log = n.log.without(held)
	case deleteFirst:
		a.notify(&n, held)
	}
	a.flushed(n, x, settled, emit)
}

// flushed is the reply to a flush: its node takes the pending changes in settled off.
func (a algorithm) flushed(s state, x node, settled ops, emit func(string, state)) {
	s.flushes[x] = flush{}
	if a.change == ackless {
		settled = x.own()
	}
	s.pending = s.pending.without(settled)
	emit(flushSteps[x][2], s)
}

// failFlush is a flush that fails: by itself, as often as the scenario says, or because its node has died.
func (a algorithm) failFlush(s *state, x node, emit func(string, state)) {
	byItself := s.aborts < a.aborts
	if !byItself && (x != nodeR || !s.rDead) {
		return
	}
	n := *s
	if byItself {
		n.aborts++
	}
	n.flushes[x] = flush{}
	if a.change == abortForgets {
		n.pending = n.pending.without(s.flushes[x].acknowledged)
	}
	emit(flushSteps[x][3], n)
}
