package httpmiddleware_test

import (
	"bufio"
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

// site is a handler behind the middleware, on a server.
type site struct {
	t    *testing.T
	h    http.Handler
	url  string
	runs *atomic.Int32
}

func newSite(t *testing.T, c *pgcache.Cache, o httpmiddleware.Options, runs *atomic.Int32, f http.HandlerFunc) *site {
	h := httpmiddleware.New(c, o)(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		runs.Add(1)
		f(w, r)
	}))
	server := httptest.NewServer(h)
	t.Cleanup(server.Close)
	return &site{t, h, server.URL, runs}
}

// answer is what is left of a response whose body was read.
type answer struct {
	StatusCode    int
	Header        http.Header
	ContentLength int64
}

// do sends a request whose header is given in pairs, and waits until its response is stored.
func (s *site) do(method, path string, header ...string) (answer, string) {
	s.t.Helper()
	resp, body := s.send(method, path, header...)
	httpmiddleware.Wait(s.h)
	return resp, body
}

func (s *site) send(method, path string, header ...string) (answer, string) {
	s.t.Helper()
	r, err := http.NewRequest(method, s.url+path, nil)
	if err != nil {
		s.t.Fatal(err)
	}
	for i := 0; i < len(header); i += 2 {
		r.Header.Add(header[i], header[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(r)
	if err != nil {
		s.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return answer{resp.StatusCode, resp.Header, resp.ContentLength}, string(b)
}

// What is stored, by the request, the status and the header of the response.
func TestStored(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	c := pgcachetest.New(t, pgcache.Options{})
	future := time.Now().Add(time.Hour).UTC().Format(http.TimeFormat)
	past := time.Now().Add(-time.Hour).UTC().Format(http.TimeFormat)
	type pairs []string
	for i, test := range []struct {
		status   int
		response pairs
		request  pairs
		o        httpmiddleware.Options
		stored   bool
	}{
		{200, pairs{"Cache-Control", "max-age=60"}, nil, httpmiddleware.Options{}, true},
		{200, pairs{"Cache-Control", "public, s-maxage=60, max-age=0"}, nil, httpmiddleware.Options{}, true},
		{200, pairs{"Cache-Control", "s-maxage=0, max-age=60"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Expires", future}, nil, httpmiddleware.Options{}, true},
		{200, pairs{"Expires", past}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Expires", "0"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Expires", future, "Cache-Control", "max-age=0"}, nil, httpmiddleware.Options{}, false},
		{200, nil, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Last-Modified", past}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "public"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60, no-store"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60, private"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", `max-age=60, private="x, y"`}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60", "Cache-Control", "NO-CACHE"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=nonsense"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60, max-age=70"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60", "Age", "60"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60", "Vary", "*"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"}, nil, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60", "Set-Cookie", "a=b"}, nil, httpmiddleware.Options{SetCookie: true}, true},
		{200, pairs{"Cache-Control", "max-age=60, public"}, pairs{"Authorization", "x"}, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60, public"}, pairs{"Authorization", "x"}, httpmiddleware.Options{Authorized: true}, true},
		{200, pairs{"Cache-Control", "max-age=60"}, pairs{"Authorization", "x"}, httpmiddleware.Options{Authorized: true}, false},
		{200, pairs{"Cache-Control", "max-age=60"}, pairs{"Cache-Control", "no-store"}, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60"}, pairs{"Range", "bytes=0-1"}, httpmiddleware.Options{}, false},
		{200, pairs{"Cache-Control", "max-age=60"}, nil, httpmiddleware.Options{MaxBytes: 3}, false},
		{200, pairs{"Cache-Control", "max-age=60"}, nil, httpmiddleware.Options{Key: func(*http.Request) string { return "" }}, false},
		{404, pairs{"Cache-Control", "max-age=60"}, nil, httpmiddleware.Options{}, true},
		{301, pairs{"Cache-Control", "max-age=60", "Location", "/x"}, nil, httpmiddleware.Options{}, true},
		{302, pairs{"Cache-Control", "max-age=60", "Location", "/x"}, nil, httpmiddleware.Options{}, false},
		{500, pairs{"Cache-Control", "max-age=60"}, nil, httpmiddleware.Options{}, false},
		{206, pairs{"Cache-Control", "max-age=60"}, nil, httpmiddleware.Options{}, false},
	} {
		test.o.Namespace = fmt.Sprint("n", i)
		s := newSite(t, c, test.o, &runs, func(w http.ResponseWriter, r *http.Request) {
			for i := 0; i < len(test.response); i += 2 {
				w.Header().Add(test.response[i], test.response[i+1])
			}
			w.WriteHeader(test.status)
			io.WriteString(w, "body")
		})
		runs.Store(0)
		first, body := s.do("GET", "/", test.request...)
		second, again := s.do("GET", "/", test.request...)
		if first.StatusCode != test.status || second.StatusCode != test.status || body != "body" || again != "body" {
			t.Errorf("%v: %d %q, then %d %q", test, first.StatusCode, body, second.StatusCode, again)
		}
		if stored := runs.Load() == 1; stored != test.stored {
			t.Errorf("%d %v to %v: stored: %v, want %v", test.status, test.response, test.request, stored, test.stored)
		}
		if hit := second.Header.Get("Cache-Status") == "pgcache; hit"; hit != test.stored {
			t.Errorf("%d %v to %v: Cache-Status is %q", test.status, test.response, test.request, second.Header.Get("Cache-Status"))
		}
	}
}

// A hit has the header of the response, an Age, an ETag that validates, and serves HEAD.
func TestHit(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Set("X-Custom", "1")
		w.Header().Set("Connection", "X-Hop")
		w.Header().Set("X-Hop", "1")
		if r.URL.Path == "/tagged" {
			w.Header().Set("ETag", `"1"`)
		}
		io.WriteString(w, "<html>body")
	}
	a := newSite(t, nodes[0].Cache, httpmiddleware.Options{Key: pathOf}, &runs, handler)
	b := newSite(t, nodes[1].Cache, httpmiddleware.Options{Key: pathOf}, &runs, handler)
	a.do("GET", "/page")
	resp, body := b.do("GET", "/page")
	if body != "<html>body" || runs.Load() != 1 {
		t.Errorf("%q after %d runs", body, runs.Load())
	}
	h := resp.Header
	if h.Get("X-Custom") != "1" || h.Get("X-Hop") != "" || h.Get("Age") == "" || h.Get("Content-Length") != "10" || h.Get("Date") == "" ||
		h.Get("Content-Type") != "text/html; charset=utf-8" || !strings.HasPrefix(h.Get("ETag"), `W/"`) {
		t.Errorf("header: %v", h)
	}
	if resp, body := b.do("HEAD", "/page"); resp.StatusCode != http.StatusOK || body != "" || resp.ContentLength != 10 {
		t.Errorf("HEAD: %d, %q, %d", resp.StatusCode, body, resp.ContentLength)
	}
	if resp, body := b.do("GET", "/page", "If-None-Match", `"x", `+h.Get("ETag")); resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("If-None-Match: %d, %q", resp.StatusCode, body)
	}
	if resp, _ := b.do("GET", "/page", "If-None-Match", `"x"`); resp.StatusCode != http.StatusOK {
		t.Errorf("If-None-Match of another: %d", resp.StatusCode)
	}
	// The miss of a client that has a copy: it gets a 304, and the whole response is stored for others.
	runs.Store(0)
	if resp, body := a.do("GET", "/tagged", "If-None-Match", `"1"`); resp.StatusCode != http.StatusNotModified || body != "" {
		t.Errorf("a conditional miss: %d, %q", resp.StatusCode, body)
	}
	if resp, body := b.do("GET", "/tagged"); resp.StatusCode != http.StatusOK || body != "<html>body" || runs.Load() != 1 {
		t.Errorf("after it: %d, %q, %d runs", resp.StatusCode, body, runs.Load())
	}
}

func pathOf(r *http.Request) string { return r.URL.Path }

// What the client says.
func TestRequestDirectives(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprint(w, runs.Load())
	})
	if resp, _ := s.do("GET", "/", "Cache-Control", "only-if-cached"); resp.StatusCode != http.StatusGatewayTimeout {
		t.Errorf("only-if-cached of nothing: %d", resp.StatusCode)
	}
	for _, step := range []struct{ directive, want string }{
		{"", "1"},
		{"", "1"},
		{"only-if-cached", "1"},
		{"max-age=30, min-fresh=10", "1"},
		{"no-cache", "2"},
		{"", "2"},
		{"max-age=0", "3"},
		{"", "3"},
		{"min-fresh=61", "4"},
		{"", "4"},
		{"no-store", "5"},
		{"", "4"},
	} {
		if _, body := s.do("GET", "/", "Cache-Control", step.directive); body != step.want {
			t.Errorf("%q: %s, want %s", step.directive, body, step.want)
		}
	}
}

func TestVary(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		w.Header().Add("Vary", "accept-language")
		if r.Header.Get("Accept-Language") == "de" {
			w.Header().Add("Vary", "X-Region")
		}
		fmt.Fprint(w, r.Header.Get("Accept-Language"), r.Header.Get("X-Region"))
	})
	for range 3 {
		for _, region := range []string{"", "a", "b"} {
			for _, language := range []string{"", "en", "de"} {
				want := language + region
				if _, body := s.do("GET", "/", "Accept-Language", language, "X-Region", region); body != want {
					t.Errorf("%q, want %q", body, want)
				}
			}
		}
	}
	// Nine variants, and those that ran before the second field was known: never more.
	if n := runs.Load(); n > 13 {
		t.Errorf("%d runs", n)
	}
}

