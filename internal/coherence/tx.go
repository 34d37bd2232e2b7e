package coherence

// A TxWrite is a write of a key in a transaction of the caller's, whose commit or rollback the tracker does not see.
// From the statement on until the outcome is known the node keeps nothing of the key, and no caller joins a read or a load
// from before:
//
//	WithTx(tx).Set(k)      tx.Commit() returns      Get(k): must not find what was there before
//	                                                ... the notification of the commit comes
//
// So the moment that Commit has returned, a Get asks the database. The TxWrite ends when its notification arrives, or when the
// caller of BeginTxWrite has found that the transaction has ended and calls End.
type TxWrite struct {
	t       *Tracker
	key     Key
	version int64
	done    bool // it has ended; under the stripe's lock
}

// BeginTxWrite begins a write of version to k in a transaction. The caller sends its statement after this call, and sees to
// it that End is called when the transaction has ended.
func (t *Tracker) BeginTxWrite(k Key, version int64) *TxWrite {
	s := t.enter(k)
	defer s.mu.Unlock()
	w := &TxWrite{t: t, key: k, version: version}
	if s.txs[k] == nil {
		s.txs[k] = map[int64]*TxWrite{}
	}
	s.txs[k][version] = w
	t.local.Delete(k)
	return w
}

// End says that the transaction has ended, either way. It may be called more than once.
func (w *TxWrite) End() {
	s := w.t.stripe(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	if w.done {
		return
	}
	s.endTx(w.key, []int64{w.version})
	// A read that began before the commit may have seen what was there before. And a plain write of ours may have been done
	// before the commit and be answered only now: neither is kept.
	s.kill(w.key, nil)
	for _, other := range s.writers[w.key] {
		other.dead = true
	}
	for _, watch := range s.watches[w.key] {
		watch.wake()
	}
}

// Done reports whether the write has ended.
func (w *TxWrite) Done() bool {
	s := w.t.stripe(w.key)
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.done
}

// endTx ends the TxWrites of k that have written versions. The caller holds the stripe's lock and kills the reads of k. A transaction may
// have written one key thousands of times: its other writes are not looked at.
func (s *stripe) endTx(k Key, versions []int64) {
	open := s.txs[k]
	for _, version := range versions {
		if w := open[version]; w != nil {
			w.done = true
			delete(open, version)
		}
	}
	if len(open) == 0 {
		delete(s.txs, k)
	}
}
