package prometheus_test

import (
	"context"
	"fmt"
	"strings"
	"testing"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	dto "github.com/prometheus/client_model/go"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
	"github.com/pgcache/go/telemetry/prometheus"
)

// usedCache returns the metrics of a cache that has been used.
func usedCache(t *testing.T) []*dto.MetricFamily {
	t.Helper()
	o := prometheus.NewObserver()
	c := pgcachetest.New(t, pgcache.Options{Observer: o})
	users := pgcache.For[int](c, pgcache.Namespace("user"))
	if err := users.Set(t.Context(), "secret", 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, _, err := users.Get(t.Context(), "secret"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := users.GetOrSet(t.Context(), "2", func(context.Context) (int, error) { return 2, nil }); err != nil {
		t.Fatal(err)
	}
	if _, _, err := pgcache.For[int](c, pgcache.Namespace("no\xffnamespace")).Get(t.Context(), "1"); err == nil { // it would be no label
		t.Error("a namespace that is none: no error")
	}
	reg := prom.NewPedanticRegistry()
	reg.MustRegister(prometheus.NewCollector(c, o))
	problems, err := testutil.GatherAndLint(reg)
	if err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
	families, err := reg.Gather()
	if err != nil {
		t.Fatal(err)
	}
	return families
}

// What the cache does is exposed, and no key.
func TestCollector(t *testing.T) {
	t.Parallel()
	exposed := map[string]bool{}
	for _, f := range usedCache(t) {
		exposed[f.GetName()] = true
		if strings.Contains(f.String(), "secret") {
			t.Errorf("a key is seen in %s", f.GetName())
		}
	}
	for _, name := range []string{
		"pgcache_requests_total", "pgcache_call_duration_seconds", "pgcache_statement_duration_seconds",
		"pgcache_load_duration_seconds", "pgcache_upkeep_duration_seconds", "pgcache_listener_changes_total",
	} {
		if !exposed[name] {
			t.Errorf("%s is not exposed", name)
		}
	}
}

// What the listener has not done yet is counted as 0: of a series that begins with 1, rate and increase miss the first change.
func TestListenerChangesBeginAtZero(t *testing.T) {
	t.Parallel()
	reg := prom.NewPedanticRegistry()
	o := prometheus.NewObserver()
	reg.MustRegister(prometheus.NewCollector(pgcache.Null(), o))
	want := `# HELP pgcache_listener_changes_total Times the listener became live or was lost.
# TYPE pgcache_listener_changes_total counter
pgcache_listener_changes_total{state="down"} 0
pgcache_listener_changes_total{state="up"} %d
`
	for up := range 2 {
		if err := testutil.GatherAndCompare(reg, strings.NewReader(fmt.Sprintf(want, up)), "pgcache_listener_changes_total"); err != nil {
			t.Error(err)
		}
		o.Event(pgcache.Event{Kind: pgcache.EventListenerUp})
	}
}