// One run for all who come at once, on all nodes; and each his own response where it is nobody else's.
func TestStampede(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	var sites []*site
	for _, node := range nodes {
		sites = append(sites, newSite(t, node.Cache, httpmiddleware.Options{Key: pathOf}, &runs, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/private" {
				w.Header().Set("Cache-Control", "private, max-age=60")
			} else {
				w.Header().Set("Cache-Control", "max-age=60")
			}
			time.Sleep(200 * time.Millisecond)
			io.WriteString(w, r.Header.Get("X-User"))
		}))
	}
	all := func(path string) map[string]bool {
		var wg sync.WaitGroup
		var mu sync.Mutex
		got := map[string]bool{}
		for i := range 40 {
			wg.Go(func() {
				_, body := sites[i%2].send("GET", path, "X-User", fmt.Sprint(i))
				mu.Lock()
				defer mu.Unlock()
				got[body] = true
			})
		}
		wg.Wait()
		return got
	}
	if got := all("/public"); len(got) != 1 || runs.Load() != 1 {
		t.Errorf("%d responses of %d runs", len(got), runs.Load())
	}
	if got := all("/private"); len(got) != 40 {
		t.Errorf("%d private responses for 40 users", len(got))
	}
}

// A request that changes the resource invalidates it everywhere, also for a handler that is under way.
func TestInvalidation(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	var data atomic.Value
	data.Store("old")
	began, goOn := make(chan struct{}, 1), make(chan struct{})
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	handler := func(w http.ResponseWriter, r *http.Request) {
		switch r.Method {
		case http.MethodGet:
			w.Header().Set("Cache-Control", "max-age=60")
			body := data.Load().(string)
			if r.Header.Get("X-Slow") != "" {
				began <- struct{}{}
				<-goOn
			}
			io.WriteString(w, body)
		default:
			if r.Header.Get("X-Fail") != "" {
				w.WriteHeader(http.StatusConflict)
				return
			}
			data.Store("new")
		}
	}
	a := newSite(t, nodes[0].Cache, httpmiddleware.Options{Key: pathOf}, &runs, handler)
	b := newSite(t, nodes[1].Cache, httpmiddleware.Options{Key: pathOf}, &runs, handler)
	for _, warm := range []bool{false, true} { // without a mark of the resource, and with one
		data.Store("old")
		path := fmt.Sprint("/", warm)
		if warm {
			a.do("GET", path)
			a.do("PUT", path, "X-Fail", "1")
			if _, body := a.do("GET", path); body != "old" || runs.Load() == 0 {
				t.Errorf("after a PUT that failed: %q", body)
			}
		}
		done := make(chan string)
		go func() {
			_, body := a.send("GET", path, "X-Slow", "1", "Cache-Control", map[bool]string{true: "no-cache"}[warm])
			done <- body
		}()
		<-began
		b.do("PUT", path)
		if warm { // the new response is there before the old handler ends
			if _, body := b.do("GET", path); body != "new" {
				t.Errorf("the first after the PUT: %q", body)
			}
		}
		goOn <- struct{}{}
		if body := <-done; body != "old" {
			t.Errorf("the slow one got %q", body)
		}
		httpmiddleware.Wait(a.h)
		pgcachetest.Sync(t, nodes[0].Cache, nodes[1].Cache)
		for _, s := range []*site{a, b} {
			if _, body := s.do("GET", path); body != "new" {
				t.Errorf("warm: %v: after the PUT: %q", warm, body)
			}
		}
	}
}

