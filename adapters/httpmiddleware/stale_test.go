package httpmiddleware_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/pgcache/go/adapters/httpmiddleware"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// A handler that fails is answered for with what has expired, if it allowed that.
func TestStaleIfError(t *testing.T) {
	t.Parallel()
	for i, test := range []struct {
		control string
		failure func(w http.ResponseWriter)
		request string
		o       httpmiddleware.Options
		stale   bool
	}{
		{"max-age=60, stale-if-error=600", status(500), "", httpmiddleware.Options{}, true},
		{"s-maxage=60, stale-if-error=600", status(503), "", httpmiddleware.Options{}, true},
		{"max-age=60, stale-if-error=600", status(501), "", httpmiddleware.Options{}, false},
		{"max-age=60, stale-if-error=600", status(404), "", httpmiddleware.Options{}, false},
		{"max-age=60, stale-if-error=600", status(500), "max-age=1000", httpmiddleware.Options{}, false},
		{"max-age=60, stale-if-error=600", status(500), "no-cache", httpmiddleware.Options{}, false},
		{"max-age=60, stale-if-error=600", status(500), "", httpmiddleware.Options{MaxStale: -1}, false},
		{"max-age=60, stale-if-error=600, must-revalidate", status(500), "", httpmiddleware.Options{}, false},
		{"max-age=60, stale-if-error=600, proxy-revalidate", status(500), "", httpmiddleware.Options{}, false},
		{"max-age=60, stale-if-error=0", status(500), "", httpmiddleware.Options{}, false},
		{"max-age=60", status(500), "", httpmiddleware.Options{}, false},
	} {
		t.Run(fmt.Sprint(i), func(t *testing.T) {
			t.Parallel()
			var runs atomic.Int32
			var fails atomic.Bool
			c := pgcachetest.New(t, pgcache.Options{})
			s := newSite(t, c, test.o, &runs, func(w http.ResponseWriter, r *http.Request) {
				if fails.Load() {
					w.Header().Set("X-Failed", "1")
					test.failure(w)
					return
				}
				w.Header().Set("Cache-Control", test.control)
				io.WriteString(w, "good")
			})
			s.do("GET", "/")
			expire(t, c)
			fails.Store(true)
			var pairs []string
			if test.request != "" {
				pairs = []string{"Cache-Control", test.request}
			}
			for range 2 { // who runs the handler, and who comes while it is not tried again
				resp, body := s.do("GET", "/", pairs...)
				if stale := resp.StatusCode == http.StatusOK && body == "good"; stale != test.stale || stale == (resp.Header.Get("X-Failed") != "") {
					t.Errorf("%+v: %d, %q, %v", test, resp.StatusCode, body, resp.Header)
				}
			}
			if n := runs.Load(); test.stale && n != 2 {
				t.Errorf("%d runs", n)
			}
			// It is another thing to say that it may not be stored: that is the answer.
			fails.Store(false)
		})
	}
}

// expire lets all responses expire, and leaves the marks.
func expire(t *testing.T, c *pgcache.Cache) {
	t.Helper()
	for key, err := range c.Keys(t.Context(), "http:v~") {
		if err != nil {
			t.Fatal(err)
		}
		pgcachetest.Expire(t, c, key)
	}
}

func status(code int) func(w http.ResponseWriter) {
	return func(w http.ResponseWriter) {
		w.Header().Set("Content-Length", "6")
		w.WriteHeader(code)
		io.WriteString(w, "failed")
	}
}

// All who wait for a handler that fails get what is stale, on all nodes, and those who wait for one that brings something private
// don't.
func TestStaleStampede(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	var mode atomic.Value
	mode.Store("good")
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	var sites []*site
	for _, node := range nodes {
		sites = append(sites, newSite(t, node.Cache, httpmiddleware.Options{Key: pathOf}, &runs, func(w http.ResponseWriter, r *http.Request) {
			switch mode.Load() {
			case "good":
				w.Header().Set("Cache-Control", "max-age=60, stale-if-error=600")
				io.WriteString(w, "good")
			case "private":
				time.Sleep(100 * time.Millisecond)
				w.Header().Set("Cache-Control", "private")
				io.WriteString(w, "private "+r.Header.Get("X-User"))
			case "failing":
				time.Sleep(100 * time.Millisecond)
				w.WriteHeader(http.StatusBadGateway)
			}
		}))
	}
	all := func() map[string]int {
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[string]int{}
		for i := range 20 {
			wg.Go(func() {
				resp, body := sites[i%2].send("GET", "/", "X-User", fmt.Sprint(i))
				mu.Lock()
				defer mu.Unlock()
				got[fmt.Sprint(resp.StatusCode, " ", body)]++
			})
		}
		wg.Wait()
		for _, s := range sites {
			httpmiddleware.Wait(s.h)
		}
		return got
	}
	sites[0].do("GET", "/")
	pgcachetest.Sync(t, nodes[0].Cache, nodes[1].Cache)
	sites[1].do("GET", "/")
	expire(t, nodes[0].Cache)
	pgcachetest.Sync(t, nodes[0].Cache, nodes[1].Cache)
	mode.Store("private")
	if got := all(); len(got) != 20 {
		t.Errorf("%d private responses for 20 users: %v", len(got), got)
	}
	mode.Store("failing")
	for _, s := range sites {
		httpmiddleware.Forget(s.h)
	}
	runs.Store(0)
	if got := all(); len(got) != 1 || got["200 good"] != 20 || runs.Load() > 2 {
		t.Errorf("%v of %d runs", got, runs.Load())
	}
}

