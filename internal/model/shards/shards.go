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
	asksOnce        // a load calls its loader without being sure that its epoch still held when it looked
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
	writes  = 4 // the last version that node 0 writes; versions 1 and 2 are from before the start
)

type node struct {
	epoch int8          // that it follows; -1: it has seen none
	lease [servers]int8 // 1 + the epoch that the server had when it was asked; 0: there is no lease
}

// write is the one of node 0.
type write struct {
	version int8 // 0: none is under way
	set     bool
	epoch   int8 // by which it is done
	todo    int8 // a bit for each server that it is still to be done on; -1: where is not known yet
	done    int8 // a bit for each server that it has been done on
}

// loading is how far a load has come.
type loading int8

const (
	idle loading = iota
	arrived
	looked
	loaded
)

// reader is what node 1 or 2 does: a Get (reading to atLeast) and a load (load to value), at the same time.
type reader struct {
	reading bool
	by      int8 // the epoch that the node followed when the Get began
	from    int8 // the server that it reads
	atLeast int8 // what must be returned, if anything is

	load     loading
	on       int8 // the server that it loads for
	epoch    int8 // that the node followed when the load began
	rev, inc int8 // what the load saw
	missed   bool // since it looked a write has finished that was not done on its server
	value    int8 // what the loader returned

	last int8 // the newest version that it has returned
}

type state struct {
	epoch [servers]int8 // recorded; even: A, B, A; odd: moving
	value [servers]int8 // version of the row; 0: none
	rev   [servers]int8 // changes with each change of the row
	inc   [servers]int8 // of the loads' fence

	begun, finished int8 // the versions of the last write that has begun and that has finished
	nodes           [3]node
	write           write
	readers         [2]reader
	loads           int8 // begun so far

	at      int8 // what Move does next
	base    int8 // the even epoch that it began with
	died    bool // who moved, once
	crashed bool // a node, once
	wrong   int8 // 0: nothing; -1: a load stored over a write; else the version that was too old
}

type algorithm struct {
	missing rule
	moves   int8 // how often the key moves
	loads   int8 // how many loads there are
	nodes   int  // that read: 1 or 2
	crashes bool
	left    left
}

// left is what is still on B from when it had the key before.
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

// holds says whether node i has a lease of the server.
func (a algorithm) holds(s *state, i int, on int8) bool {
	return s.nodes[i].epoch >= 0 && (a.missing == noLease || s.nodes[i].lease[on] > 0)
}

// settled is the server that node i may read the key from; not ok while the key moves.
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
