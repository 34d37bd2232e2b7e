package testdb_test

import (
	"errors"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgcache/go/internal/testdb"
)

// while is how long a test looks at a link on which nothing may happen.
const while = 50 * time.Millisecond

// echo is a server that sends back what it gets, except that "bye" makes it leave. It returns a DSN that names it.
func echo(t *testing.T) string {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer conn.Close()
				buffer := make([]byte, 1024)
				for {
					n, err := conn.Read(buffer)
					if err != nil || string(buffer[:n]) == "bye" {
						return
					}
					if _, err := conn.Write(buffer[:n]); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		listener.Close()
		wg.Wait()
	})
	return "postgres://somebody@" + listener.Addr().String() + "/db"
}

// dial connects to what a proxy's DSN names.
func dial(t *testing.T, p *testdb.Proxy) net.Conn {
	t.Helper()
	conn, err := tryDial(t, p)
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

func tryDial(t *testing.T, p *testdb.Proxy) (net.Conn, error) {
	t.Helper()
	config, err := pgconn.ParseConfig(p.DSN())
	if err != nil {
		t.Fatal(err)
	}
	network, address := pgconn.NetworkAddress(config.Host, config.Port)
	conn, err := net.Dial(network, address)
	if err == nil {
		t.Cleanup(func() { conn.Close() })
	}
	return conn, err
}

func send(t *testing.T, conn net.Conn, text string) {
	t.Helper()
	if _, err := conn.Write([]byte(text)); err != nil {
		t.Errorf("sending %q: %v", text, err)
	}
}

// receive returns what arrives within the time, or the error that ends it.
func receive(conn net.Conn, within time.Duration) (string, error) {
	_ = conn.SetReadDeadline(time.Now().Add(within))
	buffer := make([]byte, 1024)
	n, err := conn.Read(buffer)
	return string(buffer[:n]), err
}

func wantReply(t *testing.T, conn net.Conn, want string) {
	t.Helper()
	if got, err := receive(conn, 10*time.Second); got != want || err != nil {
		t.Errorf("received %q, %v; want %q", got, err, want)
	}
}

func wantSilence(t *testing.T, conn net.Conn) {
	t.Helper()
	if got, err := receive(conn, while); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("received %q, %v; want silence", got, err)
	}
}

func TestProxyCut(t *testing.T) {
	t.Parallel()
	p := testdb.NewProxy(t, echo(t))
	old := dial(t, p)
	send(t, old, "hello")
	wantReply(t, old, "hello")

	p.Cut()
	if got, err := receive(old, 10*time.Second); !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("old connection: received %q, %v; want a reset", got, err)
	}
	fresh, err := tryDial(t, p)
	if err == nil { // the reset may come that early
		_, err = receive(fresh, 10*time.Second)
	}
	if !errors.Is(err, syscall.ECONNRESET) {
		t.Errorf("new connection: %v; want a reset", err)
	}

	p.Restore()
	next := dial(t, p)
	send(t, next, "again")
	wantReply(t, next, "again")
}

func TestProxyFreeze(t *testing.T) {
	t.Parallel()
	p := testdb.NewProxy(t, echo(t))
	old, left, cut := dial(t, p), dial(t, p), dial(t, p)
	for _, conn := range []net.Conn{old, left, cut} {
		send(t, conn, "hello")
		wantReply(t, conn, "hello")
	}

	p.Freeze()
	p.Freeze()
	fresh := dial(t, p)
	send(t, old, "old")
	send(t, fresh, "fresh")
	send(t, left, "bye")
	for _, conn := range []net.Conn{old, fresh, left} {
		wantSilence(t, conn)
	}

	p.Thaw()
	p.Thaw()
	wantReply(t, old, "old")
	wantReply(t, fresh, "fresh")
	if got, err := receive(left, 10*time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("from a server that left: %q, %v; want EOF", got, err)
	}

	p.Freeze() // a frozen link can be cut, and a frozen proxy be closed
	send(t, cut, "lost")
	p.Cut()
	if got, err := receive(cut, 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("after Freeze and Cut: received %q, %v; want a reset", got, err)
	}
	p.Restore()
	send(t, dial(t, p), "never arrives")
}

// A half that is frozen holds up nothing in the other direction.
func TestProxyFreezeHalf(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := testdb.NewProxy(t, "postgres://somebody@"+listener.Addr().String()+"/db")
	client := dial(t, p)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	for _, c := range []struct {
		half         testdb.Direction
		frozen, open [2]net.Conn // from, to
	}{
		{testdb.ToServer, [2]net.Conn{client, server}, [2]net.Conn{server, client}},
		{testdb.ToClient, [2]net.Conn{server, client}, [2]net.Conn{client, server}},
	} {
		p.FreezeHalf(c.half)
		send(t, c.frozen[0], "late")
		send(t, c.open[0], "now")
		wantReply(t, c.open[1], "now")
		wantSilence(t, c.frozen[1])
		p.Thaw()
		wantReply(t, c.frozen[1], "late")
	}
}

