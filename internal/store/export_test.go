package store

import "context"

// PutWith is the statement of several writes, with a patience of its own.
func (s *Store) PutWith(ctx context.Context, rows []Write, patience string) (Written, error) {
	return s.putAll(ctx, write{rows: rows}, patience)
}

// LockWaits is how many statements of a queue wait for locked rows at a time.
const LockWaits = lockWaits

// ForgetStrict makes the store believe that sessions are READ COMMITTED.
func (s *Store) ForgetStrict() {
	s.strict.Store(false)
	s.plainWrites.Store(true)
}

// PlainWrites says whether writes go without a transaction.
func (s *Store) PlainWrites() bool { return s.plainWrites.Load() }
