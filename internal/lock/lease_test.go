package lock

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// leased is a cache whose leases are looked at.
type leased struct {
	t  *testing.T
	db *sql.DB
	n  store.Names
}

func newLeased(t *testing.T) *leased {
	t.Helper()
	n, err := store.Names{Schema: testdb.Schema(t), Prefix: "t_"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	l := &leased{t, testdb.DB(t), n}
	if err := migrate.Run(t.Context(), l.db, n); err != nil {
		t.Fatal(err)
	}
	return l
}

func (l *leased) table() string { return l.n.Tables()[4] }

func (l *leased) open(db *sql.DB) *Leases {
	o := OpenLeases(db, l.n.Space())
	l.t.Cleanup(func() { o.Close() })
	return o
}

func (l *leased) try(o *Leases, keys ...string) []bool {
	l.t.Helper()
	got, err := o.TryLock(l.t.Context(), keys)
	if err != nil || len(got) != len(keys) {
		l.t.Fatal(got, err)
	}
	return got
}

// none waits until no row is left.
func (l *leased) none() {
	l.t.Helper()
	n := 0
	for end := time.Now().Add(time.Minute); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		if err := l.db.QueryRow("SELECT count(*) FROM " + l.table()).Scan(&n); err != nil {
			l.t.Fatal(err)
		}
		if n == 0 {
			return
		}
	}
	l.t.Fatalf("%d leases are left", n)
}

// holding runs f while a transaction of somebody else's has done query.
func (l *leased) holding(query string, f func(end func())) {
	l.t.Helper()
	tx, err := l.db.BeginTx(l.t.Context(), nil)
	if err != nil {
		l.t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it may have ended
	if _, err := tx.Exec(query); err != nil {
		l.t.Fatal(err)
	}
	f(func() {
		if err := tx.Rollback(); err != nil {
			l.t.Fatal(err)
		}
	})
}

// A caller that has left while its statement was under way keeps no lease, though the statement took it.
func TestLeaseAbandoned(t *testing.T) {
	t.Parallel()
	l := newLeased(t)
	o := l.open(l.db)
	l.try(o, "warm")
	o.Unlock([]string{"warm"})
	l.none()
	if _, err := l.db.Exec("INSERT INTO "+l.table()+" VALUES ($1, 1, clock_timestamp() - interval '1 second')", leaseID("k")); err != nil {
		t.Fatal(err)
	}
	l.holding("SELECT FROM "+l.table()+" FOR UPDATE", func(end func()) {
		ctx, cancel := context.WithTimeout(t.Context(), 40*time.Millisecond)
		defer cancel()
		if got, err := o.TryLock(ctx, []string{"k"}); !errors.Is(err, context.DeadlineExceeded) {
			t.Fatal(got, err)
		}
		end()
	})
	l.none()
	if len(o.held) != 0 {
		t.Error("something is held")
	}
}

// Who unlocks a key and wants it again gets it, whatever the release is doing.
func TestLeaseAgain(t *testing.T) {
	t.Parallel()
	l := newLeased(t)
	o := l.open(l.db)
	for i := range 200 {
		if !l.try(o, "k")[0] {
			t.Fatalf("round %d: its own release is in the way", i)
		}
		o.Unlock([]string{"k"})
	}
	l.none()
	// Also where it can't be released, since somebody holds the row for longer than a release waits.
	l.try(o, "k")
	l.holding("SELECT FROM "+l.table()+" FOR UPDATE", func(end func()) {
		o.Unlock([]string{"k"})
		if got, err := o.TryLock(t.Context(), []string{"k"}); err == nil {
			t.Errorf("got %v from a row that somebody holds", got)
		}
		end()
	})
	if !l.try(o, "k")[0] {
		t.Error("a lease that could not be released is in the way of its own process")
	}
	o.Unlock([]string{"k"})
	l.none()
}

// What was given back while the network was cut is released when it is back, also where the key was asked for meanwhile.
func TestLeaseGivenBackTwice(t *testing.T) {
	t.Parallel()
	l := newLeased(t)
	link := testdb.NewProxy(t, testdb.DSN(t))
	o := l.open(testdb.Open(t, "pgx", link.DSN()))
	l.try(o, "k")
	link.Cut()
	o.Unlock([]string{"k"})
	if got, err := o.TryLock(t.Context(), []string{"k"}); err == nil {
		t.Fatal(got)
	}
	link.Restore()
	l.none()
}

// A key that this process has already is not got twice, and others' release it no lease.
func TestLeaseTwice(t *testing.T) {
	t.Parallel()
	l := newLeased(t)
	a, b := l.open(l.db), l.open(testdb.DB(t))
	if got := l.try(a, "x", "y", "x"); !slices.Equal(got, []bool{true, true, false}) {
		t.Error(got)
	}
	if got := l.try(b, "y"); got[0] {
		t.Error("two have it")
	}
	b.Unlock([]string{"x", "y"})
	if got := l.try(a, "x", "z"); !slices.Equal(got, []bool{false, true}) {
		t.Error(got)
	}
	a.Unlock([]string{"x", "y", "z"})
	l.none()
}

// The levels at which a statement judges by a snapshot from before it waited: leases are taken at another.
func TestLeaseIsolation(t *testing.T) {
	t.Parallel()
	for _, driver := range []string{"pgx", "postgres"} {
		for _, level := range []string{"read committed", "repeatable read", "serializable"} {
			t.Run(fmt.Sprint(driver, " ", level), func(t *testing.T) {
				t.Parallel()
				l := newLeased(t)
				dsn := testdb.WithParam(testdb.DSN(t), "default_transaction_isolation", level)
				a, b := l.open(testdb.Open(t, driver, dsn)), l.open(testdb.Open(t, driver, dsn))
				for range 5 {
					if !l.try(a, "k")[0] || l.try(b, "k")[0] {
						t.Fatal("it does not exclude")
					}
					a.Unlock([]string{"k"})
					l.none()
				}
			})
		}
	}
}

// A lease is renewed until it is given back, and one that another has is neither renewed nor released.
func TestLeaseRenew(t *testing.T) {
	t.Parallel()
	l := newLeased(t)
	o := l.open(l.db)
	l.try(o, "kept", "lost")
	if _, err := l.db.Exec("UPDATE "+l.table()+" SET owner = 7 WHERE id = $1", leaseID("lost")); err != nil {
		t.Fatal(err)
	}
	until := func(key string) (left float64) {
		t.Helper()
		if err := l.db.QueryRow("SELECT extract(epoch FROM until - clock_timestamp()) FROM "+l.table()+" WHERE id = $1", leaseID(key)).Scan(&left); err != nil {
			t.Fatal(err)
		}
		return left
	}
	first := until("kept")
	for end := time.Now().Add(time.Minute); ; time.Sleep(10 * time.Millisecond) {
		left := until("kept")
		if left > first { // the time that is left only shrinks without a renewal
			break
		}
		first = left
		if time.Now().After(end) {
			t.Fatal("it is not renewed")
		}
	}
	if lost := until("lost"); lost > 8 {
		t.Errorf("another's lease was renewed: %v s are left", lost)
	}
	if o.Lease("lost") != (store.Lease{}) || o.Lease("kept") == (store.Lease{}) {
		t.Error("it does not know what it has")
	}
	o.Unlock([]string{"kept", "lost"})
	if err := o.Close(); err != nil {
		t.Error(err)
	}
	var owner int
	if err := l.db.QueryRow("SELECT sum(owner) FROM " + l.table()).Scan(&owner); err != nil || owner != 7 {
		t.Error(owner, err)
	}
}
