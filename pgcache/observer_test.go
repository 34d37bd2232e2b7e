package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// shown records what an Observer is shown.
type shown struct {
	mu  sync.Mutex
	ops map[string]int // by name and result

	up, published int

	listener []pgcache.Event // what became of it, in order
}

func (s *shown) Open(func() pgcache.Stats) func() { return nil }

func (s *shown) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	return ctx, func(out pgcache.Outcome) {
		s.mu.Lock()
		defer s.mu.Unlock()
		s.ops[fmt.Sprint(op.Kind, " ", op.Name, " ", op.View, " ", out.Layer, " ", out.Result())]++
	}
}

func (s *shown) Event(e pgcache.Event) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch e.Kind {
	case pgcache.EventListenerUp:
		s.up++
		s.listener = append(s.listener, e)
	case pgcache.EventPublished:
		s.published++
	case pgcache.EventListenerDown:
		s.listener = append(s.listener, e)
	}
}

// kinds are those of the events of the listener.
func (s *shown) kinds() (kinds []pgcache.EventKind) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, e := range s.listener {
		kinds = append(kinds, e.Kind)
	}
	return kinds
}

// A listener that the cache itself ends, because rows come from another server, is shown as lost before it is shown as live
// again.
func TestObserver_ListenerRestarts(t *testing.T) {
	t.Parallel()
	s := &shown{ops: map[string]int{}}
	var received echoes
	c := newCluster(t).node(func(db *sql.DB, o *pgcache.Options) {
		received.Listener = pgxdriver.Listener(db)
		o.Listener, o.Observer = &received, s
	})
	before := len(s.kinds()) // on a busy machine it may have come up after more than one attempt
	received.echo(123)
	set(t, c, "k", 1)
	eventually(t, "the listener is live again", func() bool { k := s.kinds(); return len(k) > before && k[len(k)-1] == pgcache.EventListenerUp })
	if k := s.kinds(); k[before] != pgcache.EventListenerDown {
		t.Errorf("after the listener was live: %v, want that it was lost", k[before:])
	}
}

// failed is a listener that can never work.
type failed struct{ err error }

func (l failed) Listen(context.Context, string, pgcache.Subscriber) error { return l.err }

// A listener that can never work is shown as lost.
func TestObserver_ListenerFails(t *testing.T) {
	t.Parallel()
	s, cause := &shown{ops: map[string]int{}}, errors.New("no such channel")
	newCluster(t).start(func(_ *sql.DB, o *pgcache.Options) { o.Listener, o.Observer = failed{cause}, s })
	eventually(t, "it is shown", func() bool { return len(s.kinds()) == 1 })
	s.mu.Lock()
	defer s.mu.Unlock()
	if e := s.listener[0]; e.Kind != pgcache.EventListenerDown || !errors.Is(e.Err, cause) {
		t.Errorf("%+v", e)
	}
}

// Every operation is shown once with its layer and its result, and a hit in memory is only counted.
func TestObserver(t *testing.T) {
	t.Parallel()
	s := &shown{ops: map[string]int{}}
	c := newCluster(t).node(func(_ *sql.DB, o *pgcache.Options) { o.Observer = s })
	users := pgcache.For[int](c, pgcache.Namespace("user"))
	ctx := t.Context()
	if _, found, err := users.Get(ctx, "1"); found || err != nil {
		t.Fatal(found, err)
	}
	if v, err := users.GetOrSet(ctx, "1", func(context.Context) (int, error) { return 1, nil }); v != 1 || err != nil {
		t.Fatal(v, err)
	}
	_, _ = users.GetOrSet(ctx, "2", func(context.Context) (int, error) { return 0, pgcache.ErrNotFound })
	set(t, c, "k", 1)
	inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
		warm(t, c, "k", 1)
		before := c.Stats().Views[""].LocalHits
		want(t, c, "k", 1)
		if n := c.Stats().Views[""].LocalHits; n != before+1 {
			return fmt.Errorf("%d hits are counted for the view, want %d", n, before+1)
		}
		return nil
	})
	s.mu.Lock()
	defer s.mu.Unlock()
	for op, n := range map[string]int{
		"1 get user database miss":           1,
		"1 get or set user loader ok":        1,
		"1 get or set user loader not found": 1,
		"4 load user loader ok":              1,
		"4 load user loader not found":       1,
		"1 set  database ok":                 1,
		"2 store  database ok":               1,
		"2 write  database ok":               1,
	} {
		if s.ops[op] != n {
			t.Errorf("%q is shown %d times, want %d", op, s.ops[op], n)
		}
	}
	if s.up == 0 {
		t.Error("the start of the listener is not shown")
	}
	if v := c.Stats(); v.Views["user"].Loads != 2 || v.Loads != 2 || v.Views["user"].NotFound != 1 {
		t.Errorf("%+v", v)
	}
}

// It is shown how late the invalidation of each kind of write is, also of those that may not be done.
func TestObserverIsShownWhenWritesArePublished(t *testing.T) {
	t.Parallel()
	s := &shown{ops: map[string]int{}}
	c := newCluster(t).node(func(_ *sql.DB, o *pgcache.Options) { o.Observer = s })
	numbers := pgcache.For[int](c)
	set(t, c, "k", 1)
	for name, write := range map[string]func() error{
		"Set":       func() error { return c.Set(t.Context(), "k", 2) },
		"Increment": func() error { _, err := c.Increment(t.Context(), "k", 1); return err },
		"Touch":     func() error { _, err := c.Touch(t.Context(), "k", 0); return err },
		"Update": func() error {
			_, err := numbers.Update(t.Context(), "k", func(old int, _ bool) (int, error) { return old + 1, nil })
			return err
		},
	} {
		published := func() int {
			s.mu.Lock()
			defer s.mu.Unlock()
			return s.published
		}
		before := published()
		if err := write(); err != nil {
			t.Fatal(name, err)
		}
		eventually(t, "the invalidation of "+name+" is shown", func() bool { return published() > before })
	}
}

// Memory that knows of nothing under a key answers like any other hit: no call is shown.
func TestObserver_NegativeHits(t *testing.T) {
	t.Parallel()
	s := &shown{ops: map[string]int{}}
	c := newCluster(t).node(func(_ *sql.DB, o *pgcache.Options) { o.Observer = s })
	v := pgcache.For[int](c, pgcache.NegativeTTL(time.Hour))
	ask := func() {
		if _, found, err := v.Get(t.Context(), "k"); found || err != nil {
			t.Fatalf("Get: %v, %v", found, err)
		}
		if _, err := v.GetOrSet(t.Context(), "k", func(context.Context) (int, error) { return 0, pgcache.ErrNotFound }); !errors.Is(err, pgcache.ErrNotFound) {
			t.Fatalf("GetOrSet: %v", err)
		}
	}
	eventually(t, "memory answers", func() bool {
		s.mu.Lock()
		clear(s.ops)
		s.mu.Unlock()
		ask()
		s.mu.Lock()
		defer s.mu.Unlock()
		calls, statements := 0, 0
		for op, n := range s.ops {
			switch op[0] - '0' {
			case byte(pgcache.OpCall):
				calls += n
			case byte(pgcache.OpStatement):
				statements += n
			}
		}
		if calls > statements {
			t.Fatalf("of what memory has answered the Observer is shown %v", s.ops)
		}
		return statements == 0
	})
}
