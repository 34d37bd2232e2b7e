// Package shards is a model of how a key moves from one server to another while nodes read, load and write it. Its test walks
// through everything that can happen, in every order, and then once more with each rule taken away, to see that it is needed.
//
// Two servers, A and B, and one key, which moves from A to B and back. What one server does by itself is a single step: that its
// Cache is coherent is what the other models show. Node 0 writes, one write after the other: each changes the source, then
// sets or deletes the key. Nodes 1 and 2 read and load. Each node may ask a server for its epoch at any time;
// one node crashes once. The process that moves the key may die, and another begins the same move anew.
//
// Time is what Move waits for: when it has waited, no node has a lease any more that was granted before the step was recorded.
// What a load returns that found the key held nowhere is not modelled: it is not stored, and the next Get may be older, as where a
// Cache's database is down. That an error leaves the outcome of a write unknown is not modelled: a node that crashes has sent
// nothing more.
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
	keepsGet        // a Get returns what it has, also where its epoch has ended
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

// write is the write of node 0 that is under way.
type write struct {
	version int8 // 0: none is under way
	set     bool
	epoch   int8 // by which it is done
	todo    int8 // a bit for each server that it is still to be done on; -1: it has not been decided where
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

// reader is what node 1 or 2 does: a Get (the fields reading to atLeast) and a load (the fields load to value), which may
// overlap.
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
	inc   [servers]int8 // the incarnation, which fences loads

	begun, finished int8 // the versions of the last write that has begun and that has finished
	nodes           [3]node
	write           write
	readers         [2]reader
	loads           int8 // begun so far

	at      int8 // what Move does next
	base    int8 // the even epoch that it began with
	died    bool // a process that moved the key, once
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

// places returns where the key is at an epoch: from and to are the same unless it is moving.
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

// poll is node i asking a server for its epoch, which gives it a lease.
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

// settled returns the server that node i may read the key from; not ok: the key moves, or node i has no lease.
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

// change writes the row on a server; the value 0 deletes it, which leaves a tombstone and so a new rev.
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
