package coherence

import "sync"

// waits is the wait-for graph of the runs of this process, to find deadlocks. Only loaders that ask a cache themselves make
// edges, so it is empty most of the time.
var waits = struct {
	sync.Mutex
	on map[*Run]map[*Run]int // whom each run waits for, and how often
}{on: map[*Run]map[*Run]int{}}

// WaitFor notes that the loader of r waits for other, until done is called, once. Not ok: other waits for r, itself or through
// others, which would be a deadlock.
func (r *Run) WaitFor(other *Run) (done func(), ok bool) {
	waits.Lock()
	defer waits.Unlock()
	if reaches(other, r, map[*Run]bool{}) {
		return nil, false
	}
	if waits.on[r] == nil {
		waits.on[r] = map[*Run]int{}
	}
	waits.on[r][other]++
	return func() {
		waits.Lock()
		defer waits.Unlock()
		if waits.on[r][other]--; waits.on[r][other] == 0 {
			delete(waits.on[r], other)
		}
		if len(waits.on[r]) == 0 {
			delete(waits.on, r)
		}
	}, true
}

// reaches says whether from waits for to. With the lock held.
func reaches(from, to *Run, seen map[*Run]bool) bool {
	if from == to {
		return true
	}
	if seen[from] {
		return false
	}
	seen[from] = true
	for next := range waits.on[from] {
		if reaches(next, to, seen) {
			return true
		}
	}
	return false
}
