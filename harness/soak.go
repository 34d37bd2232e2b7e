package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"runtime"
	"strings"
	"sync"
	"text/tabwriter"
	"time"

	"github.com/pgcache/go/pgcache"
)

// A soak lets the fleet work for long and looks at everything that could grow: it judges no answers, because the
// histories that this needs grow themselves.
const (
	soakKeys    = 2000 // that are used again and again
	soakEntries = 512  // in a node's memory, so that it is full from early on
	soakSamples = 60   // at least, in a run of two minutes or more
)

// series is one thing that must not grow, and what growth is not counted: a share of its mean, or an amount where that
// is more. Files have high-water marks that are reached at random, so tables get more than counters.
type series struct {
	name  string
	share float64
	floor float64
}

var allSeries = []series{
	{"heap bytes", 0.10, 4 << 20},
	{"goroutines", 0.10, 10},
	{"sessions", 0.10, 5},
	{"entries rows", 0.15, 500},
	{"entries bytes", 0.25, 4 << 20},
	{"changes rows", 0.25, 5000},
	{"changes bytes", 0.25, 4 << 20},
	{"notices rows", 0.25, 5000},
	{"notices bytes", 0.25, 4 << 20},
}

// sample is the values of allSeries at a time.
type sample struct {
	at     time.Duration
	values []float64
}

// soak lets the fleet work and returns an error that names everything that grew.
func (f *fleet) soak(ctx context.Context, out io.Writer) error {
	ctx, cancel := context.WithTimeout(ctx, f.cfg.soak)
	defer cancel()
	var workers sync.WaitGroup
	defer workers.Wait()
	for _, n := range f.nodes() {
		for range 2 {
			workers.Go(func() { f.soakWorker(ctx, n) })
		}
	}
	workers.Go(func() {
		f.every(ctx, cleanEvery, func(ctx context.Context) error {
			_, err := f.writers[0].cache.Cleanup(ctx)
			return err
		})
	})
	if f.cfg.kill > 0 {
		workers.Go(func() { f.every(ctx, f.cfg.kill, f.killListener) })
	}
	began := clock()
	tick := time.NewTicker(min(10*time.Second, max(f.cfg.soak/soakSamples, 500*time.Millisecond)))
	defer tick.Stop()
	var samples []sample
	for {
		select {
		case <-tick.C:
			values, err := f.measure(context.WithoutCancel(ctx))
			if err != nil {
				return err
			}
			samples = append(samples, sample{clock() - began, values})
			continue
		case <-ctx.Done():
		}
		break
	}
	cancel()
	workers.Wait()
	err := judgeSoak(out, samples)
	if _, failed := f.book.total(); failed > 0 && f.cfg.kill == 0 {
		err = errors.Join(err, fmt.Errorf("%d operations failed", failed))
	}
	say(out, "%d operations in %v, %d listeners ended\n", f.ops.Load(), f.cfg.soak, f.kills.Load())
	return err
}

// soakWorker uses some keys again and again, and others once.
func (f *fleet) soakWorker(ctx context.Context, n *node) {
	typed := pgcache.For[string](n.single, pgcache.Namespace("soak"))
	payload := strings.Repeat("x", 256)
	load := func(context.Context) (string, error) { return payload, nil }
	for i := 0; ctx.Err() == nil; i++ {
		key, once := fmt.Sprint("again:", rand.IntN(soakKeys)), fmt.Sprint("once:", n.id, ":", clock())
		var err error
		switch writer := n.id < f.cfg.writers; {
		case writer && i%8 == 0:
			err = typed.Set(ctx, key, payload)
		case writer && i%8 == 1:
			err = typed.SetMany(ctx, map[string]string{key: payload, once: payload}, pgcache.TTL(f.cfg.ttl/4))
		case writer && i%16 == 2:
			err = typed.Delete(ctx, key)
		case i%8 == 3:
			_, err = typed.GetOrSet(ctx, once, load, pgcache.TTL(f.cfg.ttl/4))
		case i%8 == 4:
			_, err = typed.GetOrSet(ctx, key, load)
		case i%8 == 5:
			_, err = typed.GetMany(ctx, []string{key, once})
		default:
			_, _, err = typed.Get(ctx, key)
		}
		f.ops.Add(1)
		if err != nil && ctx.Err() == nil {
			f.book.fail(err)
		}
		select {
		case <-ctx.Done():
		case <-time.After(rand.N(2*f.cfg.pause + 1)):
		}
	}
}

// measure takes the values of allSeries.
func (f *fleet) measure(ctx context.Context) ([]float64, error) {
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	defer cancel()
	runtime.GC()
	var memory runtime.MemStats
	runtime.ReadMemStats(&memory)
	values := []float64{float64(memory.HeapAlloc), float64(runtime.NumGoroutine())}
	var sessions float64
	err := f.db.QueryRowContext(ctx, "SELECT count(*) FROM pg_stat_activity WHERE application_name LIKE $1 || ' node-%'", f.name).Scan(&sessions)
	values = append(values, sessions)
	for _, table := range []string{"cache_entries", "cache_changes", "cache_notices"} {
		var rows, bytes float64
		name := f.name + "." + table
		if err == nil {
			err = f.db.QueryRowContext(ctx, "SELECT count(*), pg_total_relation_size('"+name+"') FROM "+name).Scan(&rows, &bytes)
		}
		values = append(values, rows, bytes)
	}
	return values, err
}

// judgeSoak fits a line to what comes after the first third of each series, and prints it.
func judgeSoak(out io.Writer, samples []sample) error {
	samples = samples[len(samples)/3:]
	if len(samples) < 10 {
		return fmt.Errorf("only %d samples after the first third: -soak is too short", len(samples))
	}
	var errs []error
	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	say(table, "\tmean\tgrowth\tallowed\t\n")
	for i, w := range allSeries {
		mean, growth := line(samples, i)
		allowed := max(w.share*mean, w.floor)
		say(table, "%s\t%.0f\t%+.0f\t%.0f\t\n", w.name, mean, growth, allowed)
		if growth > allowed {
			errs = append(errs, fmt.Errorf("%s grew by %.0f from a mean of %.0f; %.0f are allowed", w.name, growth, mean, allowed))
		}
	}
	return errors.Join(append(errs, table.Flush())...)
}

// line returns the mean of series i, and how much its least-squares line rises from the first sample to the last.
func line(samples []sample, i int) (mean, growth float64) {
	n := float64(len(samples))
	var at float64
	for _, s := range samples {
		at += s.at.Seconds() / n
		mean += s.values[i] / n
	}
	var up, square float64
	for _, s := range samples {
		d := s.at.Seconds() - at
		up += d * (s.values[i] - mean)
		square += d * d
	}
	if square == 0 {
		return mean, 0
	}
	return mean, up / square * (samples[len(samples)-1].at - samples[0].at).Seconds()
}
