package prometheus_test

import (
	"encoding/json"
	"os"
	"regexp"
	"strings"
	"testing"
)

type dashboard struct {
	Templating struct {
		List []struct {
			Name       string
			Definition string
		}
	}
	Panels []struct {
		ID      int
		Type    string
		Title   string
		GridPos struct{ X, Y, W, H int }
		Targets []struct{ RefID, Expr, LegendFormat string }
	}
}

var (
	selector = regexp.MustCompile(`(pgcache_[a-z_]+)(?:\{([^}]*)\})?`)
	matcher  = regexp.MustCompile(`^([a-z_]+)(?:=|=~)"([^"]*)"$`)
	grouped  = regexp.MustCompile(`by \(([^)]*)\)`)
	inLegend = regexp.MustCompile(`\{\{([^}]*)\}\}`)
	variable = regexp.MustCompile(`\$\{?(\w+)`)
)

// Every query of the dashboard is about metrics, labels and values of labels that are exposed, and about variables that it has.
func TestDashboard(t *testing.T) {
	t.Parallel()
	labels := map[string]map[string]map[string]bool{} // metric, label, value
	for _, f := range usedCache(t) {
		of := map[string]map[string]bool{"job": nil, "instance": nil} // Prometheus adds them
		histogram := false
		for _, m := range f.GetMetric() {
			histogram = histogram || m.GetHistogram() != nil
			for _, l := range m.GetLabel() {
				if of[l.GetName()] == nil {
					of[l.GetName()] = map[string]bool{}
				}
				of[l.GetName()][l.GetValue()] = true
			}
		}
		name := f.GetName()
		if !histogram {
			labels[name] = of
			continue
		}
		labels[name+"_sum"], labels[name+"_count"] = of, of
		bucket := map[string]map[string]bool{"le": nil}
		for l, values := range of {
			bucket[l] = values
		}
		labels[name+"_bucket"] = bucket
	}

	content, err := os.ReadFile("dashboard.json")
	if err != nil {
		t.Fatal(err)
	}
	var d dashboard
	if err := json.Unmarshal(content, &d); err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{"__rate_interval": true, "__all": true} // Grafana's own
	for _, v := range d.Templating.List {
		known[v.Name] = true
	}
	for _, v := range variable.FindAllStringSubmatch(string(content), -1) {
		if !known[v[1]] {
			t.Errorf("there is no variable %s", v[0])
		}
	}
	check := func(where, expr string) {
		used := selector.FindAllStringSubmatch(expr, -1)
		if len(used) == 0 {
			t.Errorf("%s: no metric in %s", where, expr)
		}
		for _, s := range used {
			has, ok := labels[s[1]]
			if !ok {
				t.Errorf("%s: %s is not exposed", where, s[1])
				continue
			}
			for m := range strings.SplitSeq(s[2], ",") {
				if m == "" {
					continue
				}
				parts := matcher.FindStringSubmatch(m)
				if parts == nil {
					t.Errorf("%s: %s is no matcher that this test understands", where, m)
					continue
				}
				values, ok := has[parts[1]]
				if !ok {
					t.Errorf("%s: %s has no label %s", where, s[1], parts[1])
				}
				if ok && !strings.HasPrefix(parts[2], "$") && !values[parts[2]] {
					t.Errorf("%s: %s has no %s", where, s[1], m)
				}
			}
			for _, by := range grouped.FindAllStringSubmatch(expr, -1) {
				for label := range strings.SplitSeq(by[1], ", ") {
					if _, ok := has[label]; !ok {
						t.Errorf("%s: %s has no label %s", where, s[1], label)
					}
				}
			}
		}
	}
	for _, v := range d.Templating.List {
		if v.Definition != "" {
			check("variable "+v.Name, v.Definition)
		}
	}
	if len(d.Panels) < 10 {
		t.Errorf("%d panels", len(d.Panels))
	}
	ids := map[int]bool{}
	cells := map[[2]int]string{}
	for _, p := range d.Panels {
		if ids[p.ID] || len(p.Targets) == 0 {
			t.Errorf("%s: the id %d, %d queries", p.Title, p.ID, len(p.Targets))
		}
		ids[p.ID] = true
		for x := p.GridPos.X; x < p.GridPos.X+p.GridPos.W; x++ {
			for y := p.GridPos.Y; y < p.GridPos.Y+p.GridPos.H; y++ {
				if other, ok := cells[[2]int{x, y}]; ok || x >= 24 {
					t.Fatalf("%s is upon %q or beyond the edge", p.Title, other)
				}
				cells[[2]int{x, y}] = p.Title
			}
		}
		for _, q := range p.Targets {
			check(p.Title+" "+q.RefID, q.Expr)
			by := grouped.FindStringSubmatch(q.Expr)
			for _, l := range inLegend.FindAllStringSubmatch(q.LegendFormat, -1) {
				if by == nil || !strings.Contains(", "+by[1]+",", ", "+l[1]+",") {
					t.Errorf("%s: the legend's %s is not in the result of %s", p.Title, l[1], q.Expr)
				}
			}
		}
	}
}
