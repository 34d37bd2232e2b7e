package pgcache_test

import (
	"context"
	"database/sql"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/lib/pq"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/pgcache"
)

// What is planted: a password in the DSN and a value. Neither may appear in an error, however it is printed and unwrapped, nor
// in the log at its finest, nor in what Options and Stats print.
const (
	plantedPassword = "Pl4ntedPassw0rd"
	plantedValue    = "pl4nted-v4lue"
	plantedNumber   = 424243444546
)

// plants looks for what was planted.
type plants struct {
	t    *testing.T
	logs logs
	n    int // errors looked at
}

func (p *plants) in(what, s string) {
	p.t.Helper()
	for _, plant := range []string{plantedPassword, plantedValue, fmt.Sprint(plantedNumber)} {
		for _, form := range []string{
			plant, hex.EncodeToString([]byte(plant)), base64.StdEncoding.EncodeToString([]byte(plant[:len(plant)/3*3])),
			strings.Trim(fmt.Sprintf("%v", []byte(plant)), "[]"), strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", []byte(plant)), "[]byte{"), "}"),
		} {
			if strings.Contains(s, form) {
				p.t.Errorf("%s shows what was planted: %.600s", what, s)
				return
			}
		}
	}
}

// err looks at an error that has to come, and all that it leads to.
func (p *plants) err(what string, err error) {
	p.t.Helper()
	if p.n++; err == nil {
		p.t.Errorf("%s: no error", what)
		return
	}
	p.t.Logf("%s: %v", what, err)
	p.all(what, err)
	var (
		ofPgx    *pgconn.PgError
		ofPq     *pq.Error
		state    interface{ SQLState() string }
		wrong    *json.UnmarshalTypeError
		quoted   *quotes
		connect  *pgconn.ConnectError
		unparsed *pgconn.ParseConfigError
	)
	if errors.As(err, &ofPgx) {
		p.in(what, fmt.Sprintf("%+v %#v", *ofPgx, ofPgx))
	}
	if errors.As(err, &ofPq) {
		p.in(what, fmt.Sprintf("%+v %#v %s", *ofPq, ofPq, ofPq.ErrorWithDetail()))
	}
	if errors.As(err, &state) {
		p.in(what, fmt.Sprintf("%+v %#v", state, state))
	}
	if errors.As(err, &connect) {
		p.in(what, fmt.Sprintf("%v %+v %#v", connect, connect, connect))
	}
	for _, target := range []any{&wrong, &quoted, &unparsed} {
		if errors.As(err, target) {
			p.t.Errorf("%s: a %T is found", what, target)
		}
	}
}

func (p *plants) all(what string, err error) {
	p.t.Helper()
	what = fmt.Sprintf("%s: %T", what, err)
	p.in(what, err.Error())
	p.in(what, fmt.Sprintf("%v %+v %#v %s %q", err, err, err, err, err))
	switch e := err.(type) { //nolint:errorlint // each step
	case interface{ Unwrap() error }:
		if inner := e.Unwrap(); inner != nil {
			p.all(what, inner)
		}
	case interface{ Unwrap() []error }:
		for _, inner := range e.Unwrap() {
			p.all(what, inner)
		}
	}
}

// done looks at the log, which must have lines that say these words, and at what prints of a cache's parts.
func (p *plants) done(c *pgcache.Cache, o pgcache.Options, says ...string) {
	p.t.Helper()
	p.in("Stats", fmt.Sprintf("%+v %#v", c.Stats(), c.Stats()))
	p.in("Options", fmt.Sprintf("%v %+v %#v", o, o, o))
	p.in("Listener", fmt.Sprintf("%v %+v %#v", o.Listener, o.Listener, o.Listener))
	log := p.logs.String()
	for line := range strings.Lines(log) {
		p.in("the log", line)
	}
	for _, words := range says {
		if !strings.Contains(log, words) {
			p.t.Errorf("nothing is logged of %q, but: %s", words, log)
		}
	}
	p.t.Logf("%d errors, %d lines in the log", p.n, strings.Count(log, "\n"))
}

// quotes is an error that quotes.
type quotes struct{ Value any }

func (q *quotes) Error() string { return fmt.Sprintf("%v is bad", q.Value) }

