package immediate

// algorithm is the algorithm, or a change of it, at a size.
type algorithm struct {
	size
	change change
}

// commitRow makes a row the newest. An insert is silent: nobody can hold a key that was not there.
func (a algorithm) commitRow(s *state, version int8, tombstone bool) {
	silent := !s.row.there && !tombstone
	s.commits++
	s.row = row{there: true, tombstone: tombstone, version: version, commit: s.commits}
	if silent || tombstone && a.change == silentDelete {
		return
	}
	s.notify(version)
}

// notify is the part of the commit that queues a notification for the node, if it listens.
func (s *state) notify(version int8) {
	if s.listening {
		s.queue[s.queued] = note{version: version, commit: s.commits}
		s.queued++
	}
}

// servable says whether a Get is answered by the local cache.
func (a algorithm) servable(s *state) bool {
	return s.entry.there && s.live && a.current(s, s.entry.epoch)
}

// current says whether epoch, of an entry or a fetch, has not ended yet.
func (a algorithm) current(s *state, epoch int8) bool { return epoch == s.epoch || a.change == noEpoch }

// evicts says whether a notification of version drops e.
func (a algorithm) evicts(version int8, e entry) bool {
	if a.change == ordered {
		return e.version < version
	}
	return e.version != version
}

// kill keeps the fetches under way from storing and from being joined. Their own callers get what they read.
func (a algorithm) kill(s *state) {
	for i := range s.fetches {
		if f := &s.fetches[i]; f.phase == begun || f.phase == read {
			f.dead = true
		}
	}
	if a.change != joinDead {
		s.joinable = 0
	}
}

// killOtherSets keeps the Sets under way that did not write version from storing.
func (s *state) killOtherSets(version int8) {
	for i := range s.sets {
		if s.sets[i].running() && version != localVersion+int8(i) {
			s.sets[i].dead = true
		}
	}
}

// apply is the listener taking the next notification.
func (a algorithm) apply(s *state) {
	n := s.queue[0]
	copy(s.queue[:], s.queue[1:])
	s.queued--
	s.queue[s.queued] = note{}

	if s.entry.there && a.evicts(n.version, s.entry) {
		s.entry = entry{}
	}
	if a.change != noKill {
		a.kill(s)
	}
	if a.change != noDeadSet {
		s.killOtherSets(n.version)
	}
	s.applied = max(s.applied, n.commit)
}

// returns is a Get, which had to return floor or newer, returning commit.
func (s *state) returns(commit, floor int8) {
	if commit < floor && s.broken.floor == 0 {
		s.broken.commit, s.broken.floor = commit, floor
	}
	s.returned = max(s.returned, commit)
}
