package immediate

import "fmt"

// Check looks for a Get that returned too old a commit (P1, P3, P4), and for a stale entry that nothing will evict
// (INV).
func (a algorithm) Check(s *state) string {
	if s.broken.floor > 0 {
		return fmt.Sprintf("a Get returned commit %d and had to return %d or newer", s.broken.commit, s.broken.floor)
	}
	if !a.servable(s) || s.entry.commit >= s.row.commit {
		return ""
	}
	for _, n := range s.queue[:s.queued] {
		if n.version != s.entry.version {
			return ""
		}
	}
	return fmt.Sprintf("the entry of commit %d is served, commit %d is the newest, and no notification queued will evict it",
		s.entry.commit, s.row.commit)
}

// CheckEnd accepts every end: Check has looked for stale entries already, and no step of this model waits for another.
func (a algorithm) CheckEnd(*state) string { return "" }
