package model

import "slices"

// set is a set of hashes: a hash table with linear probing.
type set struct {
	table []uint64 // 0 is free
	n     int
}

// add adds h, and returns whether it is new. 0 counts as 1, as 0 marks a free place.
func (s *set) add(h uint64) bool {
	if h == 0 {
		h = 1
	}
	if 10*s.n >= 7*len(s.table) {
		s.grow()
	}
	if !s.put(h) {
		return false
	}
	s.n++
	return true
}

// put is add without counting, in a table that has a free place.
func (s *set) put(h uint64) bool {
	mask := uint64(len(s.table) - 1)
	for i := h & mask; ; i = (i + 1) & mask {
		switch s.table[i] {
		case 0:
			s.table[i] = h
			return true
		case h:
			return false
		}
	}
}

func (s *set) grow() {
	old := s.table
	s.table = make([]uint64, max(1<<12, 2*len(old)))
	for _, h := range old {
		if h != 0 {
			s.put(h)
		}
	}
}

// trail remembers for every state from which one it was first reached, and by which step. Its slices are indexed by the state's
// number.
type trail struct {
	from  []int32
	step  []uint8
	names []string
	ids   map[string]uint8
}

func (t *trail) add(from int, step string) {
	id, known := t.ids[step]
	if !known {
		if t.ids == nil {
			t.ids = map[string]uint8{}
		}
		id = uint8(len(t.names)) // a model has a few dozen kinds of steps
		t.ids[step], t.names = id, append(t.names, step)
	}
	t.from, t.step = append(t.from, int32(from)), append(t.step, id)
}

// to returns the steps that lead to the state at, and one more.
func (t *trail) to(at int, last string) []string {
	if at < 0 {
		return nil // the start itself
	}
	steps := []string{last}
	for ; at > 0; at = int(t.from[at]) { // the state 0 is the start
		steps = append(steps, t.names[t.step[at]])
	}
	slices.Reverse(steps)
	return steps
}

// queue is first in, first out. It consists of blocks because one slice would copy gigabytes when it grows.
type queue[T any] struct {
	blocks [][]T
	head   int // in the first block
}

const blockSize = 1 << 12

func (q *queue[T]) push(v T) {
	last := len(q.blocks) - 1
	if last < 0 || len(q.blocks[last]) == blockSize {
		q.blocks = append(q.blocks, make([]T, 0, blockSize))
		last++
	}
	q.blocks[last] = append(q.blocks[last], v)
}

// pop must not be called on an empty queue.
func (q *queue[T]) pop() T {
	v := q.blocks[0][q.head]
	q.head++
	if q.head == len(q.blocks[0]) {
		q.blocks[0], q.blocks, q.head = nil, q.blocks[1:], 0
	}
	return v
}

func (q *queue[T]) len() int {
	if len(q.blocks) == 0 {
		return 0
	}
	last := len(q.blocks) - 1
	return last*blockSize + len(q.blocks[last]) - q.head
}
