package store_test

import (
	"bytes"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
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

// watched is a store on a pool that tells which statements were sent, and can hold them up.
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
	if _, _, err := s.State(w.t.Context()); err != nil { // as a Cache does: it learns what its sessions are like
		w.t.Fatal(err)
	}
	return s
}

// TraceQueryStart implements pgx.QueryTracer.
func (w *watched) TraceQueryStart(ctx context.Context, _ *pgx.Conn, data pgx.TraceQueryStartData) context.Context {
	name, _, _ := strings.Cut(strings.TrimPrefix(data.SQL, "-- name: "), " ")
	name = strings.TrimSuffix(name, "AndTell")
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
	return scan[int](w, "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%' || $1 || '%'", w.Names.Schema) > 0
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

// queued is a context that tells when it is first looked at. A caller that finds a statement under way looks at it when
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
	case <-time.After(30 * time.Second):
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
	case <-time.After(30 * time.Second):
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

// TestLoneCaller: who finds nothing under way sends a statement of its own, one each.
func TestLoneCaller(t *testing.T) {
	t.Parallel()
	w := watch(t)
	for i := range 3 {
		if _, err := w.Put(t.Context(), []store.Write{row("k", fmt.Sprint(i), int64(i+1))}, i%2 == 0); err != nil {
			t.Fatal(err)
		}
		if r, err := w.Get(t.Context(), "k"); err != nil || string(r.Value) != fmt.Sprint(i) {
			t.Error(r, err)
		}
	}
	w.want("PutEntry", "GetEntry", "PutEntry", "GetEntry", "PutEntry", "GetEntry")
	if _, err := w.Put(t.Context(), []store.Write{row("a", "1", 1), row("b", "1", 1)}, false); err != nil {
		t.Fatal(err)
	}
	if _, err := w.GetMany(t.Context(), []string{"a", "b"}); err != nil {
		t.Fatal(err)
	}
	if _, err := w.PutLoaded(t.Context(), []store.Write{row("l", "1", 1)}, false); err != nil {
		t.Fatal(err)
	}
	w.want("PutEntries", "GetEntries", "StoreLoaded")
}

// TestCallersShare: those who come while a statement is under way share the next, and each gets its own answer.
func TestCallersShare(t *testing.T) {
	t.Parallel()
	const k = 40
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		w.exec("INSERT INTO " + w.object("cache_entries") + " (key, version, codec) SELECT 'k' || i, 1, '' FROM generate_series(0, 9) i")
		g, first := block(w, "PutEntry", w.set(row("k0", "first", 2)))
		var calls []*result[store.Written]
		for i := range k {
			calls = append(calls, queue(t, t.Context(), w.set(row(fmt.Sprint("k", i), fmt.Sprint("v", i), int64(i+10)))))
		}
		g.open()
		if out := first.get(t); !out.Stored[0] || !out.Logged[0] {
			t.Errorf("%+v", out)
		}
		for i, c := range calls {
			// A key that is new is nobody's business.
			if d := cmp.Diff([]bool{i < 10}, c.get(t).Logged); d != "" {
				t.Errorf("k%d: logged: %s", i, d)
			}
		}
		w.want("PutEntry", "PutEntries")
		for i := range k {
			if v := w.value(fmt.Sprint("k", i)); v != fmt.Sprint("v", i) {
				t.Errorf("k%d is %q", i, v)
			}
		}
	})
	t.Run("behind a locked row", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		if _, err := w.set(row("k", "v", 1))(t.Context()); err != nil {
			t.Fatal(err)
		}
		tx, err := w.db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback() //nolint:errcheck // it is rolled back below
		if _, err := tx.Exec("SELECT FROM " + w.object("cache_entries") + " WHERE key = 'k' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		w.statements()
		first := queue(t, t.Context(), w.set(row("k", "first", 2)))
		waitFor(t, "the statement waits for the row", w.waiting)
		var calls []*result[store.Written]
		for i := range k {
			calls = append(calls, queue(t, t.Context(), w.set(row(fmt.Sprint("k", i), "v", int64(i+10)))))
		}
		_ = tx.Rollback()
		first.get(t)
		for _, c := range calls {
			c.get(t)
		}
		w.want("PutEntry", "PutEntries")
	})
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		var rows []store.Write
		for i := range k {
			rows = append(rows, row(fmt.Sprint("k", i), fmt.Sprint("v", i), int64(i+1)))
		}
		if _, err := w.Put(t.Context(), rows, false); err != nil {
			t.Fatal(err)
		}
		g, first := block(w, "GetEntry", w.read("k0"))
		g2, second := block(w, "GetEntry", w.read("k1")) // two at a time
		var calls []*result[store.Row]
		for i := range 2 * k {
			calls = append(calls, queue(t, t.Context(), w.read(fmt.Sprint("k", i%(k+10)))))
		}
		many := queue(t, t.Context(), func(ctx context.Context) ([]store.Row, error) {
			return w.GetMany(ctx, []string{"k3", "none", "k3", "k1"})
		})
		g.open()
		for i, c := range calls {
			n := i % (k + 10)
			r := c.get(t)
			if r.Key != fmt.Sprint("k", n) || r.Live() != (n < k) || (n < k && string(r.Value) != fmt.Sprint("v", n)) {
				t.Errorf("k%d: %+v", n, r)
			}
		}
		var got []string
		for _, r := range many.get(t) {
			got = append(got, r.Key+"="+string(r.Value))
		}
		if d := cmp.Diff([]string{"k3=v3", "none=", "k3=v3", "k1=v1"}, got); d != "" {
			t.Error(d)
		}
		g2.open()
		if a, b := first.get(t), second.get(t); string(a.Value) != "v0" || string(b.Value) != "v1" {
			t.Error(a, b)
		}
		w.want("GetEntry", "GetEntries") // the first was reset by the second block
	})
	t.Run("after it", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		// A write that has returned is seen by every read that begins after it, whatever statement the read shares.
		g, first := block(w, "GetEntry", w.read("k"))
		g2, second := block(w, "GetEntry", w.read("k"))
		early := queue(t, t.Context(), w.read("k"))
		if _, err := w.set(row("k", "new", 1))(t.Context()); err != nil {
			t.Fatal(err)
		}
		late := queue(t, t.Context(), w.read("k"))
		g.open()
		g2.open()
		for _, r := range []*result[store.Row]{first, second, early} {
			r.get(t)
		}
		if r := late.get(t); string(r.Value) != "new" {
			t.Errorf("a read that began after the write returned %+v", r)
		}
	})
}

