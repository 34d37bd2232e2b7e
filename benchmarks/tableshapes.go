package main

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"runtime"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// tableFigures are what the server says of the table of entries and of the change log.
func (s *pgStore) tableFigures(ctx context.Context) (metrics, error) {
	var updates, hot, dead, entries, log float64
	err := s.servers.admin.QueryRowContext(ctx, fmt.Sprintf(`SELECT coalesce(n_tup_upd, 0), coalesce(n_tup_hot_upd, 0), coalesce(n_dead_tup, 0),
		pg_total_relation_size('%[1]s.cache_entries'), pg_total_relation_size('%[1]s.cache_changes')
		FROM pg_stat_user_tables WHERE schemaname = $1 AND relname = 'cache_entries'`, s.schema), s.schema).
		Scan(&updates, &hot, &dead, &entries, &log)
	m := metrics{"table.bytes": entries, "log.bytes": log, "table.dead": dead, "table.updates": updates}
	if updates > 0 {
		m["table.hot"] = hot / updates
	}
	return m, err
}

// settled waits until the sessions that have ended have reported to the server's statistics what they did.
func (s *pgStore) settled(ctx context.Context) (metrics, error) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	last := -1.0
	for {
		m, err := s.tableFigures(ctx)
		if err != nil || m["table.updates"] == last && last > 0 {
			return m, err
		}
		last = m["table.updates"]
		pause(ctx, 600*time.Millisecond)
	}
}

var hotShape = shape{
	name:     "hot",
	about:    "4 nodes x 32 callers that overwrite 10,000 keys: the share of overwrites that Postgres could do without touching an index (HOT).",
	backends: []string{pgCache},
	columns: []column{
		ops("writes/s", "write.ops"), count("overwrites", "table.updates"), percent("HOT", "table.hot"),
		inBytes("table", "table.bytes"), inBytes("log", "log.bytes"),
	},
	plan: func(b *bench) plan {
		return plan{most: 1, steps: b.each("", []string{pgCache}, b.cfg.duration+3*time.Second, func(ctx context.Context, be Backend) (metrics, error) {
			z := b.cfg.sizes
			names := keys(z.keys)
			return with(ctx, be, Setup{TTL: hour, Keys: z.keys}, same(z.nodes, z.callers), func(f *fleet) (metrics, error) {
				if err := b.preload(ctx, f.nodes, names); err != nil {
					return nil, err
				}
				m, err := b.drive(ctx, f.nodes, z.callers, b.setAny(names, uniform(z.keys)))
				if err := errors.Join(err, f.closeNodes()); err != nil {
					return nil, err
				}
				table, err := f.store.(*pgStore).settled(ctx)
				return m.add(table), err
			})
		})}
	},
}

var memoryShape = shape{
	name: "memory",
	about: "What a local entry takes beyond the bytes of its key and its value: 200,000 entries with 256-byte values in one node, by the heap " +
		"before and after.",
	backends: []string{pgCache},
	columns:  []column{count("entries", "memory.entries"), count("bytes per entry beyond key and value", "memory.beyond"), count("bytes per entry", "memory.whole")},
	plan: func(b *bench) plan {
		return plan{most: 1, steps: []step{{pgCache, 5 * time.Second, func(ctx context.Context) ([]Sample, error) {
			m, err := b.memory(ctx)
			return []Sample{{Backend: pgCache, Metrics: m}}, err
		}}}}
	},
}