// Streams reach the client while they are written, and nobody waits for them.
func TestStreams(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	next := make(chan struct{})
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/hijack" {
			conn, rw, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Errorf("Hijack: %v", err)
				return
			}
			defer conn.Close()
			rw.WriteString("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi")
			rw.Flush()
			return
		}
		w.Header().Set("Cache-Control", "max-age=60")
		fmt.Fprintln(w, "one")
		w.(http.Flusher).Flush()
		<-next
		fmt.Fprintln(w, "two")
	})
	for range 2 {
		resp, err := http.Get(s.url + "/stream") //nolint:bodyclose // it is closed below, when both lines were read
		if err != nil {
			t.Fatal(err)
		}
		lines := bufio.NewScanner(resp.Body)
		if !lines.Scan() || lines.Text() != "one" {
			t.Errorf("the first line: %q, %v", lines.Text(), lines.Err())
		}
		next <- struct{}{}
		if !lines.Scan() || lines.Text() != "two" {
			t.Errorf("the second line: %q, %v", lines.Text(), lines.Err())
		}
		resp.Body.Close()
	}
	if runs.Load() != 2 {
		t.Errorf("%d runs", runs.Load())
	}
	for range 2 {
		if _, body := s.do("GET", "/hijack"); body != "hi" {
			t.Errorf("hijacked: %q", body)
		}
	}
}

