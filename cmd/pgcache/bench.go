package main

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/redis/go-redis/v9"
	"github.com/spf13/cobra"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// figure is what was measured of one kind of work.
type figure struct {
	What    string  `json:"what"`
	Callers int     `json:"callers"`
	Rate    float64 `json:"per_second"`
	P50     float64 `json:"p50_us"`
	P99     float64 `json:"p99_us"`
}

type benchJSON struct {
	Server  string   `json:"server"`
	Redis   string   `json:"redis,omitempty"`
	Bytes   int      `json:"value_bytes"`
	Seconds float64  `json:"seconds_each"`
	Figures []figure `json:"figures"`
}

const benchKeys = 1000

func benchCommand(a *app) *cobra.Command {
	var span time.Duration
	var size, callers int
	c := &cobra.Command{
		Use:   "bench",
		Short: "Measure this machine's Postgres: Get, Set and hits in memory",
		Long: `Measure Get, Set and hits in memory, with one caller and with many, on the server that the environment or --dsn names, in a schema
of its own, which is dropped at the end; without one, on a throw-away Postgres on this machine. Beside it are the figures
of Redis through go-redis, if REDIS_URL names one or one answers on localhost:6379. It takes some seconds, and keeps the
server busy meanwhile. The tables of docs/bench come from a longer and fairer run: make bench.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			switch {
			case span < 10*time.Millisecond || span > time.Minute:
				return usageError{errors.New("--span must be 10ms to 1m")}
			case size < 1 || size > 1<<20:
				return usageError{errors.New("--size must be 1 to 1048576")}
			case callers < 2 || callers > 1000:
				return usageError{errors.New("--callers must be 2 to 1000")}
			}
			return a.bench(c.Context(), span, size, callers)
		},
	}
	c.Flags().DurationVar(&span, "span", time.Second, "how long each kind of work is measured")
	c.Flags().IntVar(&size, "size", 256, "bytes of a value")
	c.Flags().IntVar(&callers, "callers", 64, "how many callers are many")
	return c
}

func (a *app) bench(ctx context.Context, span time.Duration, size, callers int) (err error) {
	if !a.hasServer() {
		server, err := pgserver.StartWith(ctx, pgserver.Config{Own: true})
		if err != nil {
			return err
		}
		defer server.Close()
		a.global.dsn = server.DSN
	}
	db, _, err := a.open(ctx)
	if err != nil {
		return err
	}
	defer db.Close()
	schema := "pgcache_bench_" + strings.ToLower(rand.Text()[:8])
	defer func() {
		ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.global.timeout)
		defer cancel()
		_, drop := db.ExecContext(ctx, `DROP SCHEMA IF EXISTS "`+schema+`" CASCADE`)
		err = errors.Join(err, drop)
	}()
	open := func(local localcache.Cache) (*pgcache.Cache, error) {
		c, err := pgcache.New(db, pgcache.Options{
			Schema: schema, Codec: codec.Raw{}, Listener: pgxdriver.Listener(db), Local: local, CleanupInterval: -1,
			Logger: slog.New(slog.DiscardHandler),
		})
		if err == nil {
			if err = c.Migrate(ctx); err == nil {
				err = c.Ready(ctx)
			}
			if err != nil {
				c.Close()
			}
		}
		return c, err
	}
	remote, err := open(localcache.None())
	if err != nil {
		return err
	}
	defer remote.Close()
	near, err := open(nil)
	if err != nil {
		return err
	}
	defer near.Close()

	value := []byte(rand.Text() + strings.Repeat("x", size))[:size]
	keys := make([]string, benchKeys)
	for i := range keys {
		keys[i] = fmt.Sprint("bench:", i)
		if err := remote.Set(ctx, keys[i], value); err != nil {
			return err
		}
	}
	get := func(c *pgcache.Cache) func(int) error {
		return func(i int) error {
			var v []byte
			_, err := c.Get(ctx, keys[i%benchKeys], &v)
			return err
		}
	}
	out := benchJSON{Bytes: size, Seconds: span.Seconds()}
	if out.Server, err = version(ctx, db); err != nil {
		return err
	}
	type work struct {
		what string
		n    int
		do   func(i int) error
	}
	hits := get(near)
	for i := range keys { // into memory
		if err := hits(i); err != nil {
			return err
		}
	}
	jobs := []work{
		{"hit in memory", 1, hits},
		{"get", 1, get(remote)},
		{"get", callers, get(remote)},
		{"set", 1, func(i int) error { return remote.Set(ctx, keys[i%benchKeys], value) }},
		{"set", callers, func(i int) error { return remote.Set(ctx, keys[i%benchKeys], value) }},
	}
	if r := a.redis(ctx, callers); r != nil {
		defer r.Close()
		out.Redis = redisVersion(ctx, r)
		own := schema + ":"
		set := func(i int) error { return r.Set(ctx, own+keys[i%benchKeys], value, time.Minute).Err() }
		read := func(i int) error { return r.Get(ctx, own+keys[i%benchKeys]).Err() }
		for i := range keys {
			if err := set(i); err != nil {
				return fmt.Errorf("redis: %w", err)
			}
		}
		defer func() {
			ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), a.global.timeout)
			defer cancel()
			for _, k := range keys {
				r.Del(ctx, own+k)
			}
		}()
		jobs = append(jobs, work{"redis get", 1, read}, work{"redis get", callers, read}, work{"redis set", 1, set}, work{"redis set", callers, set})
	}
	for _, j := range jobs {
		f, err := measure(ctx, j.n, span, j.do)
		if err != nil {
			return fmt.Errorf("%s: %w", j.what, err)
		}
		f.What = j.what
		out.Figures = append(out.Figures, f)
	}
	if a.global.json {
		return writeJSON(a.out, out)
	}
	fmt.Fprintf(a.out, "PostgreSQL %s", out.Server)
	if out.Redis != "" {
		fmt.Fprintf(a.out, ", Redis %s", out.Redis)
	}
	fmt.Fprintf(a.out, ", values of %d bytes, %v each\n\n", size, span)
	rows := make([][]string, len(out.Figures))
	for i, f := range out.Figures {
		rows[i] = []string{f.What, fmt.Sprint(f.Callers), rateText(f.Rate), spanText(time.Duration(f.P50 * 1e3)), spanText(time.Duration(f.P99 * 1e3))}
	}
	a.grid([]string{"WHAT", "CALLERS", "A SECOND", "P50", "P99"}, "lrrrr", rows)
	return nil
}

func version(ctx context.Context, db *sql.DB) (v string, err error) {
	err = db.QueryRowContext(ctx, "SHOW server_version").Scan(&v)
	return firstWord(v), err
}

// quiet keeps the Redis client from writing into the output: what it has to say comes back as errors.
type quiet struct{}

func (quiet) Printf(context.Context, string, ...any) {}

// redis connects to the one that REDIS_URL names, or that answers on localhost; nil: neither.
func (a *app) redis(ctx context.Context, callers int) *redis.Client {
	named := a.getenv("REDIS_URL")
	a.secrets = append(a.secrets, named)
	o, err := redis.ParseURL(cmp.Or(named, "redis://localhost:6379"))
	if err != nil {
		fmt.Fprintln(a.errs, "pgcache: REDIS_URL can't be parsed")
		return nil
	}
	redis.SetLogger(quiet{})
	o.PoolSize, o.MaxRetries, o.DialTimeout = min(callers, 32), -1, time.Second
	r := redis.NewClient(o)
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if err := r.Ping(ctx).Err(); err != nil {
		r.Close()
		if named != "" {
			fmt.Fprintln(a.errs, "pgcache: the Redis that REDIS_URL names does not answer")
		}
		return nil
	}
	return r
}

func redisVersion(ctx context.Context, r *redis.Client) string {
	info, _ := r.Info(ctx, "server").Result()
	for line := range strings.Lines(info) {
		if v, ok := strings.CutPrefix(line, "redis_version:"); ok {
			return strings.TrimSpace(v)
		}
	}
	return "?"
}

// measure lets n callers work for span. It times one call in each of rounds: what a hit takes is not much more than what reading
// the clock does.
func measure(ctx context.Context, n int, span time.Duration, do func(i int) error) (figure, error) {
	const round, most = 8, 20_000
	var wg sync.WaitGroup
	var failed atomic.Pointer[error]
	done := make([]int, n)
	times := make([][]time.Duration, n)
	began := time.Now()
	end := began.Add(span)
	for c := range n {
		wg.Go(func() {
			for i := c * 37; ctx.Err() == nil && failed.Load() == nil; {
				start := time.Now()
				if start.After(end) {
					return
				}
				for k := range round {
					if err := do(i); err != nil {
						failed.CompareAndSwap(nil, &err)
						return
					}
					if k == 0 && len(times[c]) < most {
						times[c] = append(times[c], time.Since(start))
					}
					i++
				}
				done[c] += round
			}
		})
	}
	wg.Wait()
	took := time.Since(began)
	if err := failed.Load(); err != nil {
		return figure{}, *err
	}
	if err := ctx.Err(); err != nil {
		return figure{}, err
	}
	var all []time.Duration
	total := 0
	for c := range n {
		all = append(all, times[c]...)
		total += done[c]
	}
	slices.Sort(all)
	at := func(q float64) float64 {
		if len(all) == 0 {
			return 0
		}
		return float64(all[min(len(all)-1, int(q*float64(len(all))))]) / 1e3
	}
	return figure{Callers: n, Rate: float64(total) / took.Seconds(), P50: at(0.5), P99: at(0.99)}, nil
}
