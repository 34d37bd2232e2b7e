package otel

import (
	"context"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/metric"

	"github.com/pgcache/go/pgcache"
)

// Open implements pgcache.Observer: what is counted is read when metrics are collected.
func (o *observer) Open(stats func() pgcache.Stats) func() {
	var all []metric.Observable
	counter := func(name, unit, what string) metric.Int64ObservableCounter {
		c, err := o.meter.Int64ObservableCounter(name, metric.WithUnit(unit), metric.WithDescription(what))
		handle(err)
		all = append(all, c)
		return c
	}
	requests := counter("pgcache.requests", "{key}", "Keys asked for, by the layer that had them; none: in memory and database there was nothing.")
	writes := counter("pgcache.writes", "{key}", "Keys set and deleted.")
	loads := counter("pgcache.loads", "{load}", "Calls of loaders, by result.")
	coalesced := counter("pgcache.loads.coalesced", "{caller}", "Callers that shared another caller's load.")
	node := []struct {
		c metric.Int64ObservableCounter
		n func(s *pgcache.Stats) uint64
	}{
		{counter("pgcache.loads.fenced", "{key}", "Loaded values not stored, because the key was written meanwhile."), func(s *pgcache.Stats) uint64 { return s.Fenced }},
		{counter("pgcache.invalidations", "{key}", "Keys whose invalidation was received."), func(s *pgcache.Stats) uint64 { return s.Invalidations }},
		{counter("pgcache.memory.forgotten", "{time}", "Times everything in memory was forgotten."), func(s *pgcache.Stats) uint64 { return s.LocalFlushes }},
		{counter("pgcache.flushes", "{flush}", "Flushes of the change log by this node."), func(s *pgcache.Stats) uint64 { return s.Flushes }},
		{counter("pgcache.messages", "{message}", "Notifications that its flushes sent."), func(s *pgcache.Stats) uint64 { return s.Messages }},
		{counter("pgcache.rows.cleaned", "{row}", "Rows removed by this node's janitor."), func(s *pgcache.Stats) uint64 { return s.Cleaned }},
		{counter("pgcache.decode.errors", "{value}", "Values that did not decode."), func(s *pgcache.Stats) uint64 { return s.DecodeErrors }},
		{counter("pgcache.guard.errors", "{load}", "Loads without the guard's lock."), func(s *pgcache.Stats) uint64 { return s.GuardErrors }},
		{counter("pgcache.unpublished", "{pulse}", "Pulses that could not publish old changes."), func(s *pgcache.Stats) uint64 { return s.Unpublished }},
	}
	with := func(attrs ...attribute.KeyValue) metric.ObserveOption {
		return metric.WithAttributes(append(o.attrs[:len(o.attrs):len(o.attrs)], attrs...)...)
	}
	reg, err := o.meter.RegisterCallback(func(_ context.Context, out metric.Observer) error {
		s := stats()
		for ns, v := range s.Views {
			view := attribute.String("pgcache.view", ns)
			by := func(c metric.Int64ObservableCounter, key, value string, n uint64) {
				out.ObserveInt64(c, int64(n), with(view, attribute.String(key, value))) //nolint:gosec // counts
			}
			by(requests, "pgcache.layer", "memory", v.LocalHits)
			by(requests, "pgcache.layer", "database", v.RemoteHits)
			by(requests, "pgcache.layer", "none", v.Misses)
			by(writes, "pgcache.operation", "set", v.Sets)
			by(writes, "pgcache.operation", "delete", v.Deletes)
			by(loads, "pgcache.result", "error", v.LoadErrors)
			by(loads, "pgcache.result", "not found", v.NotFound)
			by(loads, "pgcache.result", "ok", v.Loads-min(v.Loads, v.LoadErrors+v.NotFound))
			out.ObserveInt64(coalesced, int64(v.Coalesced), with(view)) //nolint:gosec // counts
		}
		for _, n := range node {
			out.ObserveInt64(n.c, int64(n.n(&s)), with()) //nolint:gosec // counts
		}
		return nil
	}, all...)
	if err != nil {
		otel.Handle(err)
		return nil
	}
	return func() { handle(reg.Unregister()) }
}
