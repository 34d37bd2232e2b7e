// Package unnotified is a model of a node that receives no notifications: which of its changes it takes for published by others.
// Its test walks through everything that can happen, in every order, and then once more with each rule taken away, to see that
// it is needed.
//
// Time goes in ticks. A, which is unnotified, makes two changes. A change is in the log from its commit on, and A learns of the
// commit later. Others leave changes in the log too, and may flush it at any time. When a change is due A asks for the age of the
// oldest change in the log; the question and the answer are under way for a tick at most each. Then A flushes, or drops what it
// takes for published.
//
// What is checked: what A has dropped is not in the log, and no change of A's is in the log for longer than a bound.
//
// What each rule prevents, with the shortest way that the walk finds, is printed by go test -v:
//
//   - The age counts from when A asked, not from when it is answered. Else A drops what came into the log meanwhile.
//   - A drops only what it knows to be committed. Else it drops what is committed later.
//   - A drops only what was acknowledged before the oldest change was made. Else it drops that one.
//   - A flushes when the oldest change is older than others would let it become. Else nobody does where there are none.
package unnotified

const (
	window   = 2                           // ticks after which a change is due
	patience = 3                           // how old the oldest change must be for A to flush
	delay    = 1                           // of the question, and of the answer, at most
	bound    = window + patience + 4*delay // ticks in which A's change is published
)

// none is the age of what is not there.
const none = -1

// stage is how far a change of A's has come.
type stage int8

const (
	unwritten stage = iota
	committed
	pending // and acknowledged
	dropped
)

type change struct {
	stage stage
	inLog bool
	age   int8 // since the commit
	acked int8 // since A learned of it
}

type phase int8

const (
	idle phase = iota
	asking
	answering
)

type state struct {
	changes [2]change
	other   int8 // the age of the oldest change of others in the log
	phase   phase
	asked   int8 // ticks since A asked
	here    int8 // ticks in this phase
	oldest  int8 // what the answer says
}

// rule is one that can be taken away.
type rule int

const (
	nothing    rule = iota
	fromAnswer      // the age counts from the answer
	unknown         // what is not acknowledged is dropped too
	asOld           // what was acknowledged when the oldest change was made is dropped too
	neverFlush      // A leaves the log to others
)

type algorithm struct{ missing rule }

func (a algorithm) Start() state { return state{other: none, oldest: none} }

func (a algorithm) Next(s *state, emit func(string, state)) {
	for i := range s.changes {
		n := *s
		switch c := &n.changes[i]; c.stage {
		case unwritten:
			*c = change{stage: committed, inLog: true}
			emit("A's change is committed", n)
		case committed:
			c.stage = pending
			emit("A learns of it", n)
		}
	}
	if s.other == none {
		n := *s
		n.other = 0
		emit("another writes", n)
	}
	n := *s
	n.flush()
	emit("another flushes", n)

	due := s.phase == idle && (s.changes[0].due() || s.changes[1].due())
	if due {
		n := *s
		n.phase, n.asked, n.here = asking, 0, 0
		emit("A asks", n)
	}
	switch n := *s; s.phase {
	case asking:
		n.phase, n.here, n.oldest = answering, 0, s.other
		for _, c := range s.changes {
			if c.inLog {
				n.oldest = max(n.oldest, c.age)
			}
		}
		emit("the server answers", n)
	case answering:
		a.act(&n)
		n.phase, n.asked, n.here, n.oldest = idle, 0, 0, none
		emit("A acts", n)
	}
	// Time stands still while A has to ask, or a question or an answer has to arrive.
	if !due && s.here < delay {
		n := *s
		n.tick()
		emit("a tick", n)
	}
}

// act is what A does with the answer: it flushes if the oldest change is too old, and drops what it takes for published.
func (a algorithm) act(s *state) {
	flushes := s.oldest >= patience && a.missing != neverFlush
	if flushes {
		s.flush()
	}
	before := s.asked + max(s.oldest, 0)
	if a.missing == fromAnswer {
		before = max(s.oldest, 0)
	}
	for i := range s.changes {
		c := &s.changes[i]
		switch {
		case c.stage == pending && (flushes || c.acked > before || a.missing == asOld && c.acked == before),
			c.stage == committed && a.missing == unknown:
			c.stage = dropped
		}
	}
}

func (c *change) due() bool { return c.stage == pending && c.acked >= window }

func (s *state) flush() {
	s.other = none
	for i := range s.changes {
		s.changes[i].inLog = false
	}
}

func (s *state) tick() {
	if s.phase != idle {
		s.asked, s.here = s.asked+1, s.here+1
	}
	if s.other != none {
		s.other = min(s.other+1, bound+1)
	}
	for i := range s.changes {
		c := &s.changes[i]
		if c.stage == committed || c.stage == pending {
			c.age = min(c.age+1, bound+1)
		}
		if c.stage == pending {
			c.acked = min(c.acked+1, bound+1)
		}
	}
}

func (a algorithm) Check(s *state) string {
	for _, c := range s.changes {
		switch {
		case c.stage == dropped && c.inLog:
			return "A has dropped what nobody has published"
		case c.stage == pending && c.inLog && c.acked > bound:
			return "what A has written is not published"
		}
	}
	return ""
}

func (a algorithm) CheckEnd(*state) string { return "" }