func (b *bench) memory(ctx context.Context) (m metrics, err error) {
	n := b.cfg.sizes.memoryEntries
	s := &pgStore{postgres: &postgres{servers: b.servers}, schema: newSchema()}
	db, err := openDB("pgx", b.servers.pg.DSN, callerConns)
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, db.Close(), s.Close(context.WithoutCancel(ctx))) }()
	cache, err := pgcache.New(db, pgcache.Options{
		Codec: raw{}, Schema: s.schema, DefaultTTL: hour, Listener: pgxdriver.Listener(db),
		Local: localcache.New(localcache.Options{MaxEntries: 2 * n, MaxBytes: 4 << 30}),
	})
	if err != nil {
		return nil, err
	}
	defer cache.Close()
	if err := errors.Join(cache.Migrate(ctx), cache.Ready(ctx), s.fill(ctx, prefix, "", n, b.cfg.valueBytes)); err != nil {
		return nil, err
	}
	view := pgcache.For[string](cache)
	read := func() error {
		const at = 500
		for i := 0; i < n; i += at {
			names := make([]string, 0, at)
			for k := i; k < min(i+at, n); k++ {
				names = append(names, key(k))
			}
			if got, err := view.GetMany(ctx, names); err != nil || len(got) != len(names) {
				return errors.Join(err, fmt.Errorf("%d of %d values are there", len(got), len(names)))
			}
		}
		return nil
	}
	before := liveBytes()
	if err := read(); err != nil {
		return nil, err
	}
	taken := float64(liveBytes()-before) / float64(n)
	remote := cache.Stats().RemoteHits
	if err := read(); err != nil {
		return nil, err
	}
	if again := cache.Stats().RemoteHits; again != remote {
		return nil, fmt.Errorf("%d of %d entries were not in memory", again-remote, n)
	}
	return metrics{
		"memory.entries": float64(n), "memory.whole": taken, "memory.beyond": taken - float64(len(key(0))+b.cfg.valueBytes),
	}, nil
}

func liveBytes() uint64 {
	runtime.GC()
	runtime.GC() // what the first one only unlinked
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	return m.HeapAlloc
}

// maxRows is what the width of a key leaves room for.
const maxRows = 100_000_000

// fillTime is about what a row takes that fill writes.
const fillTime = 12 * time.Microsecond

// fill writes n rows by SQL, in the order of their keys, as the library would have them: with its stamp, so no guard trigger
// fires. tag may be "".
func (s *pgStore) fill(ctx context.Context, prefix, tag string, n, valueBytes int) error {
	_, err := s.servers.admin.ExecContext(ctx, fmt.Sprintf(`INSERT INTO %s.cache_entries (key, value, version, stamp, expires_at, codec, tags)
		SELECT $1 || lpad(i::text, 8, '0'), convert_to(substr(repeat(md5(i::text), $2 / 32 + 1), 1, $2), 'UTF8'), i + 1, i + 1, NULL, 'raw',
			CASE WHEN $4 <> '' THEN ARRAY[$4] END
		FROM generate_series(0, $3::bigint - 1) i`, s.schema), prefix, valueBytes, n, tag)
	return err
}

var sizeShape = shape{
	name: "size",
	about: "One caller without a local cache on tables of this many rows, keys chosen uniformly: the sizes take turns of 50 ms. The rows were " +
		"written in the order of their keys and vacuumed.",
	backends: []string{pgNoLocal},
	columns: []column{
		ms("Get mean", "read.mean_us"), ms("p50", "read.p50_us"), ms("p95", "read.p95_us"), ms("p99", "read.p99_us"),
		ms("Set mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"),
		inBytes("table and index", "table.bytes"),
	},
	plan: func(b *bench) plan {
		be := b.backend(pgNoLocal)
		if be == nil {
			return plan{}
		}
		s := &sizeRun{b: b, backend: be}
		total := 0
		for _, n := range b.cfg.rows {
			total += n
		}
		return plan{
			most: 3, setup: s.setup, cleanup: s.cleanup, takes: time.Duration(total) * fillTime,
			steps: []step{{"Get and Set", time.Duration(len(b.cfg.rows)) * b.cfg.duration * 2, s.turns}},
		}
	},
}

// sizeRun is tables of several sizes, which stay for all repetitions.
type sizeRun struct {
	b       *bench
	backend Backend
	fleets  []*fleet
}

func sizeLine(n int) string { return fmt.Sprint(n, " rows") }

func (s *sizeRun) setup(ctx context.Context) error {
	done, total := 0, 0
	for _, n := range s.b.cfg.rows {
		total += n
	}
	for _, n := range s.b.cfg.rows {
		f, err := openFleet(ctx, s.backend, Setup{TTL: hour, Keys: 1}, []int{1})
		if err != nil {
			return err
		}
		s.fleets = append(s.fleets, f)
		store := f.store.(*pgStore)
		if err := store.fill(ctx, prefix, "", n, s.b.cfg.valueBytes); err != nil {
			return err
		}
		// Also sees to it that no autovacuum begins while others are measured.
		if _, err := store.servers.admin.ExecContext(ctx, "VACUUM ANALYZE "+store.schema+".cache_entries"); err != nil {
			return err
		}
		done += n
		s.b.progress.part(float64(done) / float64(total))
	}
	_, err := s.b.servers.admin.ExecContext(ctx, "CHECKPOINT")
	return err
}

