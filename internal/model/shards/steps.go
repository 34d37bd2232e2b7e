package shards

import "fmt"

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
		case w.epoch != s.nodes[0].epoch: // it counts as set and evicted at once
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

// What Move does, in this order.
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

func (a algorithm) move(s *state, emit func(string, state)) {
	if s.base == 2*a.moves {
		return
	}
	old := s.base / 2 % 2 // and the server at which each step is recorded first
	n := *s
	n.at++
	step := ""
	removes := func(on int8) {
		if s.value[on] != 0 {
			n.value[on] = 0
			n.rev[on]++
		}
	}
	first, second := s.at, s.at
	if a.missing == lateFence {
		first, second = 1-first, 1-second
	}
	switch {
	case s.at <= purge && first == fence:
		step = "Move fences the loads"
		n.inc[1-old]++
	case s.at <= purge && second == purge:
		step = "Move removes the rows"
		if a.missing != noPurge {
			removes(1 - old)
		}
	}
	record := func(on, epoch int8) { n.epoch[on] = max(n.epoch[on], epoch) }
	switch s.at {
	case recordFirst, recordSecond:
		on := old
		if s.at == recordSecond {
			on = 1 - old
		}
		step = fmt.Sprintf("Move: the key moves, on %c", 'A'+on)
		if a.missing != noMoving && !(a.missing == someServer && on == old) {
			record(on, s.base+1)
		}
	case wait:
		step = "Move has waited"
		if a.missing == noWait {
			break
		}
		for i := range n.nodes {
			for on := range n.nodes[i].lease {
				if n.nodes[i].lease[on] <= s.base+1 { // granted before the step was recorded
					n.nodes[i].lease[on] = 0
				}
			}
		}
		if a.missing == someServer {
			n.nodes = s.nodes
		}
	case settleFirst, settleSecond:
		on := old
		if s.at == settleSecond {
			on = 1 - old
		}
		step = fmt.Sprintf("Move: the key has moved, on %c", 'A'+on)
		record(on, s.base+2)
	case sweep:
		step = "Move sweeps"
		removes(old)
		n.base, n.at = s.base+2, fence
	}
	emit(step, n)
	if s.at > recordFirst && s.at < sweep && !s.died && a.crashes {
		n = *s
		n.died, n.at = true, fence
		emit("who moves dies, another goes on", n)
	}
}
