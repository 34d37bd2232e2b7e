package pgcache_test

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

func begin(t *testing.T, db *sql.DB, level sql.IsolationLevel) *sql.Tx {
	t.Helper()
	tx, err := db.BeginTx(t.Context(), &sql.TxOptions{Isolation: level})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tx.Rollback() }) //nolint:errcheck // most have been committed
	return tx
}

func commit(t *testing.T, tx *sql.Tx) {
	t.Helper()
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
}

// overTransports runs test with two nodes that receive changes in each way, over both drivers.
func overTransports(t *testing.T, test func(t *testing.T, cl *cluster, db *sql.DB, a, b *pgcache.Cache)) {
	t.Helper()
	forDrivers(t, func(t *testing.T, driver string) {
		for name, change := range map[string]func(*pgcache.Options){
			"window":    func(*pgcache.Options) {},
			"immediate": func(o *pgcache.Options) { o.InvalidationWindow = pgcache.Immediate },
			"poll":      func(o *pgcache.Options) { o.Listener = listener.Poll(20 * time.Millisecond) },
		} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				cl := newCluster(t)
				node := func() (*sql.DB, *pgcache.Cache) {
					db := testdb.Open(t, driver, testdb.DSN(t))
					return db, cl.on(db, func(o *pgcache.Options) {
						o.Listener = listenerOf(driver, db, testdb.DSN(t))
						change(o)
					})
				}
				db, a := node()
				_, b := node()
				test(t, cl, db, a, b)
			})
		}
	})
}

// TestP8_Commit: what is written in a transaction is seen by it at once, by others with its commit, and by this node the moment
// that Commit has returned.
func TestP8_Commit(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, _ *cluster, db *sql.DB, a, b *pgcache.Cache) {
		users := pgcache.For[int](a, pgcache.Namespace("user"))
		set(t, a, "k", 1)
		set(t, a, "gone", 1)
		set(t, a, "user:1", 1)
		for _, c := range []*pgcache.Cache{a, b} {
			warm(t, c, "k", 1)
			warm(t, c, "gone", 1)
			warm(t, c, "user:1", 1)
		}
		tx := begin(t, db, sql.LevelDefault)
		x, y := a.WithTx(tx), users.WithTx(tx)
		if err := errors.Join(x.Set(t.Context(), "k", 2), x.Delete(t.Context(), "gone", "never", "gone"), x.Set(t.Context(), "new", 2),
			y.Set(t.Context(), "1", 2), y.SetMany(t.Context(), map[string]int{"2": 2, "3": 2}), y.Delete(t.Context(), "3")); err != nil {
			t.Fatal(err)
		}
		for key, want := range map[string]int{"k": 2, "gone": 0, "new": 2, "user:1": 2, "user:2": 2, "user:3": 0} {
			var v int
			if found, err := x.Get(t.Context(), key, &v); err != nil || found != (want > 0) || v != want {
				t.Errorf("within the transaction %s is %d, %v, %v", key, v, found, err)
			}
		}
		if v, found, err := y.Get(t.Context(), "2"); v != 2 || !found || err != nil {
			t.Error(v, found, err)
		}
		for _, c := range []*pgcache.Cache{a, b} {
			want(t, c, "k", 1)
			want(t, c, "gone", 1)
			want(t, c, "user:1", 1)
			wantNone(t, c, "new")
		}
		commit(t, tx)
		want(t, a, "k", 2)
		wantNone(t, a, "gone")
		want(t, a, "new", 2)
		want(t, a, "user:1", 2)
		for _, c := range []*pgcache.Cache{a, b} {
			eventually(t, "every node returns what was committed", func() bool {
				v, found := get[int](t, c, "k")
				_, gone := get[int](t, c, "gone")
				return found && v == 2 && !gone
			})
			warm(t, c, "k", 2)
			warm(t, c, "new", 2)
		}
	})
}

// TestP8_Rollback: a rollback leaves no trace, and what was there before is answered from memory again within seconds.
func TestP8_Rollback(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, cl *cluster, db *sql.DB, a, b *pgcache.Cache) {
		set(t, a, "k", 1)
		inTime(t, func() error { // where a busy machine keeps a pulse waiting nothing is answered from memory
			warm(t, a, "k", 1)
			warm(t, b, "k", 1)
			hits := b.Stats().LocalHits
			tx := begin(t, db, sql.LevelDefault)
			if err := errors.Join(a.WithTx(tx).Set(t.Context(), "k", 2), a.WithTx(tx).Set(t.Context(), "new", 2)); err != nil {
				t.Fatal(err)
			}
			if err := tx.Rollback(); err != nil {
				t.Fatal(err)
			}
			want(t, a, "k", 1)
			wantNone(t, a, "new")
			warm(t, a, "k", 1)
			want(t, b, "k", 1)
			if b.Stats().LocalHits == hits {
				return errors.New("another node has forgotten what a transaction touched that was rolled back")
			}
			return nil
		})
		if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 1 {
			t.Errorf("%d rows", n)
		}
	})
}

