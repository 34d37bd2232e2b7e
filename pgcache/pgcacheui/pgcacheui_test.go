package pgcacheui_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"mime"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"

	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcache/pgcacheui"
	"github.com/pgcache/go/pgcachetest"
)

func TestMain(m *testing.M) { os.Exit(pgcachetest.Main(m).Run()) }

// answer is what the handler says to a request.
func answer(h http.Handler, method, path string, header ...string) *httptest.ResponseRecorder {
	r := httptest.NewRequest(method, "http://example.com"+path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

func decode[T any](t *testing.T, w *httptest.ResponseRecorder) (v T) {
	t.Helper()
	if err := json.Unmarshal(w.Body.Bytes(), &v); err != nil {
		t.Fatalf("%d %s: %v", w.Code, w.Body, err)
	}
	return v
}

type data struct {
	Nodes []struct {
		Name, State, Reason string
		Memory              *struct{ Entries, Full float64 }
		Stats               pgcache.Stats
	}
}

func TestPageWhereverItIsMounted(t *testing.T) {
	t.Parallel()
	// As the registry of some Windows has it: the types must not be the operating system's.
	if err := mime.AddExtensionType(".js", "text/plain"); err != nil {
		t.Fatal(err)
	}
	h := pgcacheui.Handler(pgcache.Null(), pgcacheui.Options{Title: "<b>"})
	mux := http.NewServeMux()
	mux.Handle("/plain/", h)
	mux.Handle("/stripped/", http.StripPrefix("/stripped", h))
	for _, at := range []string{"/plain/", "/stripped/"} {
		for name, kind := range map[string]string{
			"": "text/html; charset=utf-8", "app.js": "text/javascript; charset=utf-8", "style.css": "text/css; charset=utf-8",
			"icon.svg": "image/svg+xml", "data.json": "application/json",
		} {
			w := answer(mux, "GET", at+name)
			csp := w.Header().Get("Content-Security-Policy")
			if w.Code != 200 || w.Header().Get("Content-Type") != kind || !strings.Contains(csp, "default-src 'none'") || strings.Contains(csp, "unsafe") ||
				w.Header().Get("Cache-Control") != "no-store" || w.Header().Get("X-Content-Type-Options") != "nosniff" {
				t.Errorf("%s%s: %d %v", at, name, w.Code, w.Header())
			}
		}
		for _, name := range []string{"page.html", "x", ".."} {
			if w := answer(h, "GET", at+name); w.Code != 404 {
				t.Errorf("%s%s: %d", at, name, w.Code)
			}
		}
	}
	page := answer(mux, "GET", "/plain/").Body.String()
	if strings.Contains(page, "<b>") || !strings.Contains(page, "&lt;b&gt;") || strings.Contains(page, "http://") || strings.Contains(page, "style=") {
		t.Error(page)
	}
	if w := answer(mux, "POST", "/plain/"); w.Code != 405 || w.Header().Get("Allow") != "GET" {
		t.Errorf("%d %v", w.Code, w.Header())
	}
	if w := answer(mux, "HEAD", "/plain/app.js"); w.Code != 200 || w.Body.Len() != 0 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

func TestCounters(t *testing.T) {
	t.Parallel()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	h := pgcacheui.Nodes([]pgcacheui.Node{{"A", nodes[0].Cache}, {"B", nodes[1].Cache}}, pgcacheui.Options{})
	ctx := t.Context()
	var v string
	if err := nodes[0].Set(ctx, "secret-key", "secret-value"); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		if _, err := nodes[1].Get(ctx, "secret-key", &v); err != nil {
			t.Fatal(err)
		}
	}
	w := answer(h, "GET", "/data.json")
	d := decode[data](t, w)
	if len(d.Nodes) != 2 || d.Nodes[0].Name != "A" || d.Nodes[0].Stats.Sets != 1 || d.Nodes[1].State != "live" ||
		d.Nodes[1].Stats.RemoteHits != 1 || d.Nodes[1].Stats.LocalHits != 2 || d.Nodes[1].Memory == nil || d.Nodes[1].Memory.Entries != 1 || d.Nodes[1].Memory.Full <= 0 || d.Nodes[1].Memory.Full > 0.01 {
		t.Errorf("%s", w.Body)
	}
	if strings.Contains(w.Body.String(), "secret") {
		t.Errorf("keys or values are shown: %s", w.Body)
	}

	nodes[1].Listener.Stop()
	if d := decode[data](t, answer(h, "GET", "/data.json")); d.Nodes[1].State != "waiting" || d.Nodes[1].Reason == "" || d.Nodes[0].State != "live" {
		t.Errorf("%+v", d)
	}
	nodes[0].Cache.Close()
	if d := decode[data](t, answer(h, "GET", "/data.json")); d.Nodes[0].State != "closed" {
		t.Errorf("%+v", d)
	}
	if d := decode[data](t, answer(pgcacheui.Handler(pgcache.Null(), pgcacheui.Options{}), "GET", "/data.json")); d.Nodes[0].State != "null" {
		t.Errorf("%+v", d)
	}
}

func TestTables(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	h := pgcacheui.Handler(node.Cache, pgcacheui.Options{})
	type tables struct {
		Table      string `json:"table"`
		TableBytes int64  `json:"table_bytes"`
		Error      string `json:"error"`
	}
	for path, code := range map[string]int{"/tables.json": 400, "/tables.json?node=1": 400, "/tables.json?node=-1": 400, "/tables.json?node=0": 200} {
		w := answer(h, "GET", path)
		if got := decode[tables](t, w); w.Code != code || (code == 200) != (got.TableBytes > 0 && strings.Contains(got.Table, "cache_entries")) {
			t.Errorf("%s: %d %s", path, w.Code, w.Body)
		}
	}
	// An answer serves for a second, however often somebody asks.
	node.Faults.Fail(errors.New("down"))
	if w := answer(h, "GET", "/tables.json?node=0"); w.Code != 200 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	fresh := pgcacheui.Handler(node.Cache, pgcacheui.Options{})
	if w := answer(fresh, "GET", "/tables.json?node=0"); w.Code != 503 || decode[tables](t, w).Error == "" {
		t.Errorf("%d %s", w.Code, w.Body)
	}
	node.Faults.Mend()
	if w := answer(pgcacheui.Handler(pgcache.Null(), pgcacheui.Options{}), "GET", "/tables.json?node=0"); w.Code != 404 {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestRatioOfNoUpdates: where nothing was updated there is no ratio, which is not a bad one.
func TestRatioOfNoUpdates(t *testing.T) {
	t.Parallel()
	w := answer(pgcacheui.Handler(pgcachetest.New(t, pgcache.Options{}), pgcacheui.Options{}), "GET", "/tables.json?node=0")
	if w.Code != 200 || !strings.Contains(w.Body.String(), `"hot_ratio":null`) {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// TestClear: it is allowed where Options say so, and to this page's own script alone.
func TestClear(t *testing.T) {
	t.Parallel()
	cache := pgcachetest.New(t, pgcache.Options{})
	there := func() bool {
		t.Helper()
		var v string
		found, err := cache.Get(context.Background(), "k", &v)
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if err := cache.Set(t.Context(), "k", "v"); err != nil {
		t.Fatal(err)
	}
	closed := pgcacheui.Handler(cache, pgcacheui.Options{})
	open := pgcacheui.Handler(cache, pgcacheui.Options{AllowClear: true})
	for _, test := range []struct {
		what   string
		h      http.Handler
		method string
		header []string
		code   int
	}{
		{"not allowed", closed, "POST", []string{"X-Pgcache-Clear", "1", "Sec-Fetch-Site", "same-origin"}, 403},
		{"a link", open, "GET", []string{"X-Pgcache-Clear", "1"}, 405},
		{"a form", open, "POST", []string{"Sec-Fetch-Site", "same-origin"}, 403},
		{"another site's form", open, "POST", []string{"Sec-Fetch-Site", "cross-site"}, 403},
		{"another site's script", open, "POST", []string{"X-Pgcache-Clear", "1", "Sec-Fetch-Site", "cross-site"}, 403},
		{"another site's script in an old browser", open, "POST", []string{"X-Pgcache-Clear", "1", "Origin", "http://evil.example"}, 403},
	} {
		if w := answer(test.h, test.method, "/clear?node=0", test.header...); w.Code != test.code || !there() {
			t.Errorf("%s: %d %s", test.what, w.Code, w.Body)
		}
	}
	if w := answer(open, "POST", "/clear?node=0", "X-Pgcache-Clear", "1", "Sec-Fetch-Site", "same-origin"); w.Code != 200 || there() {
		t.Errorf("%d %s", w.Code, w.Body)
	}
}

// Names of views are a program's, or come from outside: they are data and nothing else, and a page is sent the busiest alone.
func TestViews(t *testing.T) {
	t.Parallel()
	c := pgcachetest.New(t, pgcache.Options{})
	ask := func(name string, times int) {
		t.Helper()
		for range times {
			if _, _, err := pgcache.For[int](c, pgcache.Namespace(name)).Get(t.Context(), "k"); err != nil {
				t.Fatal(err)
			}
		}
	}
	const evil = "</script><img src=x onerror=alert(1)>"
	ask(evil, 3)
	ask(strings.Repeat("long", 100), 2)
	for i := range 60 {
		ask(fmt.Sprint("view ", i), 1)
	}
	h := pgcacheui.Nodes([]pgcacheui.Node{{evil, c}}, pgcacheui.Options{Title: evil})
	w := answer(h, "GET", "/data.json")
	var d struct {
		Nodes []struct {
			Name  string
			Views int
			Stats pgcache.Stats
		}
	}
	if err := json.Unmarshal(w.Body.Bytes(), &d); err != nil {
		t.Fatal(err)
	}
	n := d.Nodes[0]
	if _, busy := n.Stats.Views[evil]; !busy || len(n.Stats.Views) != 50 || n.Views < 62 || n.Name != evil {
		t.Errorf("%d of %d views, %q", len(n.Stats.Views), n.Views, n.Name)
	}
	if page := answer(h, "GET", "/").Body.String(); strings.Contains(w.Body.String()+page, "<img") || w.Header().Get("Content-Type") != "application/json" {
		t.Error("a name is markup")
	}
}
