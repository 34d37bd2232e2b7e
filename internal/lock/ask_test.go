package lock

import (
	"context"
	"database/sql"
	"testing"
	"time"

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

// TestLeaver: a caller that leaves while the session is busy takes only itself away.
func TestLeaver(t *testing.T) {
	t.Parallel()
	l := Open(testdb.DB(t), t.Name()+time.Now().String())
	defer l.Close()
	busy, release := make(chan struct{}), make(chan struct{})
	held := make(chan error)
	go func() {
		held <- l.session.Do(t.Context(), func(context.Context, *sql.Conn) error {
			close(busy)
			<-release
			return nil
		})
	}()
	<-busy
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
	close(release)
	if a := <-stayer; a.err != nil || len(a.got) != 1 || !a.got[0] {
		t.Error(a)
	}
	if err := <-held; err != nil {
		t.Error(err)
	}
	l.Unlock([]string{"y"})
}
