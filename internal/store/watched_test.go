package store_test

import (
	"context"
	"database/sql"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/internal/testdb"
)

// watched is a store on a pool that says which statements were sent, and can hold them up.
type watched struct {
	*store.Store
	t  *testing.T
	db *sql.DB // beside the store, for looking at rows

	mu        sync.Mutex
	sent      []string // names of statements
	deadlocks int
	gates     []*gate
}

// gate holds up statements of one name before they are sent.
type gate struct {
	name    string
	left    int           // how many to hold up
	arrived chan struct{} // one for each that is held up
	open    func()        // lets all of them go, and those to come
	opened  chan struct{}
}

// watch returns a store with tables of its own. settings are of its connections: "default_transaction_isolation", "serializable".
func watch(t *testing.T, settings ...string) *watched {
	t.Helper()
	n, err := store.Names{Schema: testdb.Schema(t), Prefix: "s_"}.Resolve()
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{t: t, db: testdb.DB(t)}
	migrateOn(t, w.db, n)
	w.Store = w.another(n, settings...)
	w.statements()
	return w
}

// another returns another node's store on the same tables.
func (w *watched) another(n store.Names, settings ...string) *store.Store {
	w.t.Helper()
	config, err := pgx.ParseConfig(testdb.DSN(w.t))
	if err != nil {
		w.t.Fatal(err)
	}
	config.Tracer = w
	for i := 0; i < len(settings); i += 2 {
		config.RuntimeParams[settings[i]] = settings[i+1]
	}
	db := stdlib.OpenDB(*config)
	s := store.New(db, n, 20*time.Second, false)
	w.t.Cleanup(func() {
		s.Close()
		w.openAll()
		db.Close()
	})
	if _, err := s.State(w.t.Context()); err != nil { // as a Cache does: it learns what its sessions are like
		w.t.Fatal(err)
	}
	return s
}

// TraceQueryStart implements pgx.QueryTracer.
func (w *watched) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	name, _, _ := strings.Cut(strings.TrimPrefix(data.SQL, "-- name: "), " ")
	name = strings.TrimSuffix(name, "AndPublish")
	var held *gate
	w.mu.Lock()
	w.sent = append(w.sent, name)
	for _, g := range w.gates {
		if g.name == name && g.left > 0 {
			g.left--
			held = g
		}
	}
	w.mu.Unlock()
	if held != nil {
		held.arrived <- struct{}{}
		<-held.opened
	}
	return ctx
}

// TraceQueryEnd implements pgx.QueryTracer.
func (w *watched) TraceQueryEnd(_ context.Context, _ *pgx.Conn, data pgx.TraceQueryEndData) {
	if sqlerr.State(data.Err) == "40P01" {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.deadlocks++
	}
}

// hold makes the next n statements of this name wait.
func (w *watched) hold(name string, n int) *gate {
	g := &gate{name: name, left: n, arrived: make(chan struct{}, n), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	w.mu.Lock()
	defer w.mu.Unlock()
	w.gates = append(w.gates, g)
	return g
}

func (w *watched) openAll() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, g := range w.gates {
		g.open()
	}
}

// statements are those sent since the last call.
func (w *watched) statements() (names []string) {
	w.mu.Lock()
	defer w.mu.Unlock()
	names, w.sent = w.sent, nil
	return names
}

func (w *watched) want(names ...string) {
	w.t.Helper()
	if d := cmp.Diff(names, w.statements()); d != "" {
		w.t.Errorf("statements (-want +got):\n%s", d)
	}
}

func (w *watched) exec(query string, args ...any) {
	w.t.Helper()
	if _, err := w.db.ExecContext(w.t.Context(), query, args...); err != nil {
		w.t.Fatal(err)
	}
}

func scan[T any](w *watched, query string, args ...any) (v T) {
	w.t.Helper()
	if err := w.db.QueryRowContext(w.t.Context(), query, args...).Scan(&v); err != nil {
		w.t.Fatal(err)
	}
	return v
}

