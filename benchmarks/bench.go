package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"runtime"
	"slices"
	"time"
)

// bench is one run: servers, backends, and what was asked for.
type bench struct {
	cfg      config
	servers  *servers
	backends []Backend
	progress *progress
}

// A step measures something once. A repetition of a shape does all its steps, so that what a table compares was
// measured within seconds: A B C, A B C, A B C.
type step struct {
	name  string
	takes time.Duration // about, for the progress bar
	run   func(ctx context.Context) ([]Sample, error)
}

// plan is how a shape is measured.
type plan struct {
	steps   []step
	most    int                             // repetitions that are of use; 0: as many as asked for
	setup   func(ctx context.Context) error // before the first step
	cleanup func(ctx context.Context) error // after the last, also after an error
	takes   time.Duration                   // of setup, about
}

// measure measures the shapes that cfg asks for. After an error it returns what was complete before.
func measure(ctx context.Context, cfg config, errs io.Writer) (results []Result, err error) {
	p := newProgress(errs)
	s, err := startServers(ctx, p.say)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, s.close()) }()
	b := &bench{cfg: cfg, servers: s, progress: p}
	b.backends = postgresBackends(s, slog.New(slog.NewTextHandler(p, nil)), cfg.window)
	b.backends = append(b.backends, bare{s})
	if s.redis != nil {
		b.backends = append(b.backends, goRedis{s}, viaRueidis{s, true}, viaRueidis{s, false})
	}
	about, err := describe(ctx, cfg, s)
	if err != nil {
		return nil, err
	}

	var todo []shape
	plans := map[string]plan{}
	for _, sh := range shapes {
		if len(cfg.shapes) > 0 && !slices.Contains(cfg.shapes, sh.name) {
			continue
		}
		todo = append(todo, sh)
		plan := sh.plan(b)
		plans[sh.name] = plan
		total := plan.takes
		for _, st := range plan.steps {
			total += st.takes * time.Duration(b.reps(plan))
		}
		p.expect(sh.name, total)
	}
	p.start()
	defer p.end()
	for _, sh := range todo {
		begun := time.Now()
		r := Result{Shape: sh.name, Run: about, NotRun: b.missing(sh)}
		r.Run.Reps = b.reps(plans[sh.name])
		if r.Samples, err = b.runPlan(ctx, sh.name, plans[sh.name]); err != nil {
			return results, fmt.Errorf("%s: %w", sh.name, err)
		}
		r.Took = time.Since(begun).Round(time.Second).String()
		if err := r.save(cfg.out); err != nil {
			return results, err
		}
		results = append(results, r)
	}
	return results, nil
}

func (b *bench) reps(p plan) int {
	if p.most > 0 {
		return min(p.most, b.cfg.reps)
	}
	return b.cfg.reps
}

func (b *bench) runPlan(ctx context.Context, name string, p plan) (samples []Sample, err error) {
	if p.cleanup != nil {
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), time.Minute)
			defer cancel()
			err = errors.Join(err, p.cleanup(ctx))
		}()
	}
	if p.setup != nil {
		b.progress.begin(name+": setting up", p.takes)
		if err := p.setup(ctx); err != nil {
			return nil, err
		}
	}
	for rep := range b.reps(p) {
		for _, st := range p.steps {
			b.progress.begin(fmt.Sprintf("%s %d/%d: %s", name, rep+1, b.reps(p), st.name), st.takes)
			runtime.GC() // nobody pays for what was before
			got, err := st.run(ctx)
			if err == nil {
				err = ctx.Err()
			}
			if err != nil {
				return nil, fmt.Errorf("%s: %w", st.name, err)
			}
			for _, s := range got {
				s.Rep = rep + 1
				samples = append(samples, s)
			}
		}
	}
	return samples, nil
}

// backend is the backend called name; nil if it can't be had or was not asked for.
func (b *bench) backend(name string) Backend {
	if !b.wants(name) {
		return nil
	}
	i := slices.IndexFunc(b.backends, func(o Backend) bool { return o.Name() == name })
	if i < 0 {
		return nil
	}
	return b.backends[i]
}

// wants says whether a backend was asked for.
func (b *bench) wants(name string) bool {
	return len(b.cfg.backends) == 0 || slices.Contains(b.cfg.backends, name)
}

// missing are the backends of a shape that can't be had on this machine: Redis'.
func (b *bench) missing(sh shape) (out []string) {
	for _, name := range sh.backends {
		if b.servers.redis == nil && slices.Contains([]string{valkey, rueidisCSC, rueidisRaw}, name) {
			out = append(out, name)
		}
	}
	return out
}

// each returns the step of one line for each of the backends that there are.
func (b *bench) each(line string, backends []string, takes time.Duration, run func(ctx context.Context, be Backend) (metrics, error)) (steps []step) {
	for _, name := range backends {
		be := b.backend(name)
		if be == nil {
			continue
		}
		title := name
		if line != "" {
			title = line + ", " + name
		}
		steps = append(steps, step{title, takes, func(ctx context.Context) ([]Sample, error) {
			m, err := run(ctx, be)
			return []Sample{{Line: line, Backend: name, Metrics: m}}, err
		}})
	}
	return steps
}

// key is the key number i of a measurement.
func key(i int) string { return fmt.Sprintf("%s%08d", prefix, i) }

func keys(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = key(i)
	}
	return out
}
