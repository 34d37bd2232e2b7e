package coherence

// A Watch is woken when a key may have changed.
type Watch struct {
	c   chan<- struct{}
	t   *Tracker
	key Key
}

// Watch sends to c, which must be buffered, when k may have changed: at an invalidation of k, a Forget, a Down, or the end of a
// transaction of ours that wrote it, until Stop. Where c is full nothing is sent. Several keys may share c.
func (t *Tracker) Watch(k Key, c chan<- struct{}) *Watch {
	w := &Watch{c: c, t: t, key: k}
	s := t.enter(k)
	defer s.mu.Unlock()
	s.watches[k] = append(s.watches[k], w)
	return w
}

// Stop ends the watch.
func (w *Watch) Stop() {
	s := w.t.stripe(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	ws := s.watches[w.key]
	for i, other := range ws {
		if other == w {
			ws = append(ws[:i], ws[i+1:]...)
			break
		}
	}
	if len(ws) == 0 {
		delete(s.watches, w.key)
	} else {
		s.watches[w.key] = ws
	}
}

// wake sends to the watch's channel. The caller holds the stripe's lock.
func (w *Watch) wake() {
	select {
	case w.c <- struct{}{}:
	default:
	}
}

// wakeAll wakes all watches.
func (t *Tracker) wakeAll() {
	for i := range t.stripes {
		s := &t.stripes[i]
		s.mu.Lock()
		for _, ws := range s.watches {
			for _, w := range ws {
				w.wake()
			}
		}
		s.mu.Unlock()
	}
}
