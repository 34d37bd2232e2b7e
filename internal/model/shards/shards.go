// Package shards is a model of how a key moves from one server to another while nodes read, load and write it. Its test walks
// through everything that can happen, in every order, and then once more with each rule taken away, to see that it is needed.
//
// Two servers, A and B, and one key, which moves from A to B and back. What a server does for itself is one step each: that its
// Cache is coherent is what the other models are about. Node 0 writes, one write after the other: each changes the source, then
// sets or deletes the key. Nodes 1 and 2 read and load. Each polls the servers when it likes; one of them crashes once. Who moves
// the key may die and be followed by another, who goes on.
//
// Time is what Move waits for: when it has waited, no node has a lease any more that was granted before the step was recorded.
// What a load returns that found the key held nowhere is not modelled: it is not stored, and the next Get may be older, as where a
// Cache's database is down. That an error leaves the outcome of a write unknown is not modelled: a node that crashes has sent nothing more.
//
// What is checked: what a read that begins now returns is no older than the last write that has finished, nor than what the
// same node has returned before; and no load stores, where the key is, over a write that finished after it began.
//
// What each rule prevents, with the shortest way that the walk finds, is printed by go test -v.
package shards

import "fmt"

// rule is one that can be taken away.
type rule int

const (
	none       rule = iota
	noWait          // Move does not wait between its steps
	noMoving        // Move goes from one place to the other in one step
	noAsk           // a write is acknowledged without being sure that its epoch still holds
	keepsLoad       // a load returns what it has, also where its epoch has ended
	keepsGet        // so does a Get
	noLease         // nodes use what they have seen last, however long ago
	oldOnly         // while the key moves a write goes to the old place only
	newOnly         // while the key moves a write goes to the new place only
	readsOld        // while the key moves nodes read the old place
	readsNew        // while the key moves nodes read the new place
	noPurge         // the new place keeps what it had of the key
	noFence         // loads that have begun there can still store
	lateFence       // the rows go before the loads are fenced
	noTomb          // a write leaves nothing where it deletes
	someServer      // Move records its last step where the one before was not recorded everywhere
)

const (
	servers = 2
	writes  = 4 // versions; the first two were before
)

type node struct {
	epoch int8          // that it follows; -1: it has seen none
	lease [servers]int8 // the epoch that the server had when it was asked, and one; 0: none
}

// write is the one of node 0.
type write struct {
	version int8 // 0: none is under way
	set     bool
	epoch   int8 // by which it is done
	todo    int8 // a bit for each server that it is still to be done on; -1: where is not known yet
	done    int8 // a bit for each server that it has been done on
}

type loading int8

const (
	idle loading = iota
	arrived
	looked
	loaded
)

// reader is what node 1 or 2 does: a Get and a load, at the same time.
type reader struct {
	reading bool
	by      int8 // the epoch by which it does
	from    int8 // the server that it reads
	atLeast int8 // what must be returned, if anything is

	load     loading
	on       int8
	epoch    int8 // by which it began
	rev, inc int8 // what the load saw
	missed   bool // since then a write has finished that was not done on its server
	value    int8

	last int8 // the newest version that it has returned
}

type state struct {
	epoch [servers]int8 // recorded; even: A, B, A; odd: moving
	value [servers]int8 // version of the row; 0: none
	rev   [servers]int8 // changes with each change of the row
	inc   [servers]int8 // of the loads' fence

	begun, finished int8 // versions of writes
	nodes           [3]node
	write           write
	readers         [2]reader
	loads           int8

	at      int8 // what Move does next
	base    int8 // the even epoch that it began with
	died    bool // who moved, once
	crashed bool // a node, once
	wrong   int8
}

type algorithm struct {
	missing rule
	moves   int8
	loads   int8
	nodes   int // that read: 1 or 2
	crashes bool
	left    left // from when B had the key before
}

type left int

const (
	nothing left = iota
	row
	load
)

func (a algorithm) Start() state {
	s := state{value: [servers]int8{2, 0}, begun: 2, finished: 2}
	for i := range s.nodes {
		s.nodes[i].epoch = -1
	}
	switch a.left {
	case row:
		s.value[1] = 1
	case load:
		s.readers[0] = reader{load: loaded, on: 1, epoch: -2, value: 1}
	}
	return s
}

// places are where the key is at an epoch: both are the same unless it is moving.
func places(epoch int8) (from, to int8) {
	from = epoch / 2 % 2
	if epoch%2 == 0 {
		return from, from
	}
	return from, 1 - from
}

func (a algorithm) Next(s *state, emit func(string, state)) {
	a.move(s, emit)
	for i := range 1 + a.nodes {
		a.poll(s, i, emit)
	}
	a.writer(s, emit)
	for i := range a.nodes {
		a.read(s, i, emit)
		a.load(s, i, emit)
	}
	if !a.crashes || s.crashed {
		return
	}
	for i := range 1 + a.nodes {
		n := *s
		n.crashed = true
		n.nodes[i] = node{epoch: -1}
		if i == 0 {
			n.write = write{}
		} else {
			n.readers[i-1] = reader{}
		}
		emit(fmt.Sprintf("node %d crashes", i), n)
	}
}

// poll asks one server.
func (a algorithm) poll(s *state, i int, emit func(string, state)) {
	for on := range servers {
		n := *s
		nd := &n.nodes[i]
		nd.epoch = max(nd.epoch, s.epoch[on])
		nd.lease[on] = s.epoch[on] + 1
		if n != *s {
			emit(fmt.Sprintf("node %d asks %c", i, 'A'+on), n)
		}
	}
}

// holds says whether node i may use the server.
func (a algorithm) holds(s *state, i int, on int8) bool {
	return s.nodes[i].epoch >= 0 && (a.missing == noLease || s.nodes[i].lease[on] > 0)
}

// settled is the server that node i may ask for the key.
func (a algorithm) settled(s *state, i int) (on int8, ok bool) {
	from, to := places(s.nodes[i].epoch)
	if from != to {
		switch a.missing {
		case readsOld:
			to = from
		case readsNew:
			from = to
		}
	}
	return from, from == to && a.holds(s, i, from)
}

func (a algorithm) change(s *state, on, value int8) {
	s.value[on] = value
	if value != 0 || a.missing != noTomb {
		s.rev[on]++
	} else {
		s.rev[on] = 0
	}
}

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

func (a algorithm) Check(s *state) string {
	if s.wrong < 0 {
		return "a load has stored over a write that finished after it began"
	}
	if s.wrong != 0 {
		return fmt.Sprintf("a Get returned version %d, which is too old", s.wrong)
	}
	return ""
}

func (a algorithm) CheckEnd(*state) string { return "" }