func (s *sizeRun) turns(ctx context.Context) (samples []Sample, err error) {
	nodes := make([]Node, len(s.fleets))
	for i, f := range s.fleets {
		nodes[i] = f.nodes[0]
	}
	value := stamp{}.value(s.b.cfg.valueBytes)
	rows := s.b.cfg.rows
	one := func(c *caller) string { return key(c.rand.IntN(rows[c.id])) } // callers are numbered like the nodes
	reads, err := s.b.takeTurns(ctx, nodes, func(ctx context.Context, c *caller) (kind, error) {
		_, found, err := c.node.Get(ctx, one(c))
		if err == nil && !found {
			err = errors.New("a row is not there")
		}
		return reading, err
	})
	if err != nil {
		return nil, err
	}
	writes, err := s.b.takeTurns(ctx, nodes, func(ctx context.Context, c *caller) (kind, error) {
		return writing, c.node.Set(ctx, one(c), value)
	})
	if err != nil {
		return nil, err
	}
	for i, f := range s.fleets {
		table, err := f.store.(*pgStore).tableFigures(ctx)
		if err != nil {
			return nil, err
		}
		samples = append(samples, Sample{Line: sizeLine(rows[i]), Backend: pgNoLocal, Metrics: reads[i].add(writes[i]).add(table)})
	}
	return samples, nil
}

func (s *sizeRun) cleanup(ctx context.Context) error {
	var err error
	for _, f := range s.fleets {
		err = errors.Join(err, f.close(ctx))
	}
	s.fleets = nil
	return err
}

const (
	soakFirst = "first round"
	soakLast  = "last round"
)

var soakShape = shape{
	name: "soak",
	about: "Rounds of seed on the same nodes, one after the other, for the time of -soak: the first, the median of all, the last, and the sizes of the table and of " +
		"the change log after them.",
	backends: []string{pgCache},
	columns: []column{
		ops("writes/s", "write.ops"), ms("mean", "write.mean_us"), ms("p99", "write.p99_us"), ops("reads/s", "read.ops"), ms("mean", "read.mean_us"),
		ms("p99", "read.p99_us"), percent("hits", "hits"), millis("staleness p99", "stale.p99_ms"), millis("largest", "stale.max_ms"),
		inBytes("table", "table.bytes"), inBytes("log", "log.bytes"), percent("HOT", "table.hot"), count("rounds", "rounds"),
	},
	plan: func(b *bench) plan {
		be := b.backend(pgCache)
		if be == nil {
			return plan{}
		}
		return plan{most: 1, steps: []step{{pgCache, b.cfg.soak, func(ctx context.Context) ([]Sample, error) { return b.soak(ctx, be) }}}}
	},
}

func (b *bench) soak(ctx context.Context, be Backend) (samples []Sample, err error) {
	l := b.cfg.sizes.seed
	f, err := openFleet(ctx, be, Setup{TTL: l.ttl, Keys: l.keys}, same(l.writers+l.readers, 1))
	if err != nil {
		return nil, err
	}
	defer func() { err = errors.Join(err, f.close(ctx)) }()
	h := newHistory(l.keys)
	begun, rounds := time.Now(), 0
	var first, last metrics
	for time.Since(begun) < b.cfg.soak {
		if last, err = l.round(ctx, f.nodes, h, b.cfg.valueBytes); err != nil {
			return nil, err
		}
		table, err := f.store.(*pgStore).tableFigures(ctx)
		if err != nil {
			return nil, err
		}
		last.add(table)
		if rounds++; rounds == 1 {
			first = last
		}
		samples = append(samples, Sample{Line: "median round", Backend: pgCache, Metrics: last})
		b.progress.part(float64(time.Since(begun)) / float64(b.cfg.soak))
	}
	last = maps.Clone(last).add(metrics{"rounds": float64(rounds)})
	return append([]Sample{{Line: soakFirst, Backend: pgCache, Metrics: first}},
		append(samples, Sample{Line: soakLast, Backend: pgCache, Metrics: last})...), nil
}
