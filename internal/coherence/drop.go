package coherence

// Drop removes k from the local cache, and has reads and writes that are under way keep nothing of it: what a Get that begins now returns
// was in the database no earlier than now.
func (t *Tracker) Drop(k Key) {
	s := t.enter(k)
	defer s.mu.Unlock()
	t.local.Delete(k)
	s.kill(k, nil)
	for _, w := range s.writers[k] {
		w.dead = true
	}
}
