package window

import "fmt"

// Check looks for a Get that returned too old a commit, for a commit that will never be published, and for a stale entry
// that nothing will evict.
func (a algorithm) Check(s *state) string {
	if s.broken.floor > 0 {
		return fmt.Sprintf("a Get returned commit %d and had to return %d or newer", s.broken.commit, s.broken.floor)
	}
	if wrong := a.checkLog(s); wrong != "" {
		return wrong
	}
	return a.checkEntry(s)
}

// checkLog checks that every due commit is published, or followed by one that is, or in the log and owed.
func (a algorithm) checkLog(s *state) string {
	published := int8(0) // the newest commit that is
	for o := range numOps {
		if s.published.has(o) {
			published = max(published, s.at[o])
		}
	}
	underway := s.underway()
	for o := range numOps {
		switch {
		case !s.due.has(o) || s.published.has(o) || s.at[o] < published:
		case !(s.log | underway).has(o):
			return fmt.Sprintf("commit %d is neither published nor in the log: its invalidation is lost", s.at[o])
		case s.log.has(o) && !a.owed(s, o):
			return fmt.Sprintf("the log row of commit %d has nobody bound to flush it", s.at[o])
		}
	}
	return ""
}

// checkEntry checks that what will evict a stale entry is queued, or in the log and owed.
func (a algorithm) checkEntry(s *state) string {
	if !a.servable(s) || s.at[s.entry.op] == s.commits {
		return ""
	}
	for _, versions := range s.queue[:s.queued] {
		if a.evicts(s, versions, s.entry.op) {
			return ""
		}
	}
	underway := s.underway()
	for o := range numOps {
		newer := (s.log | underway).has(o) && s.at[o] > s.at[s.entry.op]
		if newer && (a.owed(s, o) || underway.has(o)) {
			return ""
		}
	}
	return fmt.Sprintf("the entry of commit %d is served, commit %d is the newest, and nothing queued or owed will evict it",
		s.at[s.entry.op], s.commits)
}

// owed says whether somebody alive is bound to flush o's log row: its writer within the window, or a pulse where the
// writer is dead or has given up before the commit. Where no flush succeeds a pulse is bound to forget.
func (a algorithm) owed(s *state, o op) bool {
	late := false
	for i := range s.sets {
		late = late || o == setOp(i) && s.sets[i].phase == committedLate
	}
	switch {
	case a.stuck:
		return true // by a pulse, which forgets; Check sees to it that no Get returns anything older after that
	case ofR.has(o) && s.rDead, late && !s.pending.has(o):
		return a.change != noPulse && a.change != ownRows
	}
	return s.pending.has(o)
}

// underway is what a transaction or a node has in hand and is going to publish, where that takes two steps.
func (s *state) underway() ops {
	var held ops
	for _, f := range s.flushes {
		if f.stage == halfway {
			held |= f.held
		}
	}
	if s.remotes[0] == remoteHalf && !s.rDead {
		held |= opRemoteA.bit()
	}
	return held
}

// CheckEnd checks that no log row and no notification is left.
func (a algorithm) CheckEnd(s *state) string {
	if s.log != 0 && !a.stuck || s.queued != 0 {
		return "nothing can happen any more, with log rows or notifications left"
	}
	return ""
}
