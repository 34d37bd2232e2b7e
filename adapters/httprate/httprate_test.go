package httprate_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-chi/httprate"

	pghttprate "github.com/pgcache/go/adapters/httprate"
	"github.com/pgcache/go/adapters/internal/upstream"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// newCounter is what the test of httprate gets instead of its own counter. A thousand callers at once take longer than a request may.
func newCounter(t testing.TB) *pghttprate.Counter {
	c := pghttprate.New(pgcachetest.New(t, pgcache.Options{Timeout: time.Minute}), "")
	c.Timeout = time.Minute
	return c
}

var _ = newCounter // used by the test of httprate

// httprate's test of a LimitCounter: a thousand keys in four windows.
func TestUpstream(t *testing.T) {
	t.Parallel()
	upstream.Run(t, upstream.Suite{
		Module: "github.com/go-chi/httprate",
		Files:  []string{"local_counter_test.go"},
		Replace: []string{
			"httprate.NewLocalLimitCounter(time.Minute)", "newCounter(t)",
			"\t\"github.com/go-chi/httprate\"\n", "",
			"BenchmarkLocalCounter(b *testing.B) {", "BenchmarkLocalCounter(t *testing.B) {\n\tb := t",
		},
		Run: "^TestLocalCounter$",
		Min: 1,
	})
}

// The limit is one for two processes, and no request is counted twice or not at all.
func TestLimit(t *testing.T) {
	t.Parallel()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	var handlers []http.Handler
	for _, node := range nodes {
		c := pghttprate.New(node.Cache, "login")
		c.Timeout = 10 * time.Second
		limit := httprate.LimitBy(10, time.Hour, httprate.Key("client\x00"), httprate.WithLimitCounter(c))
		handlers = append(handlers, limit(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {})))
	}
	passed := 0
	for i := range 30 {
		w := httptest.NewRecorder()
		handlers[i%2].ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/", nil))
		if w.Code == http.StatusOK {
			passed++
		}
		pgcachetest.Sync(t, nodes[0].Cache, nodes[1].Cache)
	}
	if passed != 10 {
		t.Errorf("%d requests passed, want 10", passed)
	}

	window := time.Now().Truncate(time.Hour)
	var wg sync.WaitGroup
	counters := []*pghttprate.Counter{pghttprate.New(nodes[0].Cache, "exact"), pghttprate.New(nodes[1].Cache, "exact")}
	for i := range 200 {
		c := counters[i%2]
		c.Timeout = 10 * time.Second
		wg.Go(func() {
			if err := c.Increment("key", window); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	pgcachetest.Sync(t, nodes[0].Cache)
	if n, _, err := counters[0].Get("key", window, window.Add(-time.Hour)); err != nil || n != 200 {
		t.Errorf("%d, %v; want 200", n, err)
	}
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	node.Faults.Stall()
	defer node.Faults.Mend()
	window := time.Now().Truncate(time.Minute)
	c := pghttprate.New(node.Cache, "")
	if err := c.Increment("key", window); err == nil {
		t.Error("no error without a fallback")
	}
	c = pghttprate.New(node.Cache, "")
	errs := 0
	c.Fallback, c.OnError = httprate.NewLocalLimitCounter(0), func(error) { errs++ }
	c.Config(10, time.Minute)
	if err := c.Increment("key", window); err != nil {
		t.Error(err)
	}
	if n, _, err := c.Get("key", window, window.Add(-time.Minute)); err != nil || n != 1 || errs != 2 {
		t.Errorf("with a fallback: %d, %v, %d errors reported", n, err, errs)
	}
}

// Limiters may have any names, and each counts for itself.
func TestNames(t *testing.T) {
	t.Parallel()
	cache := pgcachetest.New(t, pgcache.Options{})
	window := time.Now().Truncate(time.Minute)
	for i, name := range []string{"login:ip", "login~1ip", "login", ":", "", "\x00", "\xff", strings.Repeat("n", 5000), strings.Repeat("n", 5001)} {
		c := pghttprate.New(cache, name)
		c.Timeout = 10 * time.Second
		if err := c.IncrementBy("key", window, i+1); err != nil {
			t.Errorf("%.20q: %v", name, err)
		}
		if n, _, err := c.Get("key", window, window.Add(-time.Minute)); err != nil || n != i+1 {
			t.Errorf("%.20q: %d, %v; want %d", name, n, err, i+1)
		}
	}
}
