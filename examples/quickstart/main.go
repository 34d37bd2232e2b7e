// Command quickstart shows in a few seconds what pgcache does: two nodes of a service, here in one program, share a
// cache in Postgres. Each step says what happened and how long it took, and fails if it was not what it should be.
//
//	go run ./examples/quickstart
//
// It takes the Postgres that PGCACHE_DSN names, or starts one for the time being.
package main

import (
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log"
	"os"
	"os/signal"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	_ "github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

type User struct{ Name string }

// newNode is what a service does when it starts.
func newNode(ctx context.Context, db *sql.DB, schema string) (*pgcache.Cache, error) {
	cache, err := pgcache.New(db, pgcache.Options{
		Schema:   schema,
		Listener: pgxdriver.Listener(db), // receives what other nodes change
	})
	if err != nil {
		return nil, err
	}
	err = cache.Migrate(ctx) // creates the tables, once
	if err == nil {
		err = cache.Ready(ctx) // waits until the listener is live; optional
	}
	if err != nil {
		return nil, errors.Join(err, cache.Close())
	}
	return cache, nil
}

// getUser is what it does from then on: from memory, else from the table, else from loadUser.
func getUser(ctx context.Context, cache *pgcache.Cache, id string) (User, error) {
	users := pgcache.For[User](cache, pgcache.Namespace("user"), pgcache.TTL(time.Minute))
	return users.GetOrSet(ctx, id, func(ctx context.Context) (User, error) { return loadUser(ctx, id) })
}

// loadUser stands for whatever is slow.
func loadUser(_ context.Context, id string) (User, error) {
	loads.Add(1)
	time.Sleep(200 * time.Millisecond)
	return User{Name: "Ann " + id}, nil
}

var loads atomic.Int64

// The rest is the tour.

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	log.SetFlags(0)
	dsn, stopPostgres, err := pgcachetest.StartPostgres(ctx, log.Printf)
	if err != nil {
		log.Fatal(err)
	}
	err = tour(ctx, dsn, func(format string, args ...any) { fmt.Printf(format+"\n", args...) })
	if err = errors.Join(err, stopPostgres()); err != nil {
		log.Fatal("quickstart: ", err)
	}
}

// tour goes through all steps on the server that dsn names, in a schema of its own.
func tour(ctx context.Context, dsn string, say func(format string, args ...any)) (err error) {
	schema := "quickstart_" + strings.ToLower(rand.Text()[:10])
	db, err := sql.Open("pgx", dsn) // to look behind the scenes
	if err != nil {
		return err
	}
	defer func() {
		_, drop := db.ExecContext(context.WithoutCancel(ctx), "DROP SCHEMA IF EXISTS "+schema+" CASCADE")
		err = errors.Join(err, drop, db.Close())
	}()
	var nodes [2]*pgcache.Cache
	for i := range nodes {
		var pool *sql.DB // each node has its own, as if it were another process
		if pool, err = sql.Open("pgx", dsn); err != nil {
			return err
		}
		defer func() { err = errors.Join(err, pool.Close()) }()
		if nodes[i], err = newNode(ctx, pool, schema); err != nil {
			return err
		}
		defer nodes[i].Close()
	}

	v := &visit{a: nodes[0], b: nodes[1], db: db, schema: schema}
	for i, step := range steps {
		v.loads = loads.Load()
		began := time.Now()
		said, err := step.do(ctx, v)
		took := time.Since(began)
		unit := 100 * time.Microsecond
		if took < time.Millisecond {
			unit = 100 * time.Nanosecond
		}
		if err != nil {
			return fmt.Errorf("%s: %w", step.what, err)
		}
		say("%d. %-46s %8v   %s", i+1, step.what, took.Round(unit), said)
	}
	say("\nAll as it should be. Next: examples/httpapi, and pgcache/doc.go for what is promised and why.")
	return nil
}

// visit is what the steps work with.
type visit struct {
	a, b   *pgcache.Cache
	db     *sql.DB
	schema string
	loads  int64 // that had run before this step
}