// A response that has an age already lives for the rest alone.
func TestAge(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	c := pgcachetest.New(t, pgcache.Options{})
	s := newSite(t, c, httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=600")
		w.Header().Set("Age", "590")
		io.WriteString(w, "x")
	})
	s.do("GET", "/")
	resp, _ := s.do("GET", "/")
	if age := resp.Header.Get("Age"); runs.Load() != 1 || len(age) != 3 || age < "590" || age > "600" {
		t.Errorf("%d runs, Age %s", runs.Load(), age)
	}
	for key, err := range c.Keys(t.Context(), "http:v~") {
		if err != nil {
			t.Fatal(err)
		}
		view := pgcache.For[[]byte](c, pgcache.WithCodec(anyBytes{}))
		if e, found, err := view.GetEntry(t.Context(), key); err != nil || !found || e.ExpiresIn > 10*time.Second {
			t.Errorf("%v, %v: it lives for %v", found, err, e.ExpiresIn)
		}
	}
}

// anyBytes reads what the middleware has stored.
type anyBytes struct{}

func (anyBytes) Name() string                    { return "http1" }
func (anyBytes) Marshal(any) ([]byte, error)     { return nil, nil }
func (anyBytes) Unmarshal(b []byte, v any) error { *v.(*[]byte) = b; return nil }

// What a handler takes out of the header of a request still belongs to the variant.
func TestHandlerChangesHeader(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{Authorized: true}, &runs, func(w http.ResponseWriter, r *http.Request) {
		user := r.Header.Get("Cookie") + r.Header.Get("Authorization")
		r.Header.Del("Cookie")
		r.Header.Del("Authorization")
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("Vary", "Cookie")
		io.WriteString(w, "for "+user)
	})
	for range 2 {
		for _, step := range [][3]string{{"Cookie", "ann", "for ann"}, {"X", "", "for "}, {"Authorization", "bob", "for bob"}, {"X", "", "for "}} {
			if _, body := s.do("GET", "/", step[0], step[1]); body != step[2] && step[0] != "Authorization" || strings.Contains(body, "bob") && step[0] == "X" {
				t.Errorf("%v: %q", step, body)
			}
		}
	}
}

// What is around the middleware sees which route of a ServeMux within has handled the request, as without it.
func TestPattern(t *testing.T) {
	t.Parallel()
	c := pgcachetest.New(t, pgcache.Options{})
	mux := http.NewServeMux()
	mux.HandleFunc("/users/{id}/{rest...}", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Query().Has("panic") {
			panic(http.ErrAbortHandler)
		}
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "x")
	})
	cached := httpmiddleware.New(c, httpmiddleware.Options{})(mux)
	var seen string
	logger := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		defer func() {
			_ = recover()
			seen = strings.Join([]string{r.Pattern, r.PathValue("id"), r.PathValue("rest"), r.Header.Get("If-None-Match")}, " ")
		}()
		cached.ServeHTTP(w, r)
	})
	const route = "/users/{id}/{rest...}"
	for _, step := range [][4]string{
		{"GET", "/users/1/a/b", "", route + " 1 a/b e"},
		{"GET", "/users/1/a/b", "no-cache", route + " 1 a/b e"},
		{"GET", "/users/2/a?panic", "", route + " 2 a e"},
		{"POST", "/users/3/", "", route + " 3  e"},
		{"GET", "/nowhere", "", "   e"},
	} {
		r := httptest.NewRequest(step[0], step[1], nil)
		r.Header.Set("If-None-Match", "e")
		r.Header.Set("Cache-Control", step[2])
		logger.ServeHTTP(httptest.NewRecorder(), r)
		httpmiddleware.Wait(cached)
		if seen != step[3] {
			t.Errorf("%v: %q", step, seen)
		}
	}
}

// wrapped is the writer of another middleware, which unwraps to the server's.
type wrapped struct{ http.ResponseWriter }

func (w wrapped) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// Nothing goes past the recorder where another middleware has wrapped the server's writer.
func TestWrappedWriter(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	h := httpmiddleware.New(pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		control := http.NewResponseController(w)
		if r.URL.Path == "/hijack" {
			conn, rw, err := control.Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			rw.Flush()
			return
		}
		if err := control.Flush(); err != nil {
			t.Error(err)
		}
		w.WriteHeader(http.StatusNotFound) // too late
		io.WriteString(w, "hi")
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { h.ServeHTTP(wrapped{w}, r) }))
	t.Cleanup(server.Close)
	s := &site{t, h, server.URL, &runs}
	for _, path := range []string{"/flush", "/hijack"} {
		runs.Store(0)
		for range 2 {
			if resp, body := s.do("GET", path); resp.StatusCode != http.StatusOK || body != "hi" {
				t.Errorf("%s: %d, %q", path, resp.StatusCode, body)
			}
		}
		if runs.Load() != 2 {
			t.Errorf("%s: %d runs: it was stored", path, runs.Load())
		}
	}
}

