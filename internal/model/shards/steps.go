package shards

import "fmt"

// writer is node 0's write: it begins, finds out where it is to be done, is done on each of those servers, and returns.
func (a algorithm) writer(s *state, emit func(string, state)) {
	w := s.write
	switch {
	case w.version == 0:
		if s.begun == writes {
			return
		}
		for _, set := range []bool{true, false} {
			n := *s
			n.begun++
			n.write = write{version: n.begun, set: set, todo: -1}
			emit(fmt.Sprintf("write %d begins, set: %v", n.begun, set), n)
		}
	case w.todo < 0:
		n := *s
		if !a.where(&n) {
			return
		}
		emit(fmt.Sprintf("it goes by epoch %d", n.write.epoch), n)
	case w.todo > 0:
		for on := range int8(servers) {
			if w.todo&(1<<on) == 0 {
				continue
			}
			n := *s
			n.write.todo &^= 1 << on
			n.write.done |= 1 << on
			if w.set {
				a.change(&n, on, w.version)
			} else {
				a.change(&n, on, 0)
			}
			emit(fmt.Sprintf("it is done on %c", 'A'+on), n)
		}
	default:
		n := *s
		from, to := places(w.epoch)
		sure := a.holds(s, 0, from) && a.holds(s, 0, to)
		switch {
		case a.missing == noAsk || sure && w.epoch == s.nodes[0].epoch:
			for i := range n.readers {
				if r := &n.readers[i]; r.load >= looked && w.done&(1<<r.on) == 0 {
					r.missed = true
				}
			}
			n.finished, n.write = w.version, write{}
			emit("it returns", n)
		case w.epoch != s.nodes[0].epoch: // a delete is allowed: the value may be gone at once, as after an eviction
			n.write.set, n.write.todo = false, -1
			emit("its epoch has ended, it goes on as a delete", n)
		}
	}
}

// where decides where the write is done.
func (a algorithm) where(s *state) bool {
	w := &s.write
	from, to := places(s.nodes[0].epoch)
	if !a.holds(s, 0, from) || !a.holds(s, 0, to) {
		return false
	}
	w.epoch, w.todo = s.nodes[0].epoch, 1<<from|1<<to
	if from != to {
		w.set = false
		switch a.missing {
		case oldOnly:
			w.todo = 1 << from
		case newOnly:
			w.todo = 1 << to
		}
	}
	return true
}

// read is a Get of node i+1: it asks a server, and returns or asks anew.
func (a algorithm) read(s *state, i int, emit func(string, state)) {
	n := *s
	r := &n.readers[i]
	if !r.reading {
		on, ok := a.settled(s, i+1)
		if !ok {
			return
		}
		r.reading, r.by, r.from, r.atLeast = true, s.nodes[i+1].epoch, on, max(s.finished, r.last)
		emit(fmt.Sprintf("node %d: Get asks %c", i+1, 'A'+on), n)
		return
	}
	value := s.value[r.from]
	says := "Get asks anew"
	if a.missing == keepsGet || r.by == s.nodes[i+1].epoch && a.holds(s, i+1, r.from) {
		says = fmt.Sprintf("Get returns %d", value)
		if value != 0 && value < r.atLeast {
			n.wrong = value
		}
		r.last = max(r.last, value)
	}
	r.reading, r.by, r.from, r.atLeast = false, 0, 0, 0
	emit(fmt.Sprintf("node %d: %s", i+1, says), n)
}