// TestP8_Savepoint: what is rolled back to a savepoint is not seen, whatever becomes of the transaction.
func TestP8_Savepoint(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	set(t, c, "k", 1)
	warm(t, c, "k", 1)
	tx := begin(t, cl.db, sql.LevelDefault)
	exec := func(query string) {
		t.Helper()
		if _, err := tx.Exec(query); err != nil {
			t.Fatal(err)
		}
	}
	exec("SAVEPOINT s")
	if err := c.WithTx(tx).Set(t.Context(), "k", 2); err != nil {
		t.Fatal(err)
	}
	exec("ROLLBACK TO SAVEPOINT s")
	if err := c.WithTx(tx).Set(t.Context(), "other", 2); err != nil {
		t.Fatal(err)
	}
	commit(t, tx)
	want(t, c, "k", 1)
	want(t, c, "other", 2)
	warm(t, c, "k", 1)
}

// TestP8_ReadersBeside: while readers fill the memory of the node all the time, a Get after Commit never returns what was there
// before it.
func TestP8_ReadersBeside(t *testing.T) {
	t.Parallel()
	overTransports(t, func(t *testing.T, _ *cluster, db *sql.DB, a, b *pgcache.Cache) {
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for _, c := range []*pgcache.Cache{a, a, b} {
			wg.Go(func() {
				last := 0
				for {
					select {
					case <-stop:
						return
					default:
					}
					v, _ := get[int](t, c, "k")
					if v < last {
						t.Errorf("%d after %d", v, last)
					}
					last = v
				}
			})
		}
		for i := 1; i <= 60; i++ {
			tx := begin(t, db, sql.LevelDefault)
			if err := a.WithTx(tx).Set(t.Context(), "k", i); err != nil {
				t.Fatal(err)
			}
			if i%5 == 0 {
				if err := tx.Rollback(); err != nil {
					t.Fatal(err)
				}
				continue
			}
			commit(t, tx)
			if v, _ := get[int](t, a, "k"); v != i {
				t.Fatalf("after the commit of %d a Get returned %d", i, v)
			}
		}
		close(stop)
		wg.Wait()
	})
}

// TestP8_Loads: a loader that began before the commit, on any node, does not store over it: nor does it where the transaction
// deletes what is not there. After a rollback it does.
func TestP8_Loads(t *testing.T) {
	t.Parallel()
	for _, what := range []string{"set", "delete", "roll back"} {
		for _, where := range []string{"this node", "another node"} {
			for _, began := range []string{"before the write", "before the commit"} {
				t.Run(fmt.Sprintf("%s/%s/%s", what, where, began), func(t *testing.T) {
					t.Parallel()
					cl := newCluster(t)
					a, b := cl.node(nil), cl.node(nil)
					loader := a
					if where == "another node" {
						loader = b
					}
					loads, ended := make(chan struct{}), make(chan struct{})
					load := func() func() error {
						loaded := async(t, func() error {
							return loader.GetOrSet(t.Context(), "k", new(string), func(context.Context) (any, error) {
								close(loads)
								<-ended
								return "from before", nil
							})
						})
						<-loads
						return loaded
					}
					var loaded func() error
					if began == "before the write" {
						loaded = load()
					}
					tx := begin(t, cl.db, sql.LevelDefault)
					var err error
					if what == "set" {
						err = a.WithTx(tx).Set(t.Context(), "k", "new")
					} else {
						err = a.WithTx(tx).Delete(t.Context(), "k")
					}
					if err != nil {
						t.Fatal(err)
					}
					if began == "before the commit" {
						loaded = load()
					}
					if what == "roll back" {
						if err := tx.Rollback(); err != nil {
							t.Fatal(err)
						}
					} else {
						commit(t, tx)
					}
					close(ended)
					if err := loaded(); err != nil {
						t.Fatal(err)
					}
					for _, c := range []*pgcache.Cache{a, b} {
						v, found := get[string](t, c, "k")
						switch {
						case what == "set" && v != "new", what == "delete" && found, what == "roll back" && v != "from before":
							t.Errorf("%q, %v", v, found)
						}
					}
				})
			}
		}
	}
}

