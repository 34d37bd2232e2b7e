package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"log/slog"
	"testing"

	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// What a watch costs a statement that updates one row by its primary key, each in a transaction of its own, where a commit waits
// for the disk and where it does not.
func BenchmarkWatch_Update(b *testing.B) {
	for _, fsync := range []string{"on", "off"} {
		b.Run("fsync="+fsync, func(b *testing.B) {
			s, err := pgserver.StartWith(b.Context(), pgserver.Config{Settings: map[string]string{
				"fsync": fsync, "synchronous_commit": fsync, "full_page_writes": fsync,
			}})
			if err != nil {
				b.Fatal(err)
			}
			defer func() {
				if err := s.Close(); err != nil {
					b.Error(err)
				}
			}()
			benchmarkWatch(b, s.DSN)
		})
	}
}

func benchmarkWatch(b *testing.B, dsn string) {
	b.Helper()
	for _, bench := range []struct {
		name  string
		watch *pgcache.TableWatch
	}{
		{"plain", nil},
		{"key", &pgcache.TableWatch{Keys: []string{"user:{id}"}}},
		{"key and tag", &pgcache.TableWatch{Keys: []string{"user:{id}"}, Tags: []string{"org:{org_id}"}}},
	} {
		b.Run(bench.name, func(b *testing.B) {
			ctx, db, schema := context.Background(), testdb.Open(b, "pgx", dsn), "watched"
			c, err := pgcache.New(db, pgcache.Options{Schema: schema, Logger: slog.New(slog.DiscardHandler), CleanupInterval: -1})
			if err != nil {
				b.Fatal(err)
			}
			defer c.Close()
			exec := func(x interface {
				ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
			}, query string, args ...any,
			) {
				b.Helper()
				if _, err := x.ExecContext(ctx, query, args...); err != nil {
					b.Fatal(err)
				}
			}
			exec(db, "DROP SCHEMA IF EXISTS watched CASCADE; CREATE SCHEMA watched")
			if err := c.Migrate(ctx); err != nil {
				b.Fatal(err)
			}
			table := schema + ".users"
			exec(db, "CREATE TABLE "+table+" (id int PRIMARY KEY, org_id int, name text, note text)")
			exec(db, "INSERT INTO "+table+" SELECT i, i % 100, 'name', repeat('x', 200) FROM generate_series(1, 10000) i")
			if bench.watch != nil {
				bench.watch.Table = table
				if err := c.WatchTable(ctx, *bench.watch); err != nil {
					b.Fatal(err)
				}
			}
			conn, err := db.Conn(ctx)
			if err != nil {
				b.Fatal(err)
			}
			defer conn.Close()
			i := 0
			update := func() {
				i++
				exec(conn, "UPDATE "+table+" SET name = $1 WHERE id = $2", fmt.Sprint("name", i), i*7919%10000+1)
			}
			for range 50 {
				update()
			}
			for b.Loop() {
				update()
			}
		})
	}
}