// load is a load of node i+1: it begins, looks, calls its loader, and stores.
func (a algorithm) load(s *state, i int, emit func(string, state)) {
	n := *s
	r := &n.readers[i]
	switch r.load {
	case idle:
		on, ok := a.settled(s, i+1)
		if !ok || s.loads == a.loads {
			return
		}
		n.loads++
		r.load, r.on, r.epoch = arrived, on, s.nodes[i+1].epoch
		emit(fmt.Sprintf("node %d: a load begins on %c", i+1, 'A'+on), n)
	case arrived:
		r.load, r.rev, r.inc, r.missed = looked, s.rev[r.on], s.inc[r.on], false
		emit(fmt.Sprintf("node %d: the load looks", i+1), n)
	case looked:
		if !a.asksOnce() && (r.epoch != s.nodes[i+1].epoch || !a.holds(s, i+1, r.on)) {
			r.load, r.on, r.epoch, r.rev, r.inc, r.missed = idle, 0, 0, 0, 0, false
			emit(fmt.Sprintf("node %d: the load has looked too late, it asks anew", i+1), n)
			return
		}
		r.load, r.value = loaded, s.begun
		emit(fmt.Sprintf("node %d: the loader reads %d", i+1, s.begun), n)
	case loaded:
		if r.rev == s.rev[r.on] && (r.inc == s.inc[r.on] || a.missing == noFence) {
			a.change(&n, r.on, r.value)
			if from, to := places(max(s.epoch[0], s.epoch[1])); from == to && from == r.on && r.missed {
				n.wrong = -1
			}
		} else if s.value[r.on] != 0 {
			r.value = s.value[r.on] // somebody else's is newer than the load: callers get that
		}
		if a.missing == keepsLoad || r.epoch == s.nodes[i+1].epoch && a.holds(s, i+1, r.on) {
			r.last = max(r.last, r.value)
		} // else it counts for nothing, the caller asks anew
		r.load, r.on, r.epoch, r.rev, r.inc, r.missed, r.value = idle, 0, 0, 0, 0, false, 0
		emit(fmt.Sprintf("node %d: the load stores", i+1), n)
	}
}

// asksOnce says whether a load may call its loader although it has looked too late. It may with keepsGet and keepsLoad too: here,
// where one node writes and changes the source first, only such a load leaves behind a row that shows that a Get or a load whose
// epoch has ended must ask anew. With several writers a Set that is stuck would leave one too.
func (a algorithm) asksOnce() bool {
	return a.missing == asksOnce || a.missing == keepsGet || a.missing == keepsLoad
}

// What Move does, in this order. Each step is recorded at the old server first.
const (
	fence int8 = iota
	purge
	recordFirst
	recordSecond
	wait
	settleFirst
	settleSecond
	sweep
)

// move is the next step of Move, and the death of the process that runs it.
func (a algorithm) move(s *state, emit func(string, state)) {
	if s.base == 2*a.moves {
		return
	}
	from := s.base / 2 % 2
	to := 1 - from
	n := *s
	n.at++
	at, step := s.at, ""
	if a.missing == lateFence && at <= purge {
		at = purge - at // the two change places
	}
	switch at {
	case fence:
		step = "Move fences the loads"
		n.inc[to]++
	case purge:
		step = "Move removes the rows"
		if a.missing != noPurge {
			n.remove(to)
		}
	case recordFirst, recordSecond:
		on := from
		if at == recordSecond {
			on = to
		}
		step = fmt.Sprintf("Move: the key moves, on %c", 'A'+on)
		if a.missing != noMoving && !(a.missing == someServer && on == from) {
			n.epoch[on] = max(n.epoch[on], s.base+1)
		}
	case wait:
		step = "Move has waited"
		if a.missing != noWait && a.missing != someServer {
			n.endLeases(s.base + 1)
		}
	case settleFirst, settleSecond:
		on := from
		if at == settleSecond {
			on = to
		}
		step = fmt.Sprintf("Move: the key has moved, on %c", 'A'+on)
		n.epoch[on] = max(n.epoch[on], s.base+2)
	case sweep:
		step = "Move sweeps"
		n.remove(from)
		n.base, n.at = s.base+2, fence
	}
	emit(step, n)
	if s.at > recordFirst && s.at < sweep && !s.died && a.crashes {
		n = *s
		n.died, n.at = true, fence
		emit("who moves dies, another goes on", n)
	}
}

// remove removes the row from a server.
func (s *state) remove(on int8) {
	if s.value[on] != 0 {
		s.value[on] = 0
		s.rev[on]++
	}
}

// endLeases ends the leases that were granted before a server recorded the epoch.
func (s *state) endLeases(epoch int8) {
	for i := range s.nodes {
		for on := range s.nodes[i].lease {
			if s.nodes[i].lease[on] <= epoch {
				s.nodes[i].lease[on] = 0
			}
		}
	}
}