var steps = []struct {
	what string
	do   func(ctx context.Context, v *visit) (said string, err error)
}{
	{"A miss: node A has to load", func(ctx context.Context, v *visit) (string, error) {
		u, err := getUser(ctx, v.a, "42")
		return "the loader ran once, for 200 ms", errors.Join(err, is(u, "Ann 42"), v.loaded(1))
	}},
	{"A hit: node A has it in memory", func(ctx context.Context, v *visit) (string, error) {
		return "no loader, no SQL", errors.Join(v.hit(ctx, v.a, "Ann 42"), v.loaded(0))
	}},
	{"Node B finds what A has loaded", func(ctx context.Context, v *visit) (string, error) {
		u, err := getUser(ctx, v.b, "42")
		return "one SELECT; from now on B has it in memory too", errors.Join(err, is(u, "Ann 42"), v.hit(ctx, v.b, "Ann 42"), v.loaded(0))
	}},
	{"Node B writes, node A sees it", func(ctx context.Context, v *visit) (string, error) {
		if err := v.b.Set(ctx, "user:42", User{"Bea"}); err != nil {
			return "", err
		}
		err := v.until(ctx, v.a, "Bea")
		u, own := getUser(ctx, v.b, "42")
		return "A received an invalidation and forgot what it held", errors.Join(err, own, is(u, "Bea"), v.loaded(0))
	}},
	{"A stampede: 100 callers, nobody has the value", func(ctx context.Context, v *visit) (string, error) {
		errs := make([]error, 100)
		var callers sync.WaitGroup
		for i := range errs {
			callers.Go(func() {
				u, err := getUser(ctx, []*pgcache.Cache{v.a, v.b}[i%2], "7")
				errs[i] = errors.Join(err, is(u, "Ann 7"))
			})
		}
		callers.Wait()
		return "on both nodes, and the loader ran once", errors.Join(errors.Join(errs...), v.loaded(1))
	}},
	{"Node A deletes, node B has to load again", func(ctx context.Context, v *visit) (string, error) {
		if err := v.a.Delete(ctx, "user:42"); err != nil {
			return "", err
		}
		err := v.until(ctx, v.b, "Ann 42")
		return "every node has forgotten it", errors.Join(err, v.loaded(1))
	}},
	{"Somebody changes the row in psql", func(ctx context.Context, v *visit) (string, error) {
		_, err := v.db.ExecContext(ctx, `UPDATE `+v.schema+`.cache_entries SET value = '{"Name":"Cid"}' WHERE key = 'user:42'`)
		if err != nil {
			return "", err
		}
		return "a trigger published to both nodes", errors.Join(v.until(ctx, v.a, "Cid"), v.until(ctx, v.b, "Cid"), v.loaded(0))
	}},
}

// until reads user 42 on a node until it has this name: a notification takes milliseconds.
func (v *visit) until(ctx context.Context, node *pgcache.Cache, name string) error {
	for deadline := time.Now().Add(10 * time.Second); ; {
		u, err := getUser(ctx, node, "42")
		if wrong := is(u, name); err != nil || wrong == nil || time.Now().After(deadline) {
			return errors.Join(err, wrong)
		}
	}
}

// hit reads user 42 on a node, which must answer from memory: at the latest the third time, on a machine so busy that the
// node thought its listener lost.
func (v *visit) hit(ctx context.Context, node *pgcache.Cache, name string) error {
	for range 3 {
		before := node.Stats().LocalHits
		u, err := getUser(ctx, node, "42")
		if err = errors.Join(err, is(u, name)); err != nil || node.Stats().LocalHits > before {
			return err
		}
	}
	return errors.New("not answered from memory")
}

// loaded checks how often the loader has run in this step.
func (v *visit) loaded(want int64) error {
	if got := loads.Load() - v.loads; got != want {
		return fmt.Errorf("the loader ran %d times, want %d", got, want)
	}
	return nil
}

func is(u User, name string) error {
	if u.Name != name {
		return fmt.Errorf("got user %q, want %q", u.Name, name)
	}
	return nil
}
