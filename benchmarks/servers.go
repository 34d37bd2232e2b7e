package main

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"strconv"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/redis/go-redis/v9"

	"github.com/pgcache/go/internal/pgserver"
)

const (
	envPostgres = "PGCACHE_DSN"
	envRedis    = "PGCACHE_REDIS"

	// prefix begins every key, so that a Redis that is not ours loses nothing else.
	prefix = "pgcache-bench:"
)

// settings are those of a server that is to be relied on, as far as a benchmark can: durable commits, memory for the
// larger tables, and room for the connections of 1,000 nodes.
var settings = map[string]string{
	"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on", "shared_buffers": "1GB",
	"min_wal_size": "80MB", "max_wal_size": "1GB", "max_connections": "1200",
}

// shown are the settings that the output names.
var shown = []string{
	"fsync", "full_page_writes", "synchronous_commit", "wal_level", "shared_buffers", "max_wal_size", "max_connections", "autovacuum",
}

// servers are what is measured, and the slow link before each.
type servers struct {
	pg      *pgserver.Server
	admin   *sql.DB
	redis   *redisServer // nil: there is none
	cleaner *redis.Client

	pgProcess, redisProcess process

	pgWire, redisWire *wire
	wireDSN           string
}

// startServers starts what the environment does not name. say hears what was taken.
func startServers(ctx context.Context, say func(format string, args ...any)) (_ *servers, err error) {
	s := &servers{}
	defer func() {
		if err != nil {
			err = errors.Join(err, s.close())
		}
	}()
	if os.Getenv(envPostgres) != "" {
		s.pg, err = pgserver.Start(ctx, say) // somebody's server, with its own settings
	} else {
		s.pg, err = pgserver.StartWith(ctx, pgserver.Config{Logf: say, Settings: settings})
	}
	if err != nil {
		return s, err
	}
	if s.admin, err = openDB("pgx", s.pg.DSN, 4); err != nil {
		return s, err
	}
	config, err := pgconn.ParseConfig(s.pg.DSN)
	if err != nil {
		return s, err
	}
	if s.pgWire, err = newWire(pgconn.NetworkAddress(config.Host, config.Port)); err != nil {
		return s, err
	}
	if s.wireDSN, err = redirect(s.pg.DSN, s.pgWire.addr()); err != nil {
		return s, err
	}

	if s.redis, err = startRedis(ctx, say); err != nil {
		return s, err
	}
	if s.redis == nil {
		s.findProcesses(ctx)
		return s, nil
	}
	s.cleaner = newGoRedis(s.redis.addr, 1)
	if s.redisWire, err = newWire("tcp", s.redis.addr); err != nil {
		return s, err
	}
	s.findProcesses(ctx)
	return s, s.emptyRedis(ctx)
}

func (s *servers) close() error {
	var errs []error
	for _, w := range []*wire{s.pgWire, s.redisWire} {
		if w != nil {
			w.close()
		}
	}
	if s.admin != nil {
		errs = append(errs, s.admin.Close())
	}
	if s.cleaner != nil {
		errs = append(errs, s.cleaner.Close())
	}
	if s.redis != nil {
		errs = append(errs, s.redis.close())
	}
	if s.pg != nil {
		errs = append(errs, s.pg.Close())
	}
	return errors.Join(errs...)
}

func (s *servers) dsn(wire bool) string {
	if wire {
		return s.wireDSN
	}
	return s.pg.DSN
}

func (s *servers) redisAddr(wire bool) string {
	if wire {
		return s.redisWire.addr()
	}
	return s.redis.addr
}

// redirect returns dsn with another host and port.
func redirect(dsn, addr string) (string, error) {
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return "", err
	}
	if !pgserver.IsURL(dsn) {
		return pgserver.WithParam(pgserver.WithParam(dsn, "host", host), "port", port), nil
	}
	u, err := url.Parse(dsn)
	if err != nil {
		return "", fmt.Errorf("the DSN is not a URL: %w", errors.Unwrap(err)) // without quoting it: it may hold a password
	}
	query := u.Query()
	for _, name := range []string{"host", "hostaddr", "port"} {
		query.Del(name)
	}
	u.Host, u.RawQuery = addr, query.Encode()
	return u.String(), nil
}

// emptyRedis removes what a measurement has left: everything from a server of ours, only our keys from another.
func (s *servers) emptyRedis(ctx context.Context) error {
	if s.redis.own() {
		return s.cleaner.FlushAll(ctx).Err()
	}
	for cursor := uint64(0); ; {
		keys, next, err := s.cleaner.Scan(ctx, cursor, prefix+"*", 10_000).Result()
		if err != nil {
			return err
		}
		if len(keys) > 0 {
			if err := s.cleaner.Unlink(ctx, keys...).Err(); err != nil {
				return err
			}
		}
		if cursor = next; cursor == 0 {
			return nil
		}
	}
}

// postgresSettings asks the server for those in shown.
func (s *servers) postgresSettings(ctx context.Context) (map[string]string, error) {
	out := map[string]string{}
	for _, name := range shown {
		var value string
		if err := s.admin.QueryRowContext(ctx, "SELECT current_setting($1)", name).Scan(&value); err != nil {
			return nil, err
		}
		out[name] = value
	}
	return out, nil
}

// redisSettings says what the server keeps, as far as it tells.
func (s *servers) redisSettings(ctx context.Context) map[string]string {
	out := map[string]string{}
	for _, name := range []string{"save", "appendonly", "maxmemory", "io-threads"} {
		if m, err := s.cleaner.ConfigGet(ctx, name).Result(); err == nil { // some services forbid it
			out[name] = strconv.Quote(m[name])
		}
	}
	return out
}