// withPassword returns how a role reaches dsn's server with a password.
func withPassword(dsn, role, password string) string {
	_, rest, _ := strings.Cut(dsn, "@")
	return "postgres://" + role + ":" + password + "@" + rest
}

// everyCall makes each call of a cache, all of which fail.
func (p *plants) everyCall(what string, c *pgcache.Cache) {
	p.t.Helper()
	ctx := p.t.Context()
	typed := pgcache.For[string](c)
	_, err := c.Get(ctx, "k", new(string))
	p.err(what+": Get", err)
	p.err(what+": Set", c.Set(ctx, "k", plantedValue))
	p.err(what+": Delete", c.Delete(ctx, "k"))
	p.err(what+": SetMany", typed.SetMany(ctx, map[string]string{"k": plantedValue, "l": plantedValue}))
	_, err = typed.GetMany(ctx, []string{"k", "l"})
	p.err(what+": GetMany", err)
	p.err(what+": Clear", c.Clear(ctx))
	_, err = c.Cleanup(ctx)
	p.err(what+": Cleanup", err)
	p.err(what+": Migrate", c.Migrate(ctx))
	_, err = c.MigrationState(ctx)
	p.err(what+": MigrationState", err)
	short, cancel := context.WithTimeout(ctx, 300*time.Millisecond)
	defer cancel()
	p.err(what+": Ready", c.Ready(short))
}

