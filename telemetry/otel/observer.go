// Package otel makes OpenTelemetry metrics and spans of what a pgcache.Cache does. See docs/observability.md for the names.
package otel

import (
	"context"
	"errors"
	"time"

	"go.opentelemetry.io/otel"
	"go.opentelemetry.io/otel/attribute"
	"go.opentelemetry.io/otel/codes"
	"go.opentelemetry.io/otel/metric"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgcache/go/pgcache"
)

const scope = "github.com/pgcache/go/telemetry/otel"

// An Option changes what Observer returns.
type Option func(*config)

type config struct {
	tracers trace.TracerProvider
	meters  metric.MeterProvider
	attrs   []attribute.KeyValue
}

// WithTracerProvider is where spans go. Defaults to the global provider.
func WithTracerProvider(p trace.TracerProvider) Option { return func(c *config) { c.tracers = p } }

// WithMeterProvider is where metrics go. Defaults to the global provider.
func WithMeterProvider(p metric.MeterProvider) Option { return func(c *config) { c.meters = p } }

// WithAttributes are put on every metric and span: where a program has several caches, a name for each.
func WithAttributes(attrs ...attribute.KeyValue) Option {
	return func(c *config) { c.attrs = append(c.attrs, attrs...) }
}

// Observer returns an Observer for Options.Observer of one Cache, which is safe for concurrent use. Durations are in seconds. Counters
// of Stats are read when metrics are collected, until the Cache's Close. Instruments that can't be made are reported to the SDK's error
// handler. Spans name operations and views, never keys or values, and of an error only its kind.
func Observer(opts ...Option) pgcache.Observer {
	c := config{tracers: otel.GetTracerProvider(), meters: otel.GetMeterProvider()}
	for _, opt := range opts {
		opt(&c)
	}
	o := &observer{attrs: c.attrs, tracer: c.tracers.Tracer(scope), meter: c.meters.Meter(scope)}
	histogram := func(name, unit, what string, bounds ...float64) metric.Float64Histogram {
		h, err := o.meter.Float64Histogram(name, metric.WithUnit(unit), metric.WithDescription(what), metric.WithExplicitBucketBoundaries(bounds...))
		handle(err)
		return h
	}
	seconds := []float64{.0001, .00025, .0005, .001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 30}
	o.calls = histogram("pgcache.call.duration", "s", "Calls that memory alone did not answer.", seconds...)
	o.statements = histogram("db.client.operation.duration", "s", "Statements that read or write entries.", seconds...)
	o.shared = histogram("pgcache.statement.callers", "{caller}", "Callers that share a statement.", 1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
	o.waits = histogram("pgcache.wait.duration", "s", "Waits for a read that another caller began.", seconds...)
	o.loads = histogram("pgcache.load.duration", "s", "Calls of loaders.", seconds...)
	o.upkeep = histogram("pgcache.upkeep.duration", "s", "What the node does by itself: flushes, pulses, sweeps, refreshes.", seconds...)
	o.late = histogram("pgcache.invalidation.delay", "s", "From the reply to a write of this node until its invalidation came back.", seconds...)
	var err error
	o.listener, err = o.meter.Int64Counter("pgcache.listener.changes", metric.WithUnit("{change}"), metric.WithDescription("Times the listener became live or was lost."))
	handle(err)
	return o
}

func handle(err error) {
	if err != nil {
		otel.Handle(err)
	}
}

type observer struct {
	attrs  []attribute.KeyValue
	tracer trace.Tracer
	meter  metric.Meter

	calls, statements, shared, waits, loads, upkeep, late metric.Float64Histogram
	listener                                              metric.Int64Counter
}

// Begin implements pgcache.Observer.
func (o *observer) Begin(ctx context.Context, op pgcache.Op) (context.Context, func(pgcache.Outcome)) {
	began, parent := time.Now(), ctx
	attrs := append(o.attrs[:len(o.attrs):len(o.attrs)], attribute.String("pgcache.operation", op.Name))
	kind, h := trace.SpanKindInternal, o.calls
	switch op.Kind {
	case pgcache.OpCall, pgcache.OpLoad, pgcache.OpWait:
		attrs = append(attrs, attribute.String("pgcache.view", op.View))
		switch op.Kind {
		case pgcache.OpLoad:
			h = o.loads
		case pgcache.OpWait:
			h = o.waits
		}
	case pgcache.OpStatement:
		h, kind = o.statements, trace.SpanKindClient
		attrs = append(o.attrs[:len(o.attrs):len(o.attrs)], attribute.String("db.system.name", "postgresql"), attribute.String("db.operation.name", op.Name))
		o.shared.Record(ctx, float64(max(1, len(op.Callers))), metric.WithAttributes(attrs...))
	case pgcache.OpUpkeep:
		return ctx, func(out pgcache.Outcome) {
			o.upkeep.Record(parent, time.Since(began).Seconds(), metric.WithAttributes(append(attrs, result(out)...)...))
		}
	default:
		return ctx, nil
	}
	ctx, span := o.tracer.Start(ctx, "pgcache "+op.Name, trace.WithSpanKind(kind), trace.WithLinks(links(op.Callers)...),
		trace.WithAttributes(append(attrs[:len(attrs):len(attrs)], attribute.Int("pgcache.keys", op.Keys))...))
	return ctx, func(out pgcache.Outcome) {
		attrs := append(attrs, result(out)...)
		if op.Kind == pgcache.OpCall {
			attrs = append(attrs, attribute.String("pgcache.layer", string(out.Layer)))
		}
		// With the parent: an exemplar's span is the caller's.
		h.Record(parent, time.Since(began).Seconds(), metric.WithAttributes(attrs...))
		for _, l := range links(out.Callers) {
			span.AddLink(l)
		}
		span.SetAttributes(attrs...)
		if r := out.Result(); r == "error" {
			span.SetStatus(codes.Error, errorType(out.Err))
		}
		span.End()
	}
}

// links leads to the spans of callers.
func links(callers []context.Context) (ls []trace.Link) {
	for _, ctx := range callers {
		if sc := trace.SpanContextFromContext(orBackground(ctx)); sc.IsValid() {
			ls = append(ls, trace.Link{SpanContext: sc})
		}
	}
	return ls
}

func orBackground(ctx context.Context) context.Context {
	if ctx == nil {
		return context.Background()
	}
	return ctx
}

// result is how an operation ended, with few different values.
func result(out pgcache.Outcome) []attribute.KeyValue {
	attrs := []attribute.KeyValue{attribute.String("pgcache.result", out.Result())}
	if out.Err != nil && out.Result() != "not found" {
		attrs = append(attrs, attribute.String("error.type", errorType(out.Err)))
	}
	return attrs
}

// errorType is the kind of an error, without its words: they may quote a key.
func errorType(err error) string {
	var panicked *pgcache.PanicError
	switch {
	case errors.As(err, &panicked):
		return "panic"
	case errors.Is(err, pgcache.ErrPoolExhausted):
		return "pool exhausted"
	case errors.Is(err, pgcache.ErrLoadTimeout), errors.Is(err, context.DeadlineExceeded):
		return "timeout"
	case errors.Is(err, context.Canceled):
		return "canceled"
	case errors.Is(err, pgcache.ErrClosed):
		return "closed"
	case errors.Is(err, pgcache.ErrNotMigrated):
		return "not migrated"
	}
	return "_OTHER"
}

// Event implements pgcache.Observer.
func (o *observer) Event(e pgcache.Event) {
	ctx := context.Background()
	state := func(s string) metric.AddOption {
		return metric.WithAttributes(append(o.attrs[:len(o.attrs):len(o.attrs)], attribute.String("pgcache.listener.state", s))...)
	}
	switch e.Kind {
	case pgcache.EventListenerUp:
		o.listener.Add(ctx, 1, state("up"))
	case pgcache.EventListenerDown:
		o.listener.Add(ctx, 1, state("down"))
	case pgcache.EventPublished:
		o.late.Record(ctx, e.Late.Seconds(), metric.WithAttributes(o.attrs...))
	}
}
