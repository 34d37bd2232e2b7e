package batch

import (
	"slices"
	"time"
)

// leave is called when the caller of c has given up. A shared statement that nobody waits for any more is canceled once it has
// taken longer than Patience: it holds a connection of the pool, and may wait for a lock until Timeout. A quicker statement is
// not canceled: drivers close the connection of a canceled statement, and a new connection costs the server more than the
// rest of a quick statement.
func (b *Queue[Q, R]) leave(c *call[Q, R]) {
	b.mu.Lock()
	defer b.mu.Unlock()
	i := slices.IndexFunc(b.sent, func(s statement[Q, R]) bool { return s.id == c.id })
	if i < 0 { // c was not sent, or its statement has ended, or c was set apart, where its own context ends it
		return
	}
	s := &b.sent[i]
	if s.left++; s.left < len(s.calls) || s.end == nil || b.Patience == 0 {
		return
	}
	if took := time.Since(s.began); took >= b.Patience {
		s.end()
	} else {
		time.AfterFunc(b.Patience-took, s.end) // has no effect on one that has ended
	}
}