// TestBlockedRow: whoever waits for a row that somebody's transaction holds, waits alone. It may be the holder that writes
// another row here, before it ends its transaction: they would wait for each other, and Postgres would not know.
func TestBlockedRow(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("a", "v", 1))(t.Context()); err != nil {
		t.Fatal(err)
	}
	tx, err := w.db.BeginTx(t.Context(), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer tx.Rollback() //nolint:errcheck // it is committed below
	if _, err := tx.Exec("UPDATE " + w.object("cache_entries") + " SET value = 'held' WHERE key = 'a'"); err != nil {
		t.Fatal(err)
	}
	blocked := queue(t, t.Context(), w.set(row("a", "w", 2)))
	waitFor(t, "the statement waits for the row", w.waiting)
	for i := range 3 {
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		if _, err := w.set(row("b", fmt.Sprint(i), int64(i+3)))(ctx); err != nil {
			t.Error("a write of another row:", err)
		}
		cancel()
	}
	if err := tx.Commit(); err != nil {
		t.Fatal(err)
	}
	blocked.get(t)
	if a, b := w.value("a"), w.value("b"); a != "w" || b != "2" {
		t.Error(a, b)
	}
}

// TestMixedSizes: calls for one row and for many share statements, of at most 1000 rows or 8 MiB.
func TestMixedSizes(t *testing.T) {
	t.Parallel()
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		var many []store.Write
		for i := range 500 {
			many = append(many, row(fmt.Sprint("m", i), "v", int64(i+1)))
		}
		g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
		a := queue(t, t.Context(), w.set(many...))
		b := queue(t, t.Context(), w.set(row("k", "w", 2)))
		c := queue(t, t.Context(), w.set(slices.Clone(many[:400])...))
		d := queue(t, t.Context(), w.set(slices.Clone(many[:200])...)) // does not fit any more
		e := queue(t, t.Context(), w.set(row("l", "v", 3)))
		g.open()
		first.get(t)
		for call, n := range map[*result[store.Written]]int{a: 500, b: 1, c: 400, d: 200, e: 1} {
			if out := call.get(t); len(out.Stored) != n || len(out.Logged) != n || slices.Contains(out.Stored, false) {
				t.Errorf("%d stored, %d logged, want %d", len(out.Stored), len(out.Logged), n)
			}
		}
		w.want("PutEntry", "PutEntries", "PutEntries")
		if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")); n != 502 {
			t.Errorf("%d rows", n)
		}
	})
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		keys := make([]string, 600)
		for i := range keys {
			keys[i] = fmt.Sprint("k", i)
		}
		many := func(ctx context.Context) ([]store.Row, error) { return w.GetMany(ctx, keys) }
		g, first := block(w, "GetEntry", w.read("k"))
		g2, second := block(w, "GetEntry", w.read("k"))
		a := queue(t, t.Context(), many)
		b := queue(t, t.Context(), many)
		c := queue(t, t.Context(), w.read("k"))
		g.open()
		if len(a.get(t)) != 600 || len(b.get(t)) != 600 || c.get(t).Key != "k" {
			t.Error("rows are missing")
		}
		g2.open()
		first.get(t)
		second.get(t)
		w.want("GetEntry", "GetEntries", "GetEntries")
	})
	t.Run("2500 rows", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		var rows []store.Write
		for i := range 2500 {
			rows = append(rows, row(fmt.Sprint("k", i), "v", int64(i+1)))
		}
		rows[2400].Key = "\xff"
		out, err := w.Put(t.Context(), rows, false)
		if sqlerr.State(err) == "" {
			t.Error(err)
		}
		// The first two statements are done, and the caller learns what has become of their rows.
		if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")); n != 2000 || len(out.Stored) != 2000 || len(out.Logged) != 2000 {
			t.Errorf("%d rows; told of %d", n, len(out.Stored))
		}
		w.want("PutEntries", "PutEntries", "PutEntries")
	})
}

