package httpcache_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"

	bartventer "github.com/bartventer/httpcache"
	"github.com/bartventer/httpcache/store/acceptance"
	"github.com/bartventer/httpcache/store/driver"
	gregjones "github.com/gregjones/httpcache"
	gregjonestest "github.com/gregjones/httpcache/test"

	"github.com/pgcache/go/adapters/httpcache"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// The suite of gregjones/httpcache, which sandrolain/httpcache has as well, with the same interface.
func TestCache(t *testing.T) {
	t.Parallel()
	c := pgcachetest.New(t, pgcache.Options{})
	gregjonestest.Cache(t, newCache(t, c))
}

// The acceptance suite of bartventer/httpcache, each case on a cache of its own.
func TestConn(t *testing.T) {
	t.Parallel()
	acceptance.Run(t, acceptance.FactoryFunc(func() (driver.Conn, func()) {
		return httpcache.NewConn(pgcachetest.New(t, pgcache.Options{})), func() {}
	}))
}

// A response that one process fetched is fresh for another, and is revalidated when it has to be.
func TestTransports(t *testing.T) {
	t.Parallel()
	var asked, validated atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		w.Header().Set("ETag", `"1"`)
		if r.Header.Get("If-None-Match") == `"1"` {
			validated.Add(1)
			w.WriteHeader(http.StatusNotModified)
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/stale" {
			w.Header().Set("Cache-Control", "max-age=0")
		}
		fmt.Fprint(w, "body")
	}))
	t.Cleanup(server.Close)
	long := "/fresh?" + strings.Repeat("x", 3000)

	for name, transport := range map[string]func(c *pgcache.Cache, process int) http.RoundTripper{
		"gregjones": func(c *pgcache.Cache, _ int) http.RoundTripper { return gregjones.NewTransport(newCache(t, c)) },
		"bartventer": func(c *pgcache.Cache, process int) http.RoundTripper {
			scheme := fmt.Sprintf("pgcache-test-%d", process)
			httpcache.Register(scheme, httpcache.NewConn(c))
			return bartventer.NewTransport(scheme + "://")
		},
	} {
		asked.Store(0)
		validated.Store(0)
		nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
		var clients []*http.Client
		for i, node := range nodes {
			clients = append(clients, &http.Client{Transport: transport(node.Cache, i)})
		}
		for _, path := range []string{"/fresh", long, "/stale"} {
			for i, client := range append(clients, clients...) {
				if got := get(t, client, server.URL+path); got != "body" {
					t.Errorf("%s: %.20s, client %d: %q", name, path, i, got)
				}
			}
		}
		if asked, validated := asked.Load(), validated.Load(); asked != 1+1+4 || validated != 3 {
			t.Errorf("%s: the server was asked %d times, %d of them to validate; want 6 and 3", name, asked, validated)
		}
	}
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	cache, conn := httpcache.New(node.Cache), httpcache.NewConn(node.Cache)
	var errs []error
	cache.OnError = func(err error) { errs = append(errs, err) }
	node.Faults.Fail(nil)
	defer node.Faults.Mend()
	cache.Set("key", nil)
	cache.Delete("key")
	if _, ok := cache.Get("key"); ok {
		t.Error("Get found something")
	}
	if len(errs) != 3 {
		t.Errorf("%d errors were reported, want 3: %v", len(errs), errs)
	}
	_, err := conn.Get("key")
	for name, err := range map[string]error{"Get": err, "Set": conn.Set("key", nil), "Delete": conn.Delete("key")} {
		if err == nil || errors.Is(err, driver.ErrNotExist) {
			t.Errorf("%s of a Conn: %v", name, err)
		}
	}
}

func newCache(t *testing.T, c *pgcache.Cache) *httpcache.Cache {
	cache := httpcache.New(c)
	cache.OnError = func(err error) { t.Errorf("the cache: %v", err) }
	return cache
}

func get(t *testing.T, client *http.Client, url string) string {
	t.Helper()
	resp, err := client.Get(url)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}
