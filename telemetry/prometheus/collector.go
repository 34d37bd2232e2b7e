// Package prometheus makes Prometheus metrics of what a pgcache.Cache does: a collector over its Stats, and an Observer with
// histograms. dashboard.json is a Grafana dashboard over both.
package prometheus

import (
	"context"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/pgcache/go/pgcache"
)

// Observer is for Options.Observer of one Cache; hand it to NewCollector too. It keeps histograms, of seconds where they are of durations,
// and is safe for concurrent use.
type Observer struct {
	calls, statements, waits, loads, upkeep *prometheus.HistogramVec
	shared, late                            prometheus.Histogram
	listener                                *prometheus.CounterVec
}

// NewObserver returns an Observer that has seen nothing yet. It registers nothing: NewCollector collects what it keeps.
func NewObserver() *Observer {
	seconds := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	vec := func(name, help string, labels ...string) *prometheus.HistogramVec {
		return prometheus.NewHistogramVec(prometheus.HistogramOpts{Name: name, Help: help, Buckets: seconds}, labels)
	}
	o := &Observer{
		calls:      vec("pgcache_call_duration_seconds", "Calls that memory alone did not answer.", "operation", "view", "layer", "result"),
		statements: vec("pgcache_statement_duration_seconds", "Statements that read or write entries.", "operation", "result"),
		waits:      vec("pgcache_wait_duration_seconds", "Waits for a read that another caller began.", "view", "result"),
		loads:      vec("pgcache_load_duration_seconds", "Calls of loaders.", "view", "result"),
		upkeep:     vec("pgcache_upkeep_duration_seconds", "What the node does by itself.", "operation", "result"),
		shared: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pgcache_statement_callers", Help: "Callers that share a statement.", Buckets: prometheus.ExponentialBuckets(1, 2, 10),
		}),
		late: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "pgcache_invalidation_delay_seconds", Help: "From the reply to a write of this node until its invalidation came back.", Buckets: seconds,
		}),
		listener: prometheus.NewCounterVec(prometheus.CounterOpts{Name: "pgcache_listener_changes_total", Help: "Times the listener became live or was lost."}, []string{"state"}),
	}
	for _, state := range []string{"up", "down"} { // from 0 on: rate and increase don't see a series' first value
		o.listener.WithLabelValues(state)
	}
	return o
}

// Open implements pgcache.Observer. It does nothing: the collector has the Cache.
func (*Observer) Open(func() pgcache.Stats) func() { return nil }

// Begin implements pgcache.Observer.
func (o *Observer) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	began := time.Now()
	if op.Kind == pgcache.OpStatement {
		o.shared.Observe(float64(max(1, len(op.Callers))))
	}
	return ctx, func(out pgcache.Outcome) {
		took, result := time.Since(began).Seconds(), out.Result()
		switch op.Kind {
		case pgcache.OpCall:
			o.calls.WithLabelValues(op.Name, op.View, string(out.Layer), result).Observe(took)
		case pgcache.OpStatement:
			o.statements.WithLabelValues(op.Name, result).Observe(took)
		case pgcache.OpWait:
			o.waits.WithLabelValues(op.View, result).Observe(took)
		case pgcache.OpLoad:
			o.loads.WithLabelValues(op.View, result).Observe(took)
		case pgcache.OpUpkeep:
			o.upkeep.WithLabelValues(op.Name, result).Observe(took)
		}
	}
}

// Event implements pgcache.Observer.
func (o *Observer) Event(e pgcache.Event) {
	switch e.Kind {
	case pgcache.EventListenerUp:
		o.listener.WithLabelValues("up").Inc()
	case pgcache.EventListenerDown:
		o.listener.WithLabelValues("down").Inc()
	case pgcache.EventPublished:
		o.late.Observe(e.Late.Seconds())
	}
}

func (o *Observer) collectors() []prometheus.Collector {
	return []prometheus.Collector{o.calls, o.statements, o.waits, o.loads, o.upkeep, o.shared, o.late, o.listener}
}