// What was not finished is not stored: a client that left, a panic, a body that is too short.
func TestUnfinished(t *testing.T) {
	t.Parallel()
	var runs atomic.Int32
	left := make(chan struct{})
	s := newSite(t, pgcachetest.New(t, pgcache.Options{}), httpmiddleware.Options{}, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		switch {
		case runs.Load() > 1:
		case r.URL.Path == "/left":
			io.WriteString(w, "half")
			close(left)
			<-r.Context().Done()
			return
		case r.URL.Path == "/panic":
			io.WriteString(w, "half")
			panic(http.ErrAbortHandler)
		case r.URL.Path == "/short":
			w.Header().Set("Content-Length", "5")
			io.WriteString(w, "half")
			return
		}
		io.WriteString(w, "whole")
	})
	for _, path := range []string{"/left", "/panic", "/short"} {
		runs.Store(0)
		ctx, cancel := context.WithCancel(t.Context())
		r, err := http.NewRequestWithContext(ctx, http.MethodGet, s.url+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		if path == "/left" {
			go func() { <-left; cancel() }()
		}
		if resp, err := http.DefaultTransport.RoundTrip(r); err == nil { //nolint:bodyclose // it is closed below
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		cancel()
		httpmiddleware.Wait(s.h)
		for range 2 {
			if _, body := s.do("GET", path); body != "whole" {
				t.Errorf("%s: %q", path, body)
			}
		}
		if runs.Load() != 2 {
			t.Errorf("%s: %d runs, want 2", path, runs.Load())
		}
	}
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	var runs, errs atomic.Int32
	node := pgcachetest.Nodes(t, 1, pgcache.Options{Local: nil})[0]
	o := httpmiddleware.Options{MaxWait: 300 * time.Millisecond, OnError: func(error) { errs.Add(1) }}
	s := newSite(t, node.Cache, o, &runs, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Cache-Control", "max-age=60")
		io.WriteString(w, "body")
	})
	for _, fault := range []func(){func() { node.Faults.Fail(nil) }, node.Faults.Stall} {
		errs.Store(0)
		fault()
		began := time.Now()
		for i := range 2 {
			if resp, body := s.send("GET", fmt.Sprint("/", i)); resp.StatusCode != http.StatusOK || body != "body" {
				t.Errorf("%d, %q", resp.StatusCode, body)
			}
		}
		s.send("POST", "/")
		if took := time.Since(began); took > 3*time.Second {
			t.Errorf("three requests took %v", took)
		}
		if errs.Load() < 3 {
			t.Errorf("%d errors were reported", errs.Load())
		}
		node.Faults.Mend()
	}
}
