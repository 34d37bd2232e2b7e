package window

// algorithm is the algorithm, or a change of it, in a scenario.
type algorithm struct {
	scenario
	change change
}

// commit makes o's row the newest, and says so in the log or, inline, by a notification of its own. An insert is
// silent: nobody can hold a key that was not there. So is a row that nobody keeps in the place of another.
func (a algorithm) commit(s *state, o op, inline bool) {
	silent := s.row == noOp && o != opDelete || a.neverKept(o) && (a.neverKept(s.row) || a.change == silentNever)
	s.commits++
	s.row, s.at[o] = o, s.commits
	if silent {
		s.pending = s.pending.without(o.bit()) // the reply says that it was an insert
		return
	}
	s.due |= o.bit()
	switch {
	case o == opDelete && a.change == silentDelete:
	case inline:
		a.notify(s, o.bit())
	case o == opRemoteA && (a.change == logBefore || a.change == logAfter):
	default:
		s.log |= o.bit()
	}
}

// neverKept says whether o's row is one that no node keeps in memory.
func (a algorithm) neverKept(o op) bool { return o != noOp && a.never.has(o) }

// notify is the commit of a transaction that names versions: L learns of it through its queue, R at once.
func (a algorithm) notify(s *state, versions ops) {
	if versions == 0 {
		return
	}
	s.published |= versions
	if !s.rDead {
		a.settle(s, versions, nodeR)
	}
	if s.listening {
		s.queue[s.queued] = versions
		s.queued++
	}
}

// settle takes the pending changes of x off that a notification settles: those of exactly the versions that it names.
func (a algorithm) settle(s *state, versions ops, x node) {
	s.pending = s.pending.without(versions & x.own())
	for waiting := range numOps {
		if !(s.pending & x.own()).has(waiting) {
			continue
		}
		for named := range numOps {
			if versions.has(named) && a.settlesToo(s, named, waiting) {
				s.pending = s.pending.without(waiting.bit())
			}
		}
	}
}

// settlesToo says whether the pending change of one version is taken off because another was named.
func (a algorithm) settlesToo(s *state, named, waiting op) bool {
	older := s.at[waiting] == 0 || s.at[named] < s.at[waiting]
	switch a.change {
	case forgetAny:
		return true
	case forgetOlder:
		return older
	case forgetNewer:
		return !older
	}
	return false
}

// newest is the version that a notification names first: the log's sequence, drawn under the lock of the key's row, has
// the order of the commits.
func (a algorithm) newest(s *state, versions ops) op {
	best := noOp
	for o := range numOps {
		if versions.has(o) && (best == noOp || (s.at[o] > s.at[best]) != (a.change == collapseWrong)) {
			best = o
		}
	}
	return best
}

// evicts says whether a notification drops an entry of version o, and keeps a Set of this version from storing.
func (a algorithm) evicts(s *state, versions ops, o op) bool {
	if a.change == compareAll {
		return versions.without(o.bit()) != 0
	}
	return a.newest(s, versions) != o
}
