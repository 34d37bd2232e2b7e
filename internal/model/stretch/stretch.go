// Package stretch is a model of the window that stretches: who leads, and how long it may be silent. Its test walks through
// everything that can happen, in every order, and then once more with each rule taken away, to see that it is needed.
//
// Time goes in ticks, of which the configured window has two. A leads: it flushes once a window, and may double or halve the
// window at each flush. A message is under way for a tick at most. B has changes that A's flushes publish, and takes over when
// A has been silent for two to three windows. A may die. B may be leading too, at the start.
//
// What is checked: B takes over from nobody who flushes in time; what B has pending is published within a bound, also when A
// dies; and B leads no longer once it has heard A, whose id is lower.
//
// What each rule prevents, with the shortest way that the walk finds, is printed by go test -v:
//
//   - Silence is judged by the window that the last message says. Else B takes over from a leader that is only stretched.
//   - The message says the window until the next flush, not the last one. Else it is stretched when B does not know.
//   - A leader that is silent for longer is no leader. Else nobody publishes after it has died.
//   - Of two that lead, the one with the higher id steps down. Else both go on.
package stretch

const (
	window = 2                       // as configured, in ticks
	most   = 8                       // the longest that the window is stretched to
	delay  = 1                       // of a message, at most
	bound  = window + 3*most + delay // ticks in which B's change is published: a window, the longest patience, and a message
)

// none is the age of what is not there.
const none = -1

type state struct {
	dead, aLeads, bLeads bool

	current int8 // A's window
	since   int8 // ticks since A flushed

	message  int8 // the age of A's message
	says     int8 // the window in its head
	has      bool // B's change is in it
	heard    int8 // ticks since B received one
	judged   int8 // the window by which B judges A's silence
	patience int8 // how long A may be silent until B takes over

	pending int8 // the age of B's change

	tookEarly bool // B took over from a leader that flushes in time
	leadsOn   bool // B has heard A and still leads
}

// rule is one that can be taken away.
type rule int

const (
	nothing      rule = iota
	byConfigured      // B judges A's silence by the configured window
	saysLast          // a message says the window before it
	foreverLed        // A leads for ever, however long it is silent
	noStepDown        // B leads on when it hears A
)

type algorithm struct {
	missing rule
	both    bool // B leads too, at the start
}

func (a algorithm) Start() state {
	return state{aLeads: true, bLeads: a.both, current: window, message: none, heard: none, pending: none}
}

func (a algorithm) Next(s *state, emit func(string, state)) {
	flushes := s.aLeads && !s.dead && s.since >= s.current
	takesOver := s.pending >= window && (s.bLeads || s.heard == none && s.pending > most || s.heard != none && s.heard >= s.patience && a.missing != foreverLed)
	if flushes && s.message == none {
		for _, next := range []int8{s.current, min(2*s.current, most), max(s.current/2, window)} {
			n := *s
			n.message, n.says, n.since = 0, next, 0
			if a.missing == saysLast {
				n.says = s.current
			}
			n.current = next
			n.has = s.pending != none
			emit("A flushes", n)
		}
	}
	if s.message != none {
		for _, windows := range []int8{2, 3} { // the least and the most patience that a node draws
			n := *s
			n.heard, n.judged, n.message = 0, s.says, none
			if a.missing == byConfigured {
				n.judged = window
			}
			n.patience = windows * n.judged
			if s.has {
				n.pending = none
			}
			if n.bLeads = false; a.missing == noStepDown {
				n.bLeads = s.bLeads
			}
			n.leadsOn = n.bLeads
			emit("B hears A", n)
		}
	}
	if takesOver {
		n := *s
		n.bLeads, n.pending = true, none
		n.tookEarly = !s.bLeads && !s.dead && s.heard != none
		emit("B flushes", n)
	}
	if s.pending == none {
		n := *s
		n.pending = 0
		emit("B writes", n)
	}
	if !s.dead {
		n := *s
		n.dead = true
		emit("A dies", n)
	}
	// Time stands still while somebody has to flush, or a message has to arrive.
	if !flushes && !takesOver && s.message < delay {
		n := *s
		n.since = min(s.since+1, most)
		for _, age := range []*int8{&n.message, &n.heard, &n.pending} {
			if *age != none {
				*age = min(*age+1, bound+1)
			}
		}
		emit("a tick", n)
	}
}

func (a algorithm) Check(s *state) string {
	switch {
	case s.tookEarly:
		return "B takes over from a leader that flushes in time"
	case s.pending > bound:
		return "what B has written is not published"
	case s.leadsOn:
		return "B has heard A and still leads"
	}
	return ""
}

func (a algorithm) CheckEnd(*state) string { return "" }