func TestSecretsOfTheDSN(t *testing.T) {
	t.Parallel()
	// A server that asks for passwords.
	hba := filepath.Join(t.TempDir(), "pg_hba.conf")
	if err := os.WriteFile(hba, []byte("host all pgcache all trust\nhost all all all scram-sha-256\n"), 0o644); err != nil { //nolint:gosec // the server may run as another user
		t.Fatal(err)
	}
	for dir := filepath.Dir(hba); dir != os.TempDir() && dir != "/"; dir = filepath.Dir(dir) {
		_ = os.Chmod(dir, 0o755) //nolint:gosec // see above
	}
	server, err := pgserver.StartWith(t.Context(), pgserver.Config{Own: true, Logf: t.Logf, Settings: map[string]string{"hba_file": hba}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	admin := testdb.Open(t, "pgx", server.DSN)
	mustExec(t, admin, "CREATE ROLE planted SUPERUSER LOGIN PASSWORD '"+plantedPassword+"'")
	mustExec(t, admin, "CREATE ROLE other LOGIN PASSWORD 'other'")
	mustExec(t, admin, "CREATE SCHEMA s AUTHORIZATION planted")
	right := withPassword(server.DSN, "planted", plantedPassword)
	nowhere, err := net.Listen("tcp", "127.0.0.1:0") //nolint:noctx // it is closed at once
	if err != nil {
		t.Fatal(err)
	}
	closed := nowhere.Addr().String()
	nowhere.Close()

	listeners := map[string]func(driver, dsn string, db *sql.DB) pgcache.Listener{
		"of the driver": func(driver, dsn string, db *sql.DB) pgcache.Listener { return listenerOf(driver, db, dsn) },
		"of a DSN":      func(_, dsn string, _ *sql.DB) pgcache.Listener { return pgxdriver.ListenerDSN(dsn) },
		"poll":          func(string, string, *sql.DB) pgcache.Listener { return listener.Poll(time.Second) },
	}
	for dsnName, dsn := range map[string]string{
		"unreachable":     "postgres://planted:" + plantedPassword + "@" + closed + "/postgres?sslmode=disable&connect_timeout=2",
		"wrong password":  withPassword(server.DSN, "other", plantedPassword),
		"no such role":    withPassword(server.DSN, "nobody", plantedPassword),
		"key and value":   "host=127.0.0.1 port=1 user=planted password=" + plantedPassword + " connect_timeout=2",
		"no such TLS":     strings.Replace(right, "sslmode=disable", "sslmode=require", 1),
		"no such setting": testdb.WithParam(right, "no_such_setting", "1"),
		"unparsable URL":  "postgres://planted:" + plantedPassword + "@[::1/postgres",
		"slash":           "postgres://planted:" + plantedPassword + "/x@127.0.0.1:1/postgres",
		"unparsable port": "postgres://planted:" + plantedPassword + "@127.0.0.1:port/postgres",
		"unparsable pair": "host=127.0.0.1 password='" + plantedPassword + " port=1",
		"escaped quote":   `host=127.0.0.1 password='a\'` + plantedPassword + `' port=x`,
		"no user":         "postgres:" + plantedPassword + "@127.0.0.1:x",
		"no host":         "postgres://planted:" + plantedPassword + "/postgres",
	} {
		for _, driver := range testdb.Drivers(t) {
			t.Run(dsnName+" "+driver, func(t *testing.T) {
				t.Parallel()
				p := &plants{t: t}
				db, err := sql.Open(driver, dsn)
				if err != nil {
					p.n++ // of the driver alone
					db = testdb.Open(t, driver, server.DSN)
				} else {
					t.Cleanup(func() { db.Close() })
				}
				for name, listen := range listeners {
					o := pgcache.Options{Schema: "s", Listener: listen(driver, dsn, db), Timeout: 3 * time.Second, Logger: p.logs.logger()}
					c, err := pgcache.New(db, o)
					if err != nil {
						t.Fatal(err)
					}
					if p.n == 0 {
						p.everyCall(name, c)
					}
					short, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
					p.err(name+": Ready", c.Ready(short))
					cancel()
					c.Close()
					p.err(name+": closed", c.Set(t.Context(), "k", 1))
					p.done(c, o)
				}
			})
		}
	}

	for _, driver := range testdb.Drivers(t) {
		t.Run("right "+driver, func(t *testing.T) {
			t.Parallel()
			p := &plants{t: t}
			role := "planted_" + driver // each of its own: its password is changed below
			mustExec(t, admin, "CREATE ROLE "+role+" SUPERUSER LOGIN PASSWORD '"+plantedPassword+"'")
			right := withPassword(server.DSN, role, plantedPassword)
			db := testdb.Open(t, driver, right)
			dial := pgxdriver.DialDSN(right)
			if driver == "postgres" {
				dial = pqdriver.DialDSN(right)
			}
			o := pgcache.Options{Schema: "s", Prefix: driver, Listener: listener.New(dial, listener.Config{}), Logger: p.logs.logger()}
			c, err := pgcache.New(db, o)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { c.Close() })
			if err := c.Migrate(t.Context()); err != nil {
				t.Fatal(err)
			}
			if err := c.Ready(t.Context()); err != nil {
				t.Fatal(err)
			}
			set(t, c, "k", plantedValue)
			lost := c.Stats().LocalFlushes
			mustExec(t, admin, "ALTER ROLE "+role+" PASSWORD 'changed'")
			eventually(t, "the listener is lost", func() bool {
				mustExec(t, admin, "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = $1", role)
				return c.Stats().LocalFlushes > lost
			})
			eventually(t, "Sets fail", func() bool {
				if err = c.Set(t.Context(), "k", plantedValue); err != nil {
					p.err("Set after the end", err)
				}
				return err != nil && strings.Contains(err.Error(), "password")
			})
			p.everyCall("after the end", c)
			p.done(c, o, "listener lost")
		})
	}
}

// The errors of New, whatever is wrong with the options.
func TestSecretsOfNew(t *testing.T) {
	t.Parallel()
	dsn := "postgres://planted:" + plantedPassword + "@127.0.0.1:1/postgres"
	for _, driver := range testdb.Drivers(t) {
		db := testdb.Open(t, driver, dsn)
		for name, change := range map[string]func(o *pgcache.Options){
			"Schema": func(o *pgcache.Options) { o.Schema = "a b" }, "Prefix": func(o *pgcache.Options) { o.Prefix = "'" },
			"Channel": func(o *pgcache.Options) { o.Channel = "\x00" }, "Codec": func(o *pgcache.Options) { o.Codec = rawCodec{"a b"} },
			"DefaultTTL": func(o *pgcache.Options) { o.DefaultTTL = -1 }, "MaxValueBytes": func(o *pgcache.Options) { o.MaxValueBytes = -1 },
			"InvalidationWindow": func(o *pgcache.Options) { o.InvalidationWindow = time.Hour },
		} {
			p := &plants{t: t}
			o := pgcache.Options{Listener: listenerOf(driver, db, dsn), Logger: p.logs.logger()}
			change(&o)
			_, err := pgcache.New(db, o)
			p.err(name, err)
			p.done(pgcache.Null(), o)
		}
	}
}
