package otel_test

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"go.opentelemetry.io/otel/attribute"
	sdkmetric "go.opentelemetry.io/otel/sdk/metric"
	"go.opentelemetry.io/otel/sdk/metric/metricdata"
	sdktrace "go.opentelemetry.io/otel/sdk/trace"
	"go.opentelemetry.io/otel/sdk/trace/tracetest"
	"go.opentelemetry.io/otel/trace"

	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
	"github.com/pgcache/go/telemetry/otel"
)

func TestObserver(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	reader := sdkmetric.NewManualReader()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	c := pgcachetest.New(t, pgcache.Options{Observer: otel.Observer(
		otel.WithTracerProvider(tracers), otel.WithMeterProvider(sdkmetric.NewMeterProvider(sdkmetric.WithReader(reader))),
		otel.WithAttributes(attribute.String("cache.name", "test")))})
	users := pgcache.For[int](c, pgcache.Namespace("user"))
	if err := users.Set(t.Context(), "secret", 1); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, _, err := users.Get(t.Context(), "secret"); err != nil {
			t.Fatal(err)
		}
	}

	// Callers that share a load: its span has the first one's for a parent, and links to the others.
	const callers = 8
	loading, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	load := func(context.Context) (int, error) { close(loading); <-release; return 7, nil }
	get := func() {
		ctx, span := tracers.Tracer("test").Start(t.Context(), "request")
		defer span.End()
		if v, err := users.GetOrSet(ctx, "slow", load); v != 7 || err != nil {
			t.Error(v, err)
		}
	}
	wg.Go(get)
	<-loading
	for range callers - 1 {
		wg.Go(get)
	}
	for c.Stats().Coalesced < callers-1 {
		time.Sleep(time.Millisecond)
	}
	close(release)
	wg.Wait()

	requests := map[string]bool{} // trace ids
	var loadSpan sdktrace.ReadOnlySpan
	names := map[string]int{}
	for _, s := range spans.Ended() {
		names[s.Name()]++
		switch s.Name() {
		case "request":
			requests[s.SpanContext().TraceID().String()] = true
		case "pgcache load":
			loadSpan = s
		}
		for _, a := range s.Attributes() {
			if strings.Contains(a.Value.Emit(), "secret") {
				t.Errorf("a key is seen in %s of %s", a.Key, s.Name())
			}
		}
	}
	if loadSpan == nil || names["pgcache get or set"] != callers || names["pgcache write"] == 0 || names["pgcache store"] != 1 {
		t.Fatalf("spans %v", names)
	}
	linked := map[string]bool{loadSpan.SpanContext().TraceID().String(): true}
	for _, l := range loadSpan.Links() {
		linked[l.SpanContext.TraceID().String()] = true
	}
	for id := range requests {
		if !linked[id] {
			t.Errorf("the load has no link to the trace %s of a caller", id)
		}
	}

	var rm metricdata.ResourceMetrics
	if err := reader.Collect(t.Context(), &rm); err != nil {
		t.Fatal(err)
	}
	got := map[string]metricdata.Metrics{}
	for _, s := range rm.ScopeMetrics {
		for _, m := range s.Metrics {
			got[m.Name] = m
			if m.Unit == "" || m.Description == "" {
				t.Errorf("%s has no unit or description", m.Name)
			}
		}
	}
	for _, name := range []string{"pgcache.call.duration", "db.client.operation.duration", "pgcache.load.duration", "pgcache.upkeep.duration", "pgcache.listener.changes", "pgcache.statement.callers"} {
		if _, ok := got[name]; !ok {
			t.Errorf("no metric %s", name)
		}
	}
	var hits int64
	for _, p := range got["pgcache.requests"].Data.(metricdata.Sum[int64]).DataPoints {
		layer, _ := p.Attributes.Value("pgcache.layer")
		view, _ := p.Attributes.Value("pgcache.view")
		if name, _ := p.Attributes.Value("cache.name"); name.AsString() != "test" {
			t.Error("an attribute is missing")
		}
		if layer.AsString() == "memory" && view.AsString() == "user" {
			hits = p.Value
		}
	}
	if n := c.Stats().Views["user"].LocalHits; hits == 0 || uint64(hits) != n {
		t.Errorf("%d hits in memory, the cache has counted %d", hits, n)
	}
}

// Callers that share a statement: its span links to each of theirs, and to nobody else's.
func TestSharedStatement(t *testing.T) {
	t.Parallel()
	spans := tracetest.NewSpanRecorder()
	tracers := sdktrace.NewTracerProvider(sdktrace.WithSpanProcessor(spans))
	c := pgcachetest.New(t, pgcache.Options{Local: localcache.None(), Observer: otel.Observer(otel.WithTracerProvider(tracers))})
	view := pgcache.For[int](c, pgcache.Namespace("v"))
	for round := 0; ; round++ {
		// While one statement is under way the others queue, and share the next.
		begin := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 32 {
			wg.Go(func() {
				<-begin
				ctx, span := tracers.Tracer("test").Start(t.Context(), "request")
				defer span.End()
				if _, _, err := view.Get(ctx, fmt.Sprint(i)); err != nil {
					t.Error(err)
				}
			})
		}
		close(begin)
		wg.Wait()
		gets := map[trace.SpanID]bool{}
		for _, s := range spans.Ended() {
			if s.Name() == "pgcache get" {
				gets[s.SpanContext().SpanID()] = true
			}
		}
		shared := 0
		for _, s := range spans.Ended() {
			if s.SpanKind() != trace.SpanKindClient || len(s.Links()) == 0 {
				continue
			}
			seen := map[trace.SpanID]bool{}
			for _, l := range s.Links() {
				if id := l.SpanContext.SpanID(); !gets[id] || seen[id] {
					t.Errorf("%s links to %s, which is none of its callers, or twice", s.Name(), id)
				} else {
					seen[id] = true
				}
			}
			shared = max(shared, len(seen))
		}
		if shared >= 2 {
			return
		}
		if round == 100 || t.Failed() {
			t.Fatalf("no statement has links to callers that shared it: %d", shared)
		}
	}
}