// TestLargest: nothing and 8 MiB, alone and in statements that carry both.
func TestLargest(t *testing.T) {
	t.Parallel()
	w := watch(t)
	big := bytes.Repeat([]byte{0, 255, '\\', '\''}, 2<<20)
	values := []struct {
		key   string
		value []byte
	}{{"big", big}, {"empty", []byte{}}, {"half", big[:4<<20]}, {"none", nil}, {"half2", big[:4<<20]}, {"one", []byte{0}}}
	put := func(i int) func(ctx context.Context) (store.Written, error) {
		return w.set(store.Write{Key: values[i].key, Value: values[i].value, Version: 1, TTL: time.Hour, Codec: "c"})
	}
	check := func() {
		t.Helper()
		for _, v := range values {
			r, err := w.Get(t.Context(), v.key)
			if err != nil || !bytes.Equal(r.Value, v.value) || r.Live() != (v.value != nil) || r.Version != 1 {
				t.Errorf("%s: %d bytes, live %v, version %d, %v", v.key, len(r.Value), r.Live(), r.Version, err)
			}
		}
		w.exec("TRUNCATE " + w.object("cache_entries"))
	}
	for i := range values {
		if _, err := put(i)(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	check()
	g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
	calls := []*result[store.Written]{first}
	for i := range values {
		calls = append(calls, queue(t, t.Context(), put(i)))
	}
	g.open()
	for _, c := range calls {
		c.get(t)
	}
	// A statement carries 8 MiB; what is heavier by itself, alone.
	w.want("PutEntry", "PutEntry", "PutEntries", "PutEntries")
	check()
}

// TestDuplicates: a statement can't touch a row twice, so of several writes of one key the last is written. The others
// are overwritten at once, and leave no trace.
func TestDuplicates(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("k", "v", 1), row("l", "v", 2), row("m", "v", 3))(t.Context()); err != nil {
		t.Fatal(err)
	}
	gone := store.Write{Key: "m", Version: 14, TTL: time.Hour, Codec: "c", Loud: true}
	g, first := block(w, "PutEntry", w.set(row("x", "v", 9)))
	a := queue(t, t.Context(), w.set(row("k", "a", 10)))
	b := queue(t, t.Context(), w.set(row("k", "b", 11), row("l", "b", 12), row("m", "b", 13)))
	c := queue(t, t.Context(), w.set(gone))
	d := queue(t, t.Context(), w.set(row("k", "d", 15)))
	g.open()
	first.get(t)
	for name, test := range map[string]struct {
		call   *result[store.Written]
		logged []bool
	}{
		"a": {a, []bool{false}},
		"b": {b, []bool{false, true, false}},
		"c": {c, []bool{true}},
		"d": {d, []bool{true}},
	} {
		out := test.call.get(t)
		if diff := cmp.Diff(test.logged, out.Logged); diff != "" || slices.Contains(out.Stored, false) {
			t.Errorf("%s: %+v %s", name, out, diff)
		}
	}
	w.want("PutEntry", "PutEntries")
	got := w.value("k") + w.value("l") + w.value("m")
	if versions := scan[string](w, "SELECT string_agg(version::text, ' ' ORDER BY version) FROM "+w.object("cache_changes")); got != "db" || versions != "12 14 15" {
		t.Errorf("values %q, logged %s", got, versions)
	}
}

// TestInlineWins: if one of the writes that share a statement is to tell itself, all of them do.
func TestInlineWins(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("a", "", 1), row("b", "", 1), row("c", "", 1))(t.Context()); err != nil {
		t.Fatal(err)
	}
	ear := w.listen()
	g, first := block(w, "PutEntry", w.set(row("x", "v", 9)))
	calls := []*result[store.Written]{first}
	for i, key := range []string{"a", "b", "c"} {
		calls = append(calls, queue(t, t.Context(), func(ctx context.Context) (store.Written, error) {
			return w.Put(ctx, []store.Write{row(key, "v", int64(i+2))}, i == 1)
		}))
	}
	g.open()
	for _, c := range calls {
		if out := c.get(t); slices.Contains(out.Logged, true) {
			t.Errorf("%+v", out)
		}
	}
	told := ear.told()
	if d := cmp.Diff(map[string][]int64{"a": {2}, "b": {3}, "c": {4}}, told.versions); d != "" || told.messages != 1 || w.logged() != 0 {
		t.Errorf("%+v %s; %d logged", told, d, w.logged())
	}
}