// TestProxyLead: a connection made after Lead goes to the other server.
func TestProxyLead(t *testing.T) {
	t.Parallel()
	first, second := echo(t), "postgres://somebody@127.0.0.1:1/db"
	p := testdb.NewProxy(t, second)
	if err := p.Lead(first); err != nil {
		t.Fatal(err)
	}
	conn := dial(t, p)
	send(t, conn, "hello")
	wantReply(t, conn, "hello")
	if err := p.Lead("postgres://%%"); err == nil {
		t.Error("no error for a DSN that can't be parsed")
	}
}

func TestProxyFreezeHidesThatTheServerHasGone(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	p := testdb.NewProxy(t, "postgres://somebody@"+listener.Addr().String()+"/db")
	client := dial(t, p)
	server, err := listener.Accept()
	if err != nil {
		t.Fatal(err)
	}
	p.Freeze()
	server.Close()
	wantSilence(t, client)
	p.Thaw()
	if got, err := receive(client, 10*time.Second); !errors.Is(err, io.EOF) {
		t.Errorf("received %q, %v; want EOF", got, err)
	}
}

func TestProxyDelay(t *testing.T) {
	t.Parallel()
	p := testdb.NewProxy(t, echo(t))
	conn := dial(t, p)
	const delay = 30 * time.Millisecond
	p.Delay(delay)
	start := time.Now()
	send(t, conn, "hello")
	wantReply(t, conn, "hello")
	if took := time.Since(start); took < 2*delay {
		t.Errorf("there and back in %v, want at least %v", took, 2*delay)
	}
	p.Delay(time.Hour) // a proxy that holds something up can be closed
	send(t, conn, "never arrives")
}

func TestProxyServerIsDown(t *testing.T) {
	t.Parallel()
	p := testdb.NewProxy(t, "postgres://somebody@127.0.0.1:1/db")
	if got, err := receive(dial(t, p), 10*time.Second); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("received %q, %v; want an end", got, err)
	}
}

func TestProxyDSN(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ dsn, want string }{
		{"postgres://me:p%40ss@example.com:5433/db?sslmode=disable", "postgres://me:p%40ss@127.0.0.1:PORT/db?sslmode=disable"},
		{"postgresql://example.com", "postgresql://127.0.0.1:PORT"},
		{"postgres://me@a:1,b:2/db?application_name=x%20y", "postgres://me@127.0.0.1:PORT/db?application_name=x%20y"},
		{"postgres:///db?host=example.com&port=7&user=me", "postgres://127.0.0.1:PORT/db?user=me"},
		{"postgres:///db?host=/run/postgresql", "postgres://127.0.0.1:PORT/db?sslmode=disable"},
		{"host=example.com user=me", "host=example.com user=me host='127.0.0.1' port='PORT'"},
		{"host=/run/postgresql", "host=/run/postgresql host='127.0.0.1' port='PORT' sslmode='disable'"},
	} {
		got := testdb.NewProxy(t, test.dsn).DSN()
		config, err := pgconn.ParseConfig(got)
		if err != nil {
			t.Errorf("%s: %v", test.dsn, err)
			continue
		}
		want := strings.ReplaceAll(test.want, "PORT", portOf(config))
		if got != want || config.Host != "127.0.0.1" || len(config.Fallbacks) > 1 {
			t.Errorf("%s: got %s, want %s", test.dsn, got, want)
		}
	}
}

func TestProxyInFrontOfPostgres(t *testing.T) {
	t.Parallel()
	for _, dsn := range []string{testdb.DSN(t), pairs(t, testdb.DSN(t))} {
		p := testdb.NewProxy(t, dsn)
		for _, driver := range []string{"pgx", "postgres"} {
			db := testdb.Open(t, driver, p.DSN())
			if got := scan(t, db, "SELECT 1"); got != "1" {
				t.Errorf("%s: got %s", driver, got)
			}
			p.Cut()
			if err := db.PingContext(t.Context()); err == nil {
				t.Errorf("%s: answers through a cut link", driver)
			}
			p.Restore()
			if got := scan(t, db, "SELECT 2"); got != "2" {
				t.Errorf("%s: got %s", driver, got)
			}
		}
	}
}

func portOf(config *pgconn.Config) string { return strconv.Itoa(int(config.Port)) }
