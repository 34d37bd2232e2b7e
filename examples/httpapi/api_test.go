package main

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(pgcachetest.Main(m)) }

// client talks to one instance of the service.
type client struct {
	t   *testing.T
	url string
}

// newClient starts an instance.
func newClient(t *testing.T, cache *pgcache.Cache, source func(context.Context) (int, error)) *client {
	t.Helper()
	server := httptest.NewServer(newAPI(cache, source))
	t.Cleanup(server.Close)
	return &client{t, server.URL}
}

func (c *client) do(method, path, body string) (status int, answer string) {
	c.t.Helper()
	req, err := http.NewRequestWithContext(c.t.Context(), method, c.url+path, strings.NewReader(body))
	if err != nil {
		c.t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		c.t.Fatal(err)
	}
	defer res.Body.Close()
	data, err := io.ReadAll(res.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return res.StatusCode, strings.TrimSpace(string(data))
}

func (c *client) want(method, path, body string, status int, answer string) {
	c.t.Helper()
	if s, a := c.do(method, path, body); s != status || !strings.Contains(a, answer) {
		c.t.Errorf("%s %s: %d %q, want %d %q", method, path, s, a, status, answer)
	}
}

func TestNumber(t *testing.T) {
	t.Parallel()
	var loads atomic.Int64
	source := func(context.Context) (int, error) { return 100 + int(loads.Add(1)), nil }
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	a, b := newClient(t, nodes[0].Cache, source), newClient(t, nodes[1].Cache, source)

	a.want("GET", "/number", "", 200, `{"number":101}`)
	a.want("GET", "/number", "", 200, `{"number":101}`)
	b.want("GET", "/number", "", 200, `{"number":101}`)
	b.want("POST", "/number", "42\n", 200, `{"number":42}`)
	b.want("GET", "/number", "", 200, `{"number":42}`)
	pgcachetest.Sync(t, nodes[0].Cache)
	a.want("GET", "/number", "", 200, `{"number":42}`)
	a.want("POST", "/number?value=-7", "", 200, `{"number":-7}`)
	a.want("GET", "/number", "", 200, `{"number":-7}`)
	if n := loads.Load(); n != 1 {
		t.Errorf("%d loads", n)
	}

	status, answer := a.do("GET", "/stats", "")
	var stats pgcache.Stats
	if err := json.Unmarshal([]byte(answer), &stats); err != nil || status != 200 || stats.LocalHits == 0 || stats.Loads != 1 || stats.Sets != 1 {
		t.Errorf("%d %s %v", status, answer, err)
	}
}

func TestBadRequests(t *testing.T) {
	t.Parallel()
	c := newClient(t, pgcachetest.New(t, pgcache.Options{}), func(context.Context) (int, error) { return 0, errors.New("the source is down") })
	c.want("POST", "/number", "", 400, "want a number")
	c.want("POST", "/number", "many", 400, "want a number")
	c.want("POST", "/number?value=1.5", "", 400, "want a number")
	c.want("POST", "/number", strings.Repeat("9", 100), 400, "too large")
	c.want("DELETE", "/number", "", 405, "")
	c.want("GET", "/", "", 404, "")
	c.want("GET", "/number", "", 503, "no number at the moment")
}

// A request that is under way when the service has to stop still gets its answer.
func TestGracefulShutdown(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	arrived, release := make(chan struct{}), make(chan struct{})
	handler := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-release
		reply(w, number{1})
	})
	ctx, stop := context.WithCancel(t.Context())
	served := make(chan error, 1)
	go func() { served <- serve(ctx, listener, handler) }()

	answer := make(chan string, 1)
	go func() {
		_, a := (&client{t, "http://" + listener.Addr().String()}).do("GET", "/", "")
		answer <- a
	}()
	<-arrived
	stop()
	select {
	case err := <-served:
		t.Fatal("stopped with a request under way:", err)
	case <-time.After(50 * time.Millisecond):
	}
	close(release)
	if got := <-answer; got != `{"number":1}` {
		t.Errorf("got %q", got)
	}
	if err := <-served; err != nil {
		t.Error(err)
	}
}