// TestGivingUp: whoever leaves, leaves alone.
func TestGivingUp(t *testing.T) {
	t.Parallel()
	t.Run("in the queue", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		gone, leave := context.WithCancel(t.Context())
		g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
		a := queue(t, t.Context(), w.set(row("a", "v", 2)))
		b := queue(t, gone, w.set(row("b", "v", 3)))
		c := queue(t, t.Context(), w.set(row("c", "v", 4)))
		leave()
		if _, err := b.both(t); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		g.open()
		first.get(t)
		a.get(t)
		c.get(t)
		w.want("PutEntry", "PutEntries")
		if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")+" WHERE key = 'b'"); n > 0 {
			t.Error("what nobody waits for any more was written")
		}
	})
	for name, leaver := range map[string]int{"the first of a statement": 0, "another": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			gone, leave := context.WithCancel(t.Context())
			g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
			shared := w.hold("PutEntries", 1)
			var calls []*result[store.Written]
			for i := range 3 {
				ctx := t.Context()
				if i == leaver {
					ctx = gone
				}
				calls = append(calls, queue(t, ctx, w.set(row(fmt.Sprint(i), "v", int64(i+2)))))
			}
			g.open()
			first.get(t)
			<-shared.arrived
			leave()
			if _, err := calls[leaver].both(t); !errors.Is(err, context.Canceled) {
				t.Error(err)
			}
			shared.open()
			for i, c := range calls {
				if i != leaver {
					c.get(t)
				}
			}
			w.want("PutEntry", "PutEntries")
			if n := scan[int](w, "SELECT count(*) FROM "+w.object("cache_entries")); n != 4 {
				t.Errorf("%d rows: those who stayed have lost what was sent with one who left", n)
			}
		})
	}
	t.Run("the one whose statement it is", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		gone, leave := context.WithCancel(t.Context())
		g := w.hold("PutEntry", 1)
		a := queue(t, gone, w.set(row("a", "v", 1)))
		<-g.arrived
		b := queue(t, t.Context(), w.set(row("b", "v", 2)))
		leave()
		g.open()
		if _, err := a.both(t); !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		b.get(t)
		w.want("PutEntry", "PutEntry")
	})
}

