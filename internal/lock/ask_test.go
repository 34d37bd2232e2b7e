package lock

import (
	"context"
	"database/sql"
	"fmt"
	"testing"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// TestBound: half of what a session may hold, and no more than most.
func TestBound(t *testing.T) {
	t.Parallel()
	for maxLocks, want := range map[int]int{10: 5, 64: 32, 256: 128, 258: 128, 1 << 20: 128} {
		if got := bound(maxLocks); got != want {
			t.Errorf("with max_locks_per_transaction %d a process may hold %d locks, want %d", maxLocks, got, want)
		}
	}
}

// TestSingle: up to single keys have locks of their own, and answers of their own; one more, and they share both.
func TestSingle(t *testing.T) {
	t.Parallel()
	space := t.Name() + time.Now().String()
	mine, other := Open(testdb.DB(t), space), Open(testdb.DB(t), space)
	defer mine.Close()
	defer other.Close()
	var keys []string
	for i := range single + 1 {
		keys = append(keys, fmt.Sprint("key ", i))
	}
	if n, m := len(names(keys[:single])), len(names(keys)); n != single || m != 1 {
		t.Errorf("%d and %d locks", n, m)
	}
	if got, err := other.TryLock(t.Context(), keys[:1]); err != nil || !got[0] {
		t.Fatal(got, err)
	}
	got, err := mine.TryLock(t.Context(), keys[:single])
	if err != nil || len(got) != single {
		t.Fatal(got, err)
	}
	for i, yes := range got {
		if yes != (i > 0) {
			t.Errorf("key %d: %v", i, yes)
		}
	}
	if got, err := mine.TryLock(t.Context(), keys); err != nil || len(got) != single+1 || !got[0] || !got[single] {
		t.Error(got, err)
	}
}

// hold keeps the session busy until release is called, which returns how that ended.
func hold(t *testing.T, l *Locks) (release func() error) {
	t.Helper()
	busy, free, held := make(chan struct{}), make(chan struct{}), make(chan error)
	go func() {
		held <- l.session.Do(context.Background(), func(context.Context, *sql.Conn) error {
			close(busy)
			<-free
			return nil
		})
	}()
	<-busy
	return func() error {
		close(free)
		return <-held
	}
}

// TestLookTogether: callers that come while the session is busy share statements, those of one table one of them, and each
// gets its own locks and rows. What was given back is not remembered.
func TestLookTogether(t *testing.T) {
	t.Parallel()
	db := testdb.DB(t)
	newStore := func(keys ...string) *store.Store {
		n, err := store.Names{Schema: testdb.Schema(t)}.Resolve()
		if err != nil {
			t.Fatal(err)
		}
		if err := migrate.Run(t.Context(), db, n); err != nil {
			t.Fatal(err)
		}
		s := store.New(db, n, 5*time.Second, false)
		t.Cleanup(s.Close)
		for i, key := range keys {
			row := store.Write{Key: key, Value: []byte(key), Version: int64(i + 1), TTL: time.Minute}
			if _, err := s.Put(t.Context(), []store.Write{row}, true); err != nil {
				t.Fatal(err)
			}
		}
		return s
	}
	first, second := newStore("a", "b", "c"), newStore("x", "y")
	l := Open(db, t.Name()+time.Now().String())
	defer l.Close()
	release := hold(t, l)
	calls := []struct {
		s    *store.Store
		keys []string
		want string
	}{
		{first, []string{"a", "none"}, "a,,"},
		{first, []string{"b"}, "b,"},
		{second, []string{"x", "y"}, "x,y,"},
		{nil, []string{"p", "q"}, ""},
		{nil, []string{"r"}, ""},
		{second, []string{"y2"}, ","},
		{first, []string{"c"}, "c,"},
	}
	answers := make([]chan string, len(calls))
	for i, c := range calls {
		answers[i] = make(chan string, 1)
		go func() {
			a := &ask{store: c.s, keys: c.keys}
			got, looked, err := l.ask(t.Context(), a)
			rows := ""
			for _, r := range looked.Rows {
				rows += string(r.Value) + ","
			}
			if (looked.Incarnation == 0 || looked.At == 0) && c.s != nil {
				t.Errorf("%v: no incarnation or no time: %+v", c.keys, looked)
			}
			answers[i] <- fmt.Sprint(len(got), got, rows, err)
		}()
		for asking := 0; asking <= i; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			asking = len(l.asking)
			l.mu.Unlock()
		}
	}
	if err := release(); err != nil {
		t.Fatal(err)
	}
	for i, c := range calls {
		yes := make([]bool, len(c.keys))
		for j := range yes {
			yes[j] = true
		}
		if got, want := <-answers[i], fmt.Sprint(len(yes), yes, c.want, error(nil)); got != want {
			t.Errorf("%v: %s, want %s", c.keys, got, want)
		}
	}
	state := func() (held, locks int) {
		err := l.session.Do(t.Context(), func(context.Context, *sql.Conn) error {
			held, locks = len(l.held), l.session.Locks
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		return held, locks
	}
	if held, locks := state(); held != 10 || locks != 10 {
		t.Errorf("%d locks are held, %d counted", held, locks)
	}
	for _, c := range calls {
		l.Unlock(c.keys)
	}
	l.wg.Wait()
	if held, locks := state(); held != 0 || locks != 0 {
		t.Errorf("%d locks are remembered, %d counted", held, locks)
	}
}

// TestLeaver: a caller that leaves while the session is busy takes only itself away.
func TestLeaver(t *testing.T) {
	t.Parallel()
	l := Open(testdb.DB(t), t.Name()+time.Now().String())
	defer l.Close()
	release := hold(t, l)
	ctx, leave := context.WithCancel(t.Context())
	type answer struct {
		got []bool
		err error
	}
	ask := func(ctx context.Context, key string, n int) <-chan answer {
		c := make(chan answer, 1)
		go func() {
			got, err := l.TryLock(ctx, []string{key})
			c <- answer{got, err}
		}()
		for asking := 0; asking < n; time.Sleep(time.Millisecond) {
			l.mu.Lock()
			asking = len(l.asking)
			l.mu.Unlock()
		}
		return c
	}
	leaver, stayer := ask(ctx, "x", 1), ask(t.Context(), "y", 2)
	leave()
	if a := <-leaver; a.err == nil {
		t.Error("the leaver got", a.got)
	}
	l.mu.Lock()
	if len(l.asking) != 1 || l.asking[0].keys[0] != "y" {
		t.Errorf("%d callers ask", len(l.asking))
	}
	l.mu.Unlock()
	if err := release(); err != nil {
		t.Error(err)
	}
	if a := <-stayer; a.err != nil || len(a.got) != 1 || !a.got[0] {
		t.Error(a)
	}
	l.Unlock([]string{"y"})
}