// object is the full name of a table or a sequence of the cache.
func (w *watched) object(name string) string { return w.Names.Schema + "." + w.Names.Prefix + name }

func (w *watched) logged() int {
	return scan[int](w, "SELECT count(*) FROM "+w.object("cache_changes"))
}

// waiting says whether a statement of the cache waits for a lock.
func (w *watched) waiting() bool {
	w.t.Helper()
	return w.waitingSessions() > 0
}

// waitingSessions is how many sessions that write rows wait for a lock.
func (w *watched) waitingSessions() int {
	w.t.Helper()
	// By the text where the server shows enough of it, else by its locks, which take longer to look at.
	return scan[int](w, `SELECT count(*) FROM pg_stat_activity a WHERE a.wait_event_type = 'Lock' AND (a.query LIKE '%' || $1 || '%' OR EXISTS (
		SELECT FROM pg_locks l WHERE l.pid = a.pid AND l.relation = to_regclass($2)))`, w.Names.Schema, w.object("cache_entries"))
}

// value is what is stored under key.
func (w *watched) value(key string) string {
	w.t.Helper()
	rows, err := w.GetMany(w.t.Context(), []string{key})
	if err != nil {
		w.t.Fatal(err)
	}
	return string(rows[0].Value)
}

// queued is a context that says when it is first looked at. A caller that finds a statement under way looks at it when
// it has queued, and not before.
type queued struct {
	context.Context
	looked func()
}

func (q queued) Done() <-chan struct{} {
	q.looked()
	return q.Context.Done()
}

// result is what a caller got.
type result[T any] struct {
	v    T
	err  error
	done chan struct{}
}

// get waits for it.
func (r *result[T]) get(t *testing.T) T {
	t.Helper()
	v, err := r.both(t)
	if err != nil {
		t.Error(err)
	}
	return v
}

func (r *result[T]) both(t *testing.T) (T, error) {
	t.Helper()
	select {
	case <-r.done:
	case <-time.After(time.Minute):
		t.Fatal("a caller gets no answer")
	}
	return r.v, r.err
}

// queue starts a call that finds something under way, and returns when it is in the queue.
func queue[T any](t *testing.T, ctx context.Context, call func(ctx context.Context) (T, error)) *result[T] { //nolint:revive // t is first in tests
	t.Helper()
	r := &result[T]{done: make(chan struct{})}
	in := make(chan struct{})
	go func() {
		defer close(r.done)
		r.v, r.err = call(queued{ctx, sync.OnceFunc(func() { close(in) })})
	}()
	select {
	case <-in:
	case <-time.After(time.Minute):
		t.Fatal("a caller does not queue")
	}
	return r
}

// block starts one call and holds up its statement.
func block[T any](w *watched, name string, call func(ctx context.Context) (T, error)) (g *gate, r *result[T]) {
	w.t.Helper()
	w.statements()
	g = w.hold(name, 1)
	r = queue(w.t, w.t.Context(), call)
	<-g.arrived
	return g, r
}

func (w *watched) set(rows ...store.Write) func(ctx context.Context) (store.Written, error) {
	return func(ctx context.Context) (store.Written, error) { return w.Put(ctx, rows, false) }
}

func (w *watched) load(rows ...store.Write) func(ctx context.Context) (store.Written, error) {
	return func(ctx context.Context) (store.Written, error) { return w.PutLoaded(ctx, rows, false) }
}

func (w *watched) read(key string) func(ctx context.Context) (store.Row, error) {
	return func(ctx context.Context) (store.Row, error) { return w.Get(ctx, key) }
}

// waitFor waits for what has no signal of its own.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(time.Minute); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within a minute", what)
		}
	}
}

func migrateOn(t *testing.T, db *sql.DB, n store.Names) {
	t.Helper()
	if err := migrate.Run(t.Context(), db, n); err != nil {
		t.Fatal(err)
	}
}
