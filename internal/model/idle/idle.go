// Package idle is a model of nodes that nobody reads through: what a node may serve after it has not pulsed for long. A pulse is
// the look into the change log by which a node knows that what is committed is being published. Its test walks through
// everything that can happen, in every order, and then once more with each rule taken away, to see that it is needed.
//
// Time goes in ticks of a second. A lost node leaves a change in the log and dies. A has the value from before in memory. While A
// is in use it pulses every two ticks; while it is idle it may pulse at any time. B may wake from being idle at any time, and
// publishes what is in the log. A message is under way for a tick at most.
//
// What is checked: A never serves what was overwritten for longer than a bound.
//
// What each rule prevents, with the shortest way that the walk finds, is printed by go test -v:
//
//   - A node that was idle forgets what it holds before it trusts a pulse. Else it serves the old value while B's message is under way.
//   - The pulses of an idle node are not trusted. Else it serves the old value after one of them, for the same reason.
package idle

const (
	every = 2     // ticks from one pulse to the next
	trust = 3     // ticks for which a pulse is trusted
	late  = 1     // ticks: whoever pulses publishes a change that is older
	delay = 1     // of a message, at most
	bound = 5     // ticks for which A may serve what was overwritten: every, a pulse's timeout, late, and delay
	long  = bound // ages beyond it are the same
)

// none is the age of what is not there.
const none = -1

type state struct {
	idle bool // A is not in use

	holds   bool // A has the old value in memory
	since   int8 // ticks since A pulsed and was trusted
	log     int8 // the age of the change in the log
	message int8 // the age of the message that publishes it
	change  int8 // the age of the change, wherever it is
}

// rule is one that can be taken away.
type rule int

const (
	nothing     rule = iota
	noForget         // A forgets nothing when it is used again
	idleTrusted      // the pulses of an idle A are trusted
)

type algorithm struct{ missing rule }

func (a algorithm) Start() state {
	return state{holds: true, log: none, message: none, change: none}
}

func (a algorithm) trusts(s *state) bool { return s.since < trust }

func (a algorithm) Next(s *state, emit func(string, state)) {
	if s.change == none {
		n := *s
		n.change, n.log = 0, 0
		emit("a lost node leaves a change", n)
	}
	if s.log != none {
		n := *s
		n.log, n.message = none, 0
		emit("B wakes and publishes", n)
	}
	if s.message != none {
		n := *s
		n.message, n.holds = none, false
		emit("A applies", n)
	}
	pulsed := *s
	if s.log > late {
		pulsed.log, pulsed.message = none, 0
	}
	switch {
	case s.idle && a.missing != idleTrusted:
		emit("A pulses, idle", pulsed)
	case s.idle:
		pulsed.since = 0
		emit("A pulses, idle, and trusts", pulsed)
	}
	if s.idle || s.since == every {
		pulsed.idle = false
		if s.idle && a.missing != noForget {
			pulsed.holds = false
		}
		pulsed.since = 0
		emit("A is in use and pulses", pulsed)
	}
	if !s.idle {
		n := *s
		n.idle = true
		emit("A is idle", n)
	}
	// Time stands still while a pulse or a message is due.
	if (s.idle || s.since < every) && s.message < delay {
		n := *s
		n.since = min(s.since+1, trust)
		for _, age := range []*int8{&n.log, &n.message, &n.change} {
			if *age != none {
				*age = min(*age+1, long+1)
			}
		}
		emit("a tick", n)
	}
}

func (a algorithm) Check(s *state) string {
	if s.holds && a.trusts(s) && s.change > bound {
		return "A serves what was overwritten long ago"
	}
	return ""
}

func (a algorithm) CheckEnd(*state) string { return "" }