type collector struct {
	cache    *pgcache.Cache
	observer *Observer
}

// NewCollector returns a collector, to be registered once, of what cache counts and observer measures; observer may be nil. Where a program has several
// caches, register each with prometheus.WrapRegistererWith and a label of its own.
func NewCollector(cache *pgcache.Cache, observer *Observer) prometheus.Collector {
	return collector{cache, observer}
}

func desc(name, help string, labels ...string) *prometheus.Desc {
	return prometheus.NewDesc(name, help, labels, nil)
}

var (
	requests  = desc("pgcache_requests_total", "Keys asked for, by the layer that had them; none: there was nothing.", "view", "layer")
	writes    = desc("pgcache_writes_total", "Keys set and deleted.", "view", "operation")
	loads     = desc("pgcache_loads_total", "Calls of loaders, by result.", "view", "result")
	coalesced = desc("pgcache_loads_coalesced_total", "Callers that shared another caller's load.", "view")
)

// ofNode are the numbers of the node.
var ofNode = []struct {
	desc *prometheus.Desc
	n    func(s *pgcache.Stats) uint64
}{
	{desc("pgcache_loads_fenced_total", "Loaded values not stored, because the key was written meanwhile."), func(s *pgcache.Stats) uint64 { return s.Fenced }},
	{desc("pgcache_invalidations_total", "Keys whose invalidation was received."), func(s *pgcache.Stats) uint64 { return s.Invalidations }},
	{desc("pgcache_memory_forgotten_total", "Times everything in memory was forgotten."), func(s *pgcache.Stats) uint64 { return s.LocalFlushes }},
	{desc("pgcache_flushes_total", "Flushes of the change log by this node."), func(s *pgcache.Stats) uint64 { return s.Flushes }},
	{desc("pgcache_messages_total", "Notifications that its flushes sent."), func(s *pgcache.Stats) uint64 { return s.Messages }},
	{desc("pgcache_rows_cleaned_total", "Rows removed by this node's janitor."), func(s *pgcache.Stats) uint64 { return s.Cleaned }},
	{desc("pgcache_decode_errors_total", "Values that did not decode."), func(s *pgcache.Stats) uint64 { return s.DecodeErrors }},
	{desc("pgcache_guard_errors_total", "Loads without the guard's lock."), func(s *pgcache.Stats) uint64 { return s.GuardErrors }},
	{desc("pgcache_unpublished_total", "Pulses that could not publish old changes."), func(s *pgcache.Stats) uint64 { return s.Unpublished }},
}

// Describe implements prometheus.Collector.
func (c collector) Describe(out chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{requests, writes, loads, coalesced} {
		out <- d
	}
	for _, n := range ofNode {
		out <- n.desc
	}
	if c.observer != nil {
		for _, o := range c.observer.collectors() {
			o.Describe(out)
		}
	}
}

// Collect implements prometheus.Collector.
func (c collector) Collect(out chan<- prometheus.Metric) {
	s := c.cache.Stats()
	count := func(d *prometheus.Desc, n uint64, labels ...string) {
		out <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(n), labels...)
	}
	for view, v := range s.Views {
		count(requests, v.LocalHits, view, "memory")
		count(requests, v.RemoteHits, view, "database")
		count(requests, v.Misses, view, "none")
		count(writes, v.Sets, view, "set")
		count(writes, v.Deletes, view, "delete")
		count(loads, v.LoadErrors, view, "error")
		count(loads, v.NotFound, view, "not found")
		count(loads, v.Loads-min(v.Loads, v.LoadErrors+v.NotFound), view, "ok")
		count(coalesced, v.Coalesced, view)
	}
	for _, n := range ofNode {
		count(n.desc, n.n(&s))
	}
	if c.observer != nil {
		for _, o := range c.observer.collectors() {
			o.Collect(out)
		}
	}
}
