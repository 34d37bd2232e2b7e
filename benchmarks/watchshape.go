package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
)

// The tables of watchShape.
const (
	watchNone = "unwatched"
	watchKey  = "watched, a key"
	watchTag  = "watched, a key and a tag"
)

var watchBackends = []string{watchNone, watchKey, watchTag}

// watchShape is what a watch costs who writes the table.
var watchShape = shape{
	name: "watch",
	about: "One session updates a row of a table of 10,000 by its primary key, each in a transaction of its own, on servers of its own: fsync, full_page_writes " +
		"and synchronous_commit are all on, or all off. The tables take turns of 100 ms. A node publishes what was changed: the server's CPU is " +
		"counted until it has done so.",
	backends: watchBackends,
	columns: []column{
		ops("updates/s", "write.ops"), ms("mean", "write.mean_us"), ms("p50", "write.p50_us"), ms("p95", "write.p95_us"), ms("p99", "write.p99_us"), cpuColumn,
	},
	plan: func(b *bench) plan {
		p := plan{takes: 5 * time.Second}
		var runs []*watchRun
		for _, fsync := range []string{"on", "off"} {
			w := &watchRun{b: b, fsync: fsync}
			runs = append(runs, w)
			p.steps = append(p.steps, step{fsyncLine(fsync), 3 * b.cfg.duration * 5 / 2, w.turns})
		}
		p.setup = func(ctx context.Context) error { return errors.Join(runs[0].setup(ctx), runs[1].setup(ctx)) }
		p.cleanup = func(context.Context) error { return errors.Join(runs[0].cleanup(), runs[1].cleanup()) }
		return p
	},
}

func fsyncLine(fsync string) string { return "fsync = " + fsync }

// watchRun is a server with the tables, and a node that publishes their changes.
type watchRun struct {
	b      *bench
	fsync  string
	server ownServer
	db     *sql.DB
	cache  *pgcache.Cache
	tables []watchTable
}

// watchTable is a table with the session that updates it.
type watchTable struct {
	backend string
	conn    *sql.Conn
	update  *sql.Stmt
	c       *caller
}

const watchRows = 10_000

func (w *watchRun) setup(ctx context.Context) (err error) {
	if w.server, err = startOwn(ctx, map[string]string{"fsync": w.fsync, "full_page_writes": w.fsync, "synchronous_commit": w.fsync, "max_connections": "50"}); err != nil {
		return err
	}
	if w.db, err = openDB("pgx", w.server.pg.DSN, callerConns); err != nil {
		return err
	}
	w.cache, err = pgcache.New(w.db, pgcache.Options{Listener: pgxdriver.Listener(w.db), Logger: slog.New(slog.NewTextHandler(w.b.progress, nil))})
	if err != nil {
		return err
	}
	if err := errors.Join(w.cache.Migrate(ctx), w.cache.Ready(ctx)); err != nil {
		return err
	}
	for i, backend := range watchBackends {
		name := fmt.Sprint("users_", i)
		for _, statement := range []string{
			"CREATE TABLE " + name + " (id int PRIMARY KEY, org_id int, name text, note text)",
			fmt.Sprintf("INSERT INTO %s SELECT i, i %% 100, 'name', repeat('x', 200) FROM generate_series(0, %d) i", name, watchRows-1),
			"VACUUM ANALYZE " + name,
		} {
			if _, err := w.db.ExecContext(ctx, statement); err != nil {
				return err
			}
		}
		watch := pgcache.TableWatch{Table: "public." + name, Keys: []string{"user:{id}"}}
		if backend == watchTag {
			watch.Tags = []string{"org:{org_id}"}
		}
		if backend != watchNone {
			if err := w.cache.WatchTable(ctx, watch); err != nil {
				return err
			}
		}
		t := watchTable{backend: backend, c: newCaller(i, nil)}
		if t.conn, err = w.db.Conn(ctx); err != nil {
			return err
		}
		w.tables = append(w.tables, t)
		if w.tables[i].update, err = t.conn.PrepareContext(ctx, "UPDATE "+name+" SET name = $1 WHERE id = $2"); err != nil {
			return err
		}
	}
	return nil
}

func (w *watchRun) turns(ctx context.Context) (samples []Sample, err error) {
	const turn, rest = 100 * time.Millisecond, 75 * time.Millisecond // what was changed is published within two windows
	spent, used := make([]time.Duration, len(w.tables)), make([]time.Duration, len(w.tables))
	for i := range w.tables {
		w.tables[i].c = newCaller(i, nil)
		for range 20 { // plans are made, and what is cached of the catalogs
			if err := w.tables[i].one(ctx); err != nil {
				return nil, err
			}
		}
	}
	pause(ctx, rest)
	for range max(1, int(w.b.cfg.duration/turn)) {
		for i, t := range w.tables {
			cpu, begun := w.server.process.cpu(), clock()
			for last := begun; last < begun+turn; {
				if err := t.one(ctx); err != nil {
					return nil, err
				}
				now := clock()
				t.c.did[writing].add(now - last)
				last = now
			}
			spent[i] += clock() - begun
			pause(ctx, rest)
			used[i] += w.server.process.cpu() - cpu
		}
	}
	for i, t := range w.tables {
		if w.b.wants(t.backend) {
			m := t.c.did[writing].metrics("write", spent[i]).add(perOperation(used[i], t.c.did[writing].n))
			samples = append(samples, Sample{Line: fsyncLine(w.fsync), Backend: t.backend, Metrics: m})
		}
	}
	return samples, ctx.Err()
}

func (t watchTable) one(ctx context.Context) error {
	_, err := t.update.ExecContext(ctx, "a new name", t.c.rand.IntN(watchRows))
	return err
}

func (w *watchRun) cleanup() (err error) {
	for _, t := range w.tables {
		if t.update != nil {
			err = errors.Join(err, t.update.Close())
		}
		err = errors.Join(err, t.conn.Close())
	}
	if w.cache != nil {
		err = errors.Join(err, w.cache.Close())
	}
	if w.db != nil {
		err = errors.Join(err, w.db.Close())
	}
	if w.server.pg != nil {
		err = errors.Join(err, w.server.close())
	}
	return err
}