// TestP8_JoinsNoLoadFromBefore: a GetOrSet after Commit does not share a load that began before it, and those who come together
// share one.
func TestP8_JoinsNoLoadFromBefore(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	tx := begin(t, cl.db, sql.LevelDefault)
	if err := c.WithTx(tx).Delete(t.Context(), "k"); err != nil {
		t.Fatal(err)
	}
	begun, committed := make(chan struct{}), make(chan struct{})
	before := async(t, func() string {
		var v string
		err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) {
			close(begun)
			<-committed
			return "before", nil
		})
		return fmt.Sprint(v, err)
	})
	<-begun
	commit(t, tx)
	var wg sync.WaitGroup
	var loads sync.Map
	for range 20 {
		wg.Go(func() {
			var v string
			err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) {
				loads.Store(new(int), true)
				return "after", nil
			})
			if v != "after" || err != nil {
				t.Error(v, err)
			}
		})
	}
	time.Sleep(20 * time.Millisecond) // most of them wait by now
	close(committed)
	if v := before(); v != "before<nil>" {
		t.Error(v)
	}
	wg.Wait()
	n := 0
	loads.Range(func(any, any) bool { n++; return true })
	if n != 1 {
		t.Errorf("%d loads of 20 who came together", n)
	}
}

// TestP8_OpenTransaction: while it is open readers and writers of other keys don't wait; who writes the same key does, and is
// published so by an error.
func TestP8_OpenTransaction(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Timeout = 3 * time.Second })
	set(t, a, "k", 1)
	tx := begin(t, cl.db, sql.LevelDefault)
	if err := a.WithTx(tx).Set(t.Context(), "k", 2); err != nil {
		t.Fatal(err)
	}
	for _, c := range []*pgcache.Cache{a, b} {
		for i := range 20 {
			want(t, c, "k", 1)
			set(t, c, fmt.Sprint("other", i), i) // one that waits gets an error: the transaction stays open
		}
	}
	if e := cause(t, b.Set(t.Context(), "k", 3), "set", "k"); !strings.Contains(e.Error(), "Timeout") {
		t.Error(e)
	}
	commit(t, tx)
	if v, _ := get[int](t, a, "k"); v != 2 && v != 3 { // the server may have gone on with the Set that its caller gave up
		t.Error(v)
	}
	set(t, b, "k", 4)
	want(t, b, "k", 4)
}

// TestWithTx_Publishes: a transaction with writes of the cache notifies nobody, because the server would commit it and all others that
// notify one by one; a flush publishes it soon after. With Immediate the COMMIT notifies.
func TestWithTx_Publishes(t *testing.T) {
	t.Parallel()
	for name, window := range map[string]time.Duration{"window": 0, "immediate": pgcache.Immediate} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cl := newCluster(t)
			c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.InvalidationWindow, o.Listener = window, nil }) // it has no pulse that would flush
			set(t, c, "old", 1)
			set(t, c, "gone", 1)
			ear := cl.record()
			tx := begin(t, cl.db, sql.LevelDefault)
			x := c.WithTx(tx)
			if err := errors.Join(x.Set(t.Context(), "old", 2), x.Set(t.Context(), "new", 2), x.Delete(t.Context(), "gone"), x.DeleteTags(t.Context(), "team"),
				x.DeletePrefix(t.Context(), "user:")); err != nil {
				t.Fatal(err)
			}
			if got := ear.received(); len(got) > 0 {
				t.Fatalf("published before the commit: %q", got)
			}
			commit(t, tx)
			got := ear.received()
			eventually(t, "all five are published", func() bool {
				got = append(got, ear.received()...)
				all := strings.Join(got, "")
				for _, item := range []string{"3:old", "3:new", "4:gone", "t4:team", "p5:user:"} {
					if !strings.Contains(all, item) {
						return false
					}
				}
				return true
			})
			for _, payload := range got {
				if flushed := payload[0] == '1'; flushed == (window == pgcache.Immediate) {
					t.Errorf("a flush has published it: %v: %q", flushed, payload)
				}
			}
		})
	}
}

// TestWithTx_CommitLate: a transaction that stays open for long after its last write is published too, also by a node without
// pulses.
func TestWithTx_CommitLate(t *testing.T) {
	if testing.Short() {
		t.Skip("it takes 11 s")
	}
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Listener = nil })
	ear := cl.record()
	tx := begin(t, cl.db, sql.LevelDefault)
	if err := c.WithTx(tx).Set(t.Context(), "k", 2); err != nil {
		t.Fatal(err)
	}
	time.Sleep(11 * time.Second) // until the node no longer looks once a window
	commit(t, tx)
	eventually(t, "it is published", func() bool { return strings.Contains(strings.Join(ear.received(), ""), "1:k") })
}

