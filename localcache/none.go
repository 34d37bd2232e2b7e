package localcache

// None returns a cache that keeps nothing: every read asks the database. All values of None are equal.
func None() Cache { return none{} }

type none struct{}

func (none) Get(Key) *Entry  { return nil }
func (none) Set(Key, *Entry) {}
func (none) Delete(Key)      {}
func (none) Clear()          {}

// invalid is what New returns for Options that make no sense, as it returns no error: pgcache.New asks for Err.
type invalid struct {
	none
	err error
}

// Err returns what is wrong with the Options.
func (c invalid) Err() error { return c.err }