// TestErrorsReachTheirCallers: what the server refuses of one caller fails that caller alone; a statement that can't be
// sent fails all.
func TestErrorsReachTheirCallers(t *testing.T) {
	t.Parallel()
	t.Run("writes", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		w.exec(`ALTER TABLE ` + w.object("cache_entries") + ` ADD CONSTRAINT polite CHECK (key <> 'rude')`)
		g, first := block(w, "PutEntry", w.set(row("k", "v", 1)))
		calls := map[string]*result[store.Written]{}
		for i, key := range []string{"a", "rude", "b", "\xff", "c"} {
			calls[key] = queue(t, t.Context(), w.set(row(key, "v", int64(i+2)), row(key+"2", "v", int64(i+2))))
		}
		g.open()
		first.get(t)
		for key, c := range calls {
			_, err := c.both(t)
			if state := map[string]string{"rude": "23514", "\xff": "22021"}[key]; sqlerr.State(err) != state {
				t.Errorf("%q: %v, want %q", key, err, state)
			}
		}
		if keys := scan[string](w, "SELECT string_agg(key, ' ' ORDER BY key) FROM "+w.object("cache_entries")); keys != "a a2 b b2 c c2 k" {
			t.Errorf("stored: %s", keys)
		}
	})
	t.Run("reads", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		g, first := block(w, "GetEntry", w.read("k"))
		g2, second := block(w, "GetEntry", w.read("k"))
		good, bad := queue(t, t.Context(), w.read("k")), queue(t, t.Context(), w.read("\xff"))
		many := queue(t, t.Context(), func(ctx context.Context) ([]store.Row, error) { return w.GetMany(ctx, []string{"a", "b"}) })
		g.open()
		g2.open()
		first.get(t)
		second.get(t)
		good.get(t)
		many.get(t)
		if _, err := bad.both(t); sqlerr.State(err) != "22021" {
			t.Error(err)
		}
	})
	t.Run("all", func(t *testing.T) {
		t.Parallel()
		w := watch(t)
		g, first := block(w, "StoreLoaded", w.load(row("k", "v", 1)))
		a := queue(t, t.Context(), w.load(row("a", "v", 2)))
		b := queue(t, t.Context(), w.load(row("\xff", "v", 3)))
		g.open()
		first.get(t)
		// What was loaded is handed out anyway, and a statement of a load is never sent twice.
		for _, r := range []*result[store.Written]{a, b} {
			if _, err := r.both(t); sqlerr.State(err) != "22021" {
				t.Error(err)
			}
		}
		w.want("StoreLoaded", "StoreLoaded")
	})
}