// TestWithTx_LooksEnd: a node looks at the log only while the outcome of a transaction is not known.
func TestWithTx_LooksEnd(t *testing.T) {
	t.Parallel()
	forWindows(t, func(t *testing.T, cl *cluster) {
		c, w := cl.wired(nil)
		const look = "-- name: Pending "
		for i := range 3 {
			tx := begin(t, cl.db, sql.LevelDefault)
			if err := c.WithTx(tx).Set(t.Context(), "k", i); err != nil {
				t.Fatal(err)
			}
			commit(t, tx)
		}
		eventually(t, "the looks end", func() bool {
			before := w.count(look)
			time.Sleep(500 * time.Millisecond)
			return w.count(look) == before
		})
		if n := w.count(look); n > 200 { // in ten seconds it looks 400 times
			t.Error(n, "looks")
		}
	})
}

// TestWithTx_Close: what was committed before Close is published when Close returns.
func TestWithTx_Close(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	for i := range 5 {
		c := cl.node(nil)
		tx := begin(t, cl.db, sql.LevelDefault)
		if err := c.WithTx(tx).Set(t.Context(), "k", i); err != nil {
			t.Fatal(err)
		}
		commit(t, tx)
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		if n := cl.count("SELECT count(*) FROM " + cl.object("cache_changes")); n != 0 {
			t.Error(n, "changes are left in the log")
		}
	}
}

// TestWithTxIsolation: a transaction of each isolation level sees its snapshot, and conflicts are its own.
func TestWithTxIsolation(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		for _, level := range []sql.IsolationLevel{sql.LevelReadCommitted, sql.LevelRepeatableRead, sql.LevelSerializable} {
			cl := newCluster(t)
			db := testdb.Open(t, driver, testdb.DSN(t))
			c := cl.on(db, func(o *pgcache.Options) { o.Listener = listenerOf(driver, db, testdb.DSN(t)) })
			set(t, c, "k", 1)
			tx := begin(t, db, level)
			var v int
			if _, err := c.WithTx(tx).Get(t.Context(), "k", &v); err != nil || v != 1 {
				t.Fatal(v, err)
			}
			set(t, c, "k", 2)
			if _, err := c.WithTx(tx).Get(t.Context(), "k", &v); err != nil || (v == 1) != (level != sql.LevelReadCommitted) {
				t.Errorf("%v: %d, %v", level, v, err)
			}
			err := c.WithTx(tx).Set(t.Context(), "k", 3)
			if level == sql.LevelReadCommitted {
				if err != nil {
					t.Fatal(err)
				}
				commit(t, tx)
				want(t, c, "k", 3)
			} else if err == nil || !strings.Contains(err.Error(), "could not serialize") {
				t.Errorf("%v: %v", level, err)
			}
			warm(t, c, "k", map[bool]int{true: 3, false: 2}[level == sql.LevelReadCommitted])
		}
	})
}

// TestWithTxMisuse: each call says what is wrong, and nothing is written.
func TestWithTxMisuse(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c := cl.node(nil)
	var none *sql.Tx
	done := begin(t, cl.db, sql.LevelDefault)
	commit(t, done)
	ctx := t.Context()
	for says, txs := range map[string][]pgcache.Querier{
		"nil":     {nil, none},
		"already": {done},
		"a pool":  {cl.db, struct{ *sql.DB }{cl.db}}, // as sqlx.DB has one in it
	} {
		for _, tx := range txs {
			x := c.WithTx(tx)
			_, get := x.Get(ctx, "k", new(int))
			for op, err := range map[string]error{"set": x.Set(ctx, "k", 1), "delete": x.Delete(ctx, "k"), "get": get} {
				if e := cause(t, err, op, "k"); !strings.Contains(e.Error(), says) || says == "already" && !errors.Is(e, sql.ErrTxDone) {
					t.Errorf("%T: %v", tx, e)
				}
			}
			if err := x.DeleteTags(ctx, "tag"); err == nil || !strings.Contains(err.Error(), says) {
				t.Errorf("%T: %v", tx, err)
			}
		}
	}
	tx := begin(t, cl.db, sql.LevelDefault)
	wantErr(t, c.WithTx(tx).Set(ctx, "", 1), pgcache.ErrInvalidKey)
	wantErr(t, c.WithTx(tx).Set(ctx, "k", 1, pgcache.TTL(-1)), pgcache.ErrInvalidTTL)
	wantErr(t, pgcache.For[int](c, pgcache.Namespace("a:b")).WithTx(tx).Set(ctx, "k", 1), pgcache.ErrInvalidKey)
	commit(t, tx)
	if n := cl.count("SELECT count(*) FROM " + cl.table()); n != 0 {
		t.Errorf("%d rows", n)
	}
	c.Close()
	wantErr(t, c.WithTx(tx).Set(ctx, "k", 1), pgcache.ErrClosed)
	null := pgcache.Null()
	if err := null.WithTx(tx).Set(ctx, "k", 1); err != nil {
		t.Error(err)
	}
}
