package prometheus_test

import (
	"context"
	"os"
	"regexp"
	"strings"
	"testing"

	prom "github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
	"github.com/pgcache/go/telemetry/prometheus"
)

// What the cache does is exposed, and every query of the dashboard is about something that is.
func TestCollector(t *testing.T) {
	t.Parallel()
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
	exposed := map[string]bool{"pgcache_wait_duration_seconds_bucket": true} // nobody has waited here
	labels := map[string]bool{}                                              // "metric label"
	for _, f := range families {
		exposed[f.GetName()] = true
		for _, m := range f.GetMetric() {
			for _, l := range m.GetLabel() {
				labels[f.GetName()+" "+l.GetName()] = true
			}
			if m.GetHistogram() != nil {
				labels[f.GetName()+" le"] = true
			}
		}
		exposed[f.GetName()+"_bucket"], exposed[f.GetName()+"_sum"], exposed[f.GetName()+"_count"] = true, true, true
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
	dashboard, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	names := regexp.MustCompile(`pgcache_[a-z_]+`).FindAllString(string(dashboard), -1)
	if len(names) < 10 {
		t.Errorf("the dashboard asks for %q only", names)
	}
	for _, expr := range regexp.MustCompile(`"expr": ".*"`).FindAllString(string(dashboard), -1) {
		for _, name := range regexp.MustCompile(`pgcache_[a-z_]+`).FindAllString(expr, -1) {
			for _, m := range regexp.MustCompile(`by \(([a-z, ]+)\)|\{([a-z]+)=`).FindAllStringSubmatch(expr, -1) {
				for _, label := range strings.Split(m[1]+m[2], ", ") {
					if !labels[strings.TrimSuffix(name, "_bucket")+" "+label] {
						t.Errorf("%s: %s has no label %s", expr, name, label)
					}
				}
			}
		}
	}
	for _, name := range names {
		if !exposed[name] {
			t.Errorf("the dashboard asks for %s, which is not exposed", name)
		}
	}
}
