package main

import (
	"cmp"
	"context"
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgconn/ctxwatch"
	"github.com/jackc/pgx/v5/stdlib"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

const maxConns = 8

// hasServer says that the user has named a server.
func (a *app) hasServer() bool {
	return cmp.Or(a.global.dsn, a.getenv("PGCACHE_DSN"), a.getenv("PGHOST"), a.getenv("PGSERVICE"), a.getenv("PGHOSTADDR"), a.getenv("PGDATABASE")) != ""
}

// config is where to connect.
func (a *app) config() (*pgx.ConnConfig, error) {
	dsn := cmp.Or(a.global.dsn, a.getenv("PGCACHE_DSN"))
	a.secrets = append(a.secrets, dsn, a.getenv("PGPASSWORD"))
	config, err := pgx.ParseConfig(dsn)
	// A password with an '@' that is not encoded is cut there, and its rest begins the name of the host, which errors quote.
	if err != nil || strings.Contains(config.Host, "@") || slices.ContainsFunc(config.Fallbacks, func(f *pgconn.FallbackConfig) bool { return strings.Contains(f.Host, "@") }) {
		// The driver's words may quote the very piece that is the password.
		return nil, usageError{errors.New("the DSN can't be parsed (why is not shown, as it may quote the password; in a URL, '@' and the like in a password are written %40)")}
	}
	a.secrets = append(a.secrets, config.Password)
	if config.RuntimeParams["application_name"] == "" {
		config.RuntimeParams["application_name"] = "pgcache-cli"
	}
	// What is interrupted, or takes too long, is ended on the server too: closing the connection does not end a statement.
	config.BuildContextWatcherHandler = func(conn *pgconn.PgConn) ctxwatch.Handler {
		return &pgconn.CancelRequestContextWatcherHandler{Conn: conn, DeadlineDelay: time.Second}
	}
	return config, nil
}

// open connects, and proves that the server answers.
func (a *app) open(ctx context.Context) (*sql.DB, *pgx.ConnConfig, error) {
	config, err := a.config()
	if err != nil {
		return nil, nil, err
	}
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	ping, cancel := context.WithTimeout(ctx, a.global.timeout)
	defer cancel()
	if err := db.PingContext(ping); err != nil {
		db.Close()
		return nil, nil, connectError{err}
	}
	return db, config, nil
}

func (a *app) names(channel string) (store.Names, error) {
	names, err := store.Names{Schema: a.global.schema, Prefix: a.global.prefix, Channel: channel}.Resolve()
	if err != nil {
		return names, usageError{fmt.Errorf("option %w", err)}
	}
	return names, nil
}

// table is the cache's tables as the commands see them that go past a Cache.
type table struct {
	*store.Store
	db      *sql.DB
	config  *pgx.ConnConfig
	timeout time.Duration // of a statement
	state   store.State   // Version 0: no tables
}

// connect connects, and reads nothing.
func (a *app) connect(ctx context.Context) (*table, error) {
	names, err := a.names("")
	if err != nil {
		return nil, err
	}
	db, config, err := a.open(ctx)
	if err != nil {
		return nil, err
	}
	return &table{Store: store.New(db, names, a.global.timeout, false), db: db, config: config, timeout: a.global.timeout}, nil
}

// read reads which version and channel the tables have, which may be none.
func (t *table) read(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, t.timeout)
	defer cancel()
	state, err := t.State(ctx)
	if sqlerr.NoObject(err) || errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err == nil && state.Channel != "" {
		t.Names.Channel = state.Channel
	}
	t.state = state
	return err
}

// look connects and reads.
func (a *app) look(ctx context.Context) (*table, error) {
	t, err := a.connect(ctx)
	if err != nil {
		return nil, err
	}
	if err := t.read(ctx); err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

// table connects to tables of this release's version.
func (a *app) table(ctx context.Context) (*table, error) {
	t, err := a.look(ctx)
	if err != nil {
		return nil, err
	}
	switch want := migrate.Latest(); {
	case t.state.Version == 0:
		err = errNoTables
	case t.state.Version != want:
		err = &pgcache.SchemaError{Have: t.state.Version, Want: want}
	}
	if err != nil {
		t.close()
		return nil, err
	}
	return t, nil
}

func (t *table) close() {
	t.Store.Close()
	t.db.Close()
}

// cache is a Cache on the tables, without memory and without a listener: a process that ends at once has no use for them. It publishes
// what it writes in the writing statement, as nobody would be left to flush it.
func (a *app) cache(t *table, o pgcache.Options) (*pgcache.Cache, error) {
	o.Schema, o.Prefix, o.Timeout = a.global.schema, a.global.prefix, a.global.timeout
	o.Channel = cmp.Or(o.Channel, t.state.Channel)
	o.Local, o.Guard, o.CleanupInterval, o.InvalidationWindow = localcache.None(), pgcache.NoGuard(), -1, pgcache.Immediate
	o.Logger = slog.New(slog.DiscardHandler)
	c, err := pgcache.New(t.db, o)
	if err != nil {
		return nil, usageError{err}
	}
	return c, nil
}

// withCache runs f on a Cache.
func (a *app) withCache(ctx context.Context, o pgcache.Options, f func(c *pgcache.Cache, t *table) error) error {
	t, err := a.table(ctx)
	if err != nil {
		return err
	}
	defer t.close()
	c, err := a.cache(t, o)
	if err != nil {
		return err
	}
	return errors.Join(f(c, t), c.Close())
}

var inURL = regexp.MustCompile(`(\w+://[^\s:/@]*):[^\s@]+@`)

var inPairs = regexp.MustCompile(`(?i)(password\s*=\s*)('(?:[^'\\]|\\.)*'|[^\s&']+)`)

// scrub takes passwords out of a text: those that we know, and whatever looks like one.
func (a *app) scrub(text string) string {
	for _, s := range append(a.secrets, a.global.dsn) {
		if len(s) > 2 {
			text = strings.ReplaceAll(text, s, "*****")
		}
	}
	text = inURL.ReplaceAllString(text, "$1:*****@")
	return inPairs.ReplaceAllString(text, "$1*****")
}
