package pgcachetest

import (
	"context"
	"database/sql"
	"log/slog"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/inside"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testserver"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// waitLimit is how long the helpers wait. What they wait for takes milliseconds, unless the machine is busy.
const waitLimit = 30 * time.Second

// Node is a cache as one process of a service has it, and what can be done to it.
type Node struct {
	*pgcache.Cache
	DB       *sql.DB   // its pool
	Faults   *Faults   // of the pool, and of the listener's connection if Options.Listener was nil
	Listener *Listener // nil with NoListener
}

// New returns a cache that is migrated and ready, in a schema of its own, and closed when the test ends. It works as in
// production: a nil Listener in o means pgx's. Schema is set to the test's; a nil Logger means the test's log.
func New(t TB, o pgcache.Options) *pgcache.Cache {
	t.Helper()
	return Nodes(t, 1, o)[0].Cache
}

// Nodes returns n nodes of one cache, each as New makes it, with a pool and a listener of its own, as n processes of a service
// have them. What one writes the others see some milliseconds later, or at once after Sync.
func Nodes(t TB, n int, o pgcache.Options) []*Node {
	t.Helper()
	if n > 1 && o.Local != nil && o.Local != localcache.None() {
		t.Fatalf("pgcachetest: nodes can't share the memory in Options.Local; leave it nil")
	}
	dsn := testserver.Server(t).DSN
	o.Schema = testserver.Schema(t)
	dsn = pgserver.WithParam(dsn, "search_path", o.Schema)
	if o.Logger == nil {
		o.Logger = logTo(t)
	}
	nodes := make([]*Node, n)
	for i := range nodes {
		nodes[i] = newNode(t, dsn, o)
	}
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	for _, node := range nodes {
		if err := node.Ready(ctx); err != nil {
			t.Fatalf("pgcachetest: %v", err)
		}
	}
	return nodes
}

// newNode returns one node of Nodes, migrated, but not yet ready.
func newNode(t TB, dsn string, o pgcache.Options) *Node {
	t.Helper()
	node := &Node{}
	node.DB, node.Faults = openWithFaults(t, dsn)
	switch l := o.Listener.(type) {
	case noListener:
		o.Listener = nil
	case *Listener:
		node.Listener = l
	case nil:
		// In production listeners wait longer before they connect again, to spare the server; a test should not.
		node.Listener = NewListener(listener.New(pgxdriver.Dial(node.DB), listener.Config{
			BackoffMin: 10 * time.Millisecond, BackoffMax: 100 * time.Millisecond, Logger: o.Logger,
		}))
		o.Listener = node.Listener
	default:
		node.Listener = NewListener(l)
		o.Listener = node.Listener
	}
	var err error
	if node.Cache, err = pgcache.New(node.DB, o); err != nil {
		t.Fatalf("pgcachetest: %v", err)
	}
	known.add(node.Cache)
	t.Cleanup(func() {
		known.remove(node.Cache)
		node.Faults.Mend() // else Close would wait for stalled statements
		if err := node.Close(); err != nil {
			t.Errorf("pgcachetest: closing a cache: %v", err)
		}
	})
	ctx, cancel := context.WithTimeout(context.Background(), waitLimit)
	defer cancel()
	if err := node.Migrate(ctx); err != nil {
		t.Fatalf("pgcachetest: %v", err)
	}
	return node
}

// known are the open caches of Nodes, with the names of their tables.
var known = registry{caches: map[*pgcache.Cache]string{}}

type registry struct {
	mu     sync.Mutex
	caches map[*pgcache.Cache]string
}

func (r *registry) add(c *pgcache.Cache) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.caches[c] = inside.Of(c).Names.Table()
}

func (r *registry) remove(c *pgcache.Cache) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.caches, c)
}

// beside returns c and, if it is known, the other known caches on its table.
func (r *registry) beside(c *pgcache.Cache) []*pgcache.Cache {
	r.mu.Lock()
	defer r.mu.Unlock()
	all := []*pgcache.Cache{c}
	for other, table := range r.caches {
		if own, ok := r.caches[c]; ok && other != c && table == own {
			all = append(all, other)
		}
	}
	return all
}

// logTo returns a logger that writes to the test's log until the test ends.
func logTo(t TB) *slog.Logger {
	w := &testLog{t: t}
	t.Cleanup(w.end)
	return slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{ReplaceAttr: func(groups []string, a slog.Attr) slog.Attr {
		if len(groups) == 0 && a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
}

// testLog writes to the log of a test until the test ends. After that it drops what it gets, as writing would panic.
type testLog struct {
	mu sync.Mutex
	t  TB
}

func (w *testLog) Write(line []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.t != nil {
		w.t.Logf("%s", strings.TrimSuffix(string(line), "\n"))
	}
	return len(line), nil
}

func (w *testLog) end() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.t = nil
}