// TestSharedLoads: loads that share a statement are fenced each by its own base and generation.
func TestSharedLoads(t *testing.T) {
	t.Parallel()
	w := watch(t)
	if _, err := w.set(row("same", "v", 1), row("changed", "v", 2), row("there", "v", 3), row("old", "v", 4), row("twice", "v", 5))(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := w.Generation(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	loaded := func(key string, version, base, generation int64) store.Write {
		l := row(key, fmt.Sprint("loaded", version), version)
		l.Base, l.Generation = base, generation
		return l
	}
	g, first := block(w, "StoreLoaded", w.load(loaded("x", 9, 0, now)))
	type call struct {
		rows   []store.Write
		stored []bool
		logged []bool
		r      *result[store.Written]
	}
	calls := []*call{
		{rows: []store.Write{loaded("same", 11, 1, now)}, stored: []bool{true}, logged: []bool{true}},
		{rows: []store.Write{loaded("changed", 12, 77, now), loaded("new", 13, 0, now)}, stored: []bool{false, true}, logged: []bool{false, false}},
		{rows: []store.Write{loaded("there", 14, 0, now)}, stored: []bool{false}, logged: []bool{false}},
		{rows: []store.Write{loaded("old", 15, 4, now-1), loaded("old2", 16, 0, now-1)}, stored: []bool{false, false}, logged: []bool{false, false}},
		{rows: []store.Write{loaded("twice", 17, 5, now)}, stored: []bool{true}, logged: []bool{true}},
		{rows: []store.Write{loaded("twice", 18, 5, now), loaded("new2", 19, 0, now)}, stored: []bool{false, true}, logged: []bool{false, false}},
	}
	for _, c := range calls {
		c.r = queue(t, t.Context(), w.load(c.rows...))
	}
	g.open()
	first.get(t)
	for _, c := range calls {
		out := c.r.get(t)
		if d := cmp.Diff(c.stored, out.Stored) + cmp.Diff(c.logged, out.Logged); d != "" {
			t.Errorf("%s: %s", c.rows[0].Key, d)
		}
	}
	w.want("StoreLoaded", "StoreLoaded")
	for key, want := range map[string]string{
		"same": "loaded11", "changed": "v", "new": "loaded13", "there": "v", "old": "v", "old2": "", "twice": "loaded17", "new2": "loaded19",
	} {
		if v := w.value(key); v != want {
			t.Errorf("%s is %q, want %q", key, v, want)
		}
	}
}

// TestLoadsRace: a write that commits while the statement of a load waits for its row is not stored over.
func TestLoadsRace(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		before []store.Write
		write  string
		base   int64
		wants  string
	}{
		"a new version":  {[]store.Write{row("k", "v", 1)}, "UPDATE %s SET version = 2, value = 'new'", 1, "new"},
		"a new row":      {nil, "INSERT INTO %s (key, version, value, codec) VALUES ('k', 2, 'new', '')", 0, "new"},
		"rolled back":    {[]store.Write{row("k", "v", 1)}, "UPDATE %s SET version = 2; ROLLBACK", 1, "loaded"},
		"the same still": {[]store.Write{row("k", "v", 1)}, "SELECT FROM %s FOR UPDATE", 1, "loaded"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := watch(t)
			if len(test.before) > 0 {
				if _, err := w.set(test.before...)(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			generation, err := w.Generation(t.Context())
			if err != nil {
				t.Fatal(err)
			}
			tx, err := w.db.BeginTx(t.Context(), nil)
			if err != nil {
				t.Fatal(err)
			}
			defer tx.Rollback() //nolint:errcheck // it is ended below
			write, rollback := strings.CutSuffix(test.write, "; ROLLBACK")
			if _, err := tx.Exec(fmt.Sprintf(write, w.object("cache_entries"))); err != nil {
				t.Fatal(err)
			}
			load := row("k", "loaded", 9)
			load.Base, load.Generation = test.base, generation
			r := queue(t, t.Context(), w.load(load))
			waitFor(t, "the load waits for the row", w.waiting)
			if rollback {
				_ = tx.Rollback()
			} else if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
			if out := r.get(t); out.Stored[0] != (test.wants == "loaded") || w.value("k") != test.wants {
				t.Errorf("%+v, the row has %q, want %q", out, w.value("k"), test.wants)
			}
		})
	}
}

// TestNoDeadlocks: statements of several nodes that write the same rows lock them in the same order.
func TestNoDeadlocks(t *testing.T) {
	t.Parallel()
	w := watch(t)
	var wg sync.WaitGroup
	for n := range 4 {
		s := w.another(w.Names)
		wg.Go(func() {
			for r := range 20 {
				var rows []store.Write
				for _, k := range rand.Perm(100) {
					rows = append(rows, row(fmt.Sprint("k", k), "v", int64(n*1_000_000+r*1000+k+1)))
				}
				if _, err := s.Put(t.Context(), rows, false); err != nil {
					t.Error(err)
				}
				if _, err := s.Flush(t.Context(), "2"); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.deadlocks > 0 {
		t.Errorf("%d deadlocks", w.deadlocks)
	}
}

// TestManyCallers: with a hundred callers at once, there are few statements, and all get what is theirs.
func TestManyCallers(t *testing.T) {
	t.Parallel()
	w := watch(t)
	const callers, rounds = 100, 20
	var wg sync.WaitGroup
	for c := range callers {
		wg.Go(func() {
			key := fmt.Sprint("k", c)
			for i := range rounds {
				value := fmt.Sprint(c, " ", i)
				if _, err := w.Put(t.Context(), []store.Write{row(key, value, int64(c*rounds+i+1))}, false); err != nil {
					t.Error(err)
				}
				if r, err := w.Get(t.Context(), key); err != nil || string(r.Value) != value {
					t.Errorf("%s: %q, %v; wrote %q", key, r.Value, err, value)
				}
			}
		})
	}
	wg.Wait()
	if n := len(w.statements()); n > callers*rounds {
		t.Errorf("%d statements for %d calls", n, 2*callers*rounds)
	}
}

// waitFor waits for what has no signal of its own.
func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("%s: not within 20 s", what)
		}
	}
}

func migrateOn(t *testing.T, db *sql.DB, n store.Names) {
	t.Helper()
	if err := migrate.Run(t.Context(), db, n); err != nil {
		t.Fatal(err)
	}
}