// The type of a body is the handler's, or that of whoever is around the middleware, on a hit too.
func TestContentType(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	h := httpmiddleware.New(pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{})(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		w.Header().Set("Cache-Control", "max-age=60")
		if r.URL.Path == "/none" {
			w.Header()["Content-Type"] = nil
		}
		w.WriteHeader(http.StatusOK)
		io.WriteString(w, "{}")
	}))
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		h.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	s := &site{t, h, server.URL, &runs}
	for _, path := range []string{"/outer", "/none"} {
		first, _ := s.do("GET", path)
		second, _ := s.do("GET", path)
		want := map[string]string{"/outer": "application/json"}[path]
		if got := first.Header.Get("Content-Type"); got != want {
			t.Errorf("%s: %q", path, got)
		}
		if got := second.Header.Get("Content-Type"); got != want || second.Header.Get("Cache-Status") != "pgcache; hit" {
			t.Errorf("%s, a hit: %q", path, got)
		}
	}
}

// A write whose outcome nobody knows invalidates too, and one that is refused does not.
func TestFailedWrites(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case r.Method == http.MethodGet:
			w.Header().Set("Cache-Control", "max-age=60")
			fmt.Fprint(w, runs.Load())
		case r.Header.Get("X-Panic") != "":
			panic(http.ErrAbortHandler)
		case r.Header.Get("X-Refuse") != "":
			w.WriteHeader(http.StatusForbidden)
		default:
			w.WriteHeader(http.StatusInternalServerError)
		}
	})
	for header, gone := range map[string]bool{"X-Refuse": false, "X-Panic": true, "X-Fail": true} {
		_, before := s.do("GET", "/")
		r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, s.url+"/", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set(header, "1")
		if resp, err := http.DefaultTransport.RoundTrip(r); err == nil { //nolint:bodyclose // it is closed below
			resp.Body.Close()
		}
		if _, after := s.do("GET", "/"); (after != before) != gone {
			t.Errorf("%s: %s, then %s", header, before, after)
		}
	}
}

// Who waits does not wait for the end of a body that is announced as too long, nor twice for one that the cache refuses.
func TestTooLong(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	s := newSite(t, pgcachetest.New(t, pgcache.Options{MaxValueBytes: 1000}), httpmiddleware.Options{MaxBytes: 5000}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		body := strings.Repeat("x", 2000)
		if r.URL.Path == "/announced" {
			body = strings.Repeat("x", 6000)
			w.Header().Set("Content-Length", "6000")
			w.WriteHeader(http.StatusOK)
			if r.Header.Get("X-Slow") != "" {
				began <- struct{}{}
				<-goOn
			}
		}
		io.WriteString(w, body)
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.send("GET", "/announced", "X-Slow", "1")
	}()
	<-began
	if _, body := s.send("GET", "/announced"); len(body) != 6000 {
		t.Errorf("%d bytes", len(body))
	}
	close(goOn)
	<-done
	for range 2 {
		if _, body := s.do("GET", "/refused"); len(body) != 2000 {
			t.Errorf("%d bytes", len(body))
		}
	}
	if httpmiddleware.Passes(s.h) != 2 {
		t.Error("requests for what can't be stored wait for each other")
	}
}

// A response with trailers is not stored, also where they are set after the body.
func TestTrailers(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "x")
		w.Header().Set(http.TrailerPrefix+"X-Sum", "1")
	})
	s.do("GET", "/")
	s.do("GET", "/")
	if runs.Load() != 2 {
		t.Error("it was stored without them")
	}
}

// A request whose client leaves while it waits ends at once, and the handler goes on for the others.
func TestWaiterLeaves(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{MaxWait: time.Minute}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		if runs.Load() == 1 {
			began <- struct{}{}
			<-goOn
		}
		io.WriteString(w, "x")
	})
	done := make(chan string)
	go func() {
		_, body := s.send("GET", "/")
		done <- body
	}()
	<-began
	ctx, cancel := context.WithCancel(t.Context())
	r := httptest.NewRequest(http.MethodGet, s.url+"/", nil).WithContext(ctx)
	r.Host = strings.TrimPrefix(s.url, "http://")
	left := make(chan struct{})
	go func() {
		defer close(left)
		s.h.ServeHTTP(httptest.NewRecorder(), r)
	}()
	cancel()
	<-left
	close(goOn)
	if body := <-done; body != "x" {
		t.Error(body)
	}
	httpmiddleware.Wait(s.h)
	s.do("GET", "/")
	if n := runs.Load(); n > 2 {
		t.Errorf("%d runs", n)
	}
}
