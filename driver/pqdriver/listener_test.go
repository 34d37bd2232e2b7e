package pqdriver_test

import (
	"context"
	"database/sql"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/lib/pq"

	"github.com/pgcache/go/driver/pqdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/listener"
	"github.com/pgcache/go/listener/listenertest"
	"github.com/pgcache/go/pgcache"
)

func TestMain(m *testing.M) { testdb.Main(m) }

func TestListener(t *testing.T) {
	listenertest.Test(t, func(_ testing.TB, dsn string, cfg listener.Config) pgcache.Listener {
		return listener.New(pqdriver.DialDSN(dsn), cfg)
	})
}

func TestDSN(t *testing.T) {
	t.Parallel()
	dsn := testdb.DSN(t)
	for name, dsn := range map[string]string{
		"plain":             dsn,
		"binary parameters": testdb.WithParam(dsn, "binary_parameters", "yes"),
		"connect timeout":   testdb.WithParam(dsn, "connect_timeout", "1"), // a deadline that must be gone afterwards
		"TLS if there is":   testdb.WithParam(dsn, "sslmode", "prefer"),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := newNode(t)
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error)
			for range 2 { // the second goes along
				go func() { ended <- pqdriver.Listener(dsn).Listen(ctx, n.channel, n) }()
				<-n.beat
			}
			if err := n.send(t.Context(), "hello"); err != nil {
				t.Fatal(err)
			}
			for received := 0; received < 2; {
				if <-n.notify == "hello" {
					received++
				}
			}
			if name == "plain" {
				var sessions int
				query := "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'pgcache listener'"
				if err := n.db.QueryRowContext(t.Context(), query).Scan(&sessions); err != nil || sessions == 0 {
					t.Errorf("%d sessions are called so (%v), want some", sessions, err)
				}
			}
			if name == "connect timeout" {
				<-n.beat // a heartbeat, after two seconds
				<-n.beat
			}
			cancel()
			for range 2 {
				if err := <-ended; err != nil {
					t.Errorf("Listen returned %v", err)
				}
			}
			if len(n.down) > 0 {
				t.Errorf("Down(%v)", <-n.down)
			}
		})
	}
}

func TestConfigurationFaults(t *testing.T) {
	t.Parallel()
	n := newNode(t)
	for dsn, want := range map[string]string{
		"postgres://me:sec/ret@host/db":             "cannot be parsed; it looks like",
		"host=x password=my secret":                 "cannot be parsed; it looks like",
		"host=x sslmode=perhaps":                    "perhaps",
		"mysql://host/db":                           "cannot be parsed",
		"host=x client_encoding='LATIN1'":           "client_encoding",
		"postgres://host/db?client_encoding=LATIN1": "cannot be parsed",
	} {
		err := pqdriver.Listener(dsn).Listen(t.Context(), n.channel, n)
		if err == nil || !strings.Contains(err.Error(), want) || strings.Contains(err.Error(), "sec") {
			t.Errorf("Listen with %q returned %v, want something with %q", dsn, err, want)
		}
	}
}

// What PGCLIENTENCODING asks for is not what a listener wants. It can't run beside others: it changes the environment.
func TestEncodingOfTheEnvironment(t *testing.T) {
	config, err := pq.NewConfig(testdb.DSN(t))
	if err != nil {
		t.Fatal(err)
	}
	pairs := fmt.Sprintf("host=%s port=%d user=%s password='%s' dbname=%s sslmode=disable", config.Host, config.Port, config.User, config.Password, config.Database)
	t.Setenv("PGCLIENTENCODING", "LATIN1")
	for name, dsn := range map[string]string{"as given": testdb.DSN(t), "with a parameter": testdb.WithParam(testdb.DSN(t), "connect_timeout", "20"), "pairs": pairs} {
		n := &node{testdb.DB(t), testdb.Schema(t), make(chan time.Time, 1000), make(chan string, 1000), make(chan error, 1000)}
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error, 1)
		go func() { ended <- pqdriver.Listener(dsn).Listen(ctx, n.channel, n) }()
		select {
		case <-n.beat:
		case err := <-ended:
			t.Fatalf("%s: Listen returned %v", name, err)
		case err := <-n.down:
			t.Fatalf("%s: %v", name, err)
		}
		if err := n.send(t.Context(), "é€"); err != nil {
			t.Fatal(err)
		}
		for got := ""; got != "é€"; {
			got = <-n.notify
		}
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

// node is a Subscriber.
type node struct {
	db      *sql.DB
	channel string
	beat    chan time.Time
	notify  chan string
	down    chan error
}

func newNode(t *testing.T) *node {
	db := testdb.Open(t, "postgres", testdb.DSN(t))
	return &node{db, testdb.Schema(t), make(chan time.Time, 1000), make(chan string, 1000), make(chan error, 1000)}
}

func (n *node) Probe(ctx context.Context, nonce string) error {
	return n.send(ctx, pgcache.ProbePrefix+nonce)
}
func (n *node) Trust(trusted time.Time) { n.beat <- trusted }
func (n *node) Notify(payload string)   { n.notify <- payload }
func (n *node) Down(err error)          { n.down <- err }

func (n *node) send(ctx context.Context, payload string) error {
	_, err := n.db.ExecContext(ctx, "SELECT pg_notify($1, $2)", n.channel, payload)
	return err
}
