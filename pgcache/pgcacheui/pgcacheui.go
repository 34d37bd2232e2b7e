// Package pgcacheui is a page that shows what a Cache does: hits by layer, loads, invalidations, flushes, what is in memory and
// whether the listener is live.
//
//	mux.Handle("/debug/cache/", pgcacheui.Handler(cache, pgcacheui.Options{}))
//
// It shows figures of the process that serves it, never keys or values. It changes nothing, unless Options.AllowClear is set. It has
// no login of its own: mount it behind what protects the rest of your administration.
//
// The page needs no other host and runs under a strict Content-Security-Policy. While nobody looks at it, it costs nothing: a
// visible page asks for the counters once an interval, and the sizes of the tables are read from the database when a person
// asks for them, by one statement that reads no entry.
package pgcacheui

import (
	"bytes"
	"cmp"
	"context"
	"embed"
	"encoding/json"
	"errors"
	"html/template"
	"maps"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/internal/inside"
	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/pgcache"
)

// Options say how the page works. The zero value is useful.
type Options struct {
	// Title is the heading of the page. Defaults to "pgcache".
	Title string

	// Interval is how often a page that is visible asks for the counters. Defaults to a second, at least 200 ms.
	Interval time.Duration

	// AllowClear puts a button on the page that removes all entries of the cache, see Cache.Clear. Requests that another site
	// makes a browser send are refused.
	AllowClear bool
}

// Node is one Cache on a page, and what it is called there.
type Node struct {
	Name  string
	Cache *pgcache.Cache
}

// Handler returns the page of one Cache. Mount it at a path that ends with a slash, with or without http.StripPrefix. It is safe
// for concurrent use. After the Cache's Close the page says that the cache is closed.
func Handler(cache *pgcache.Cache, o Options) http.Handler {
	return Nodes([]Node{{Cache: cache}}, o)
}

// Nodes returns a page of several Caches of this process, in this order, mounted like Handler's.
func Nodes(nodes []Node, o Options) http.Handler {
	if o.Title == "" {
		o.Title = "pgcache"
	}
	if o.Interval <= 0 {
		o.Interval = time.Second
	}
	o.Interval = max(o.Interval, 200*time.Millisecond)
	u := &ui{o: o, nodes: make([]*node, len(nodes))}
	for i, n := range nodes {
		u.nodes[i] = &node{Node: n, inside: inside.Of(n.Cache)}
	}
	u.clear = http.NewCrossOriginProtection().Handler(http.HandlerFunc(u.serveClear))
	return u
}

//go:embed assets
var assets embed.FS

// assetTypes are the files that the page loads, with their types. They are not left to the operating system's list of types, which may
// differ: with nosniff a browser refuses a script of a wrong type.
var assetTypes = map[string]string{
	"app.js": "text/javascript; charset=utf-8", "style.css": "text/css; charset=utf-8", "icon.svg": "image/svg+xml",
}

var page = template.Must(template.ParseFS(assets, "assets/page.html"))

// policy lets the page load what this handler serves, and nothing else.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

type ui struct {
	o     Options
	nodes []*node
	clear http.Handler
}

type node struct {
	Node
	inside inside.Cache

	mu      sync.Mutex // held while the sizes are read, by one request at a time
	figures store.Figures
	err     error     // of the last reading
	asked   time.Time // when they were last read
}

// ServeHTTP looks at the last part of the path alone, so that it can be mounted anywhere.
func (u *ui) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h := w.Header()
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
	h.Set("Cache-Control", "no-store")
	name := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	method := http.MethodGet
	if name == "clear" {
		method = http.MethodPost
	}
	if r.Method != method && (r.Method != http.MethodHead || method != http.MethodGet) {
		h.Set("Allow", method)
		http.Error(w, "only "+method+" is allowed here", http.StatusMethodNotAllowed)
		return
	}
	switch name {
	case "":
		u.servePage(w)
	case "data.json":
		writeJSON(w, http.StatusOK, u.data())
	case "tables.json":
		u.serveTables(w, r)
	case "clear":
		u.clear.ServeHTTP(w, r)
	default:
		kind, ok := assetTypes[name]
		content, err := assets.ReadFile("assets/" + name)
		if !ok || err != nil {
			http.NotFound(w, r)
			return
		}
		h.Set("Content-Type", kind)
		http.ServeContent(w, r, name, time.Time{}, bytes.NewReader(content))
	}
}

func (u *ui) servePage(w http.ResponseWriter) {
	var b bytes.Buffer
	if err := page.Execute(&b, map[string]any{"Title": u.o.Title, "Interval": u.o.Interval.Milliseconds(), "AllowClear": u.o.AllowClear}); err != nil {
		http.Error(w, "the page can't be made", http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	w.Write(b.Bytes()) //nolint:errcheck // who asked has gone
}

// nodeJSON is one node as the page gets it.
type nodeJSON struct {
	Name   string        `json:"name"`
	State  string        `json:"state"`            // live, idle, waiting, failed, off, closed or null
	Reason string        `json:"reason,omitempty"` // why it is not live
	Memory *memoryJSON   `json:"memory"`           // null: its localcache does not say
	Stats  pgcache.Stats `json:"stats"`
	Views  int           `json:"views"` // how many there are; stats.Views has the busiest of them
}

type memoryJSON struct {
	Entries int     `json:"entries"`
	Full    float64 `json:"full"` // how much of the bounds they take
}

func (u *ui) data() any {
	out := struct {
		Nodes []nodeJSON `json:"nodes"`
	}{make([]nodeJSON, len(u.nodes))}
	for i, n := range u.nodes {
		out.Nodes[i] = n.data()
	}
	return out
}

func (n *node) data() nodeJSON {
	j := nodeJSON{Name: n.Name, State: "null", Stats: n.Cache.Stats()}
	j.Views = len(j.Stats.Views)
	j.Stats.Views = busiest(j.Stats.Views)
	if n.inside.State == nil {
		return j
	}
	s := n.inside.State()
	switch {
	case s.Closed:
		j.State = "closed"
	case s.Live:
		j.State = "live"
	case s.Idle:
		j.State = "idle"
	case !s.Listens:
		j.State = "off"
	case s.Permanent:
		j.State = "failed"
	default:
		j.State = "waiting"
	}
	if s.Err != nil {
		j.Reason = redact.Database(s.Err).Error()
	}
	if s.Memory.Known {
		j.Memory = &memoryJSON{s.Memory.Entries, s.Memory.Full}
	}
	return j
}

// mostViews is how many views are sent to a page: a cache may have a thousand, and a page asks every second.
const mostViews = 50

// busiest returns the views that were asked for the most keys, at most mostViews.
func busiest(views map[string]pgcache.ViewStats) map[string]pgcache.ViewStats {
	if len(views) <= mostViews {
		return views
	}
	gets := func(name string) uint64 { v := views[name]; return v.LocalHits + v.RemoteHits + v.Misses }
	names := slices.SortedFunc(maps.Keys(views), func(a, b string) int {
		return cmp.Or(cmp.Compare(gets(b), gets(a)), cmp.Compare(a, b))
	})
	some := make(map[string]pgcache.ViewStats, mostViews)
	for _, name := range names[:mostViews] {
		some[name] = views[name]
	}
	return some
}

// tablesJSON are sizes of the tables, in bytes, and what the server counts.
type tablesJSON struct {
	Table      string   `json:"table"`
	Server     string   `json:"server_version"`
	Rows       int64    `json:"rows"`
	DeadRows   int64    `json:"dead_rows"`
	TableBytes int64    `json:"table_bytes"`
	LogBytes   int64    `json:"log_bytes"`
	Pending    int64    `json:"pending"`
	Hot        *float64 `json:"hot_ratio"` // null: there was no update
	Queue      float64  `json:"queue"`
}

// tablesFor is how long the sizes are served before they are read again, so that many pages, or many presses of the button, do not load the
// database.
const tablesFor = time.Second

func (u *ui) serveTables(w http.ResponseWriter, r *http.Request) {
	n := u.node(w, r)
	if n == nil {
		return
	}
	if n.inside.Figures == nil {
		writeError(w, http.StatusNotFound, errors.New("this cache stores nothing"))
		return
	}
	n.mu.Lock()
	if time.Since(n.asked) > tablesFor {
		n.figures, n.err = n.inside.Figures(context.WithoutCancel(r.Context())) // its Timeout bounds it
		n.asked = time.Now()
	}
	f, err := n.figures, n.err
	n.mu.Unlock()
	if err != nil {
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	out := tablesJSON{
		Table: n.inside.Names.Table(), Server: f.ServerVersion, Rows: f.LiveRows, DeadRows: f.DeadRows, TableBytes: f.EntriesTotal, LogBytes: f.LogBytes,
		Pending: f.Pending, Queue: f.QueueUsage,
	}
	if f.Updated > 0 {
		hot := float64(f.HotUpdated) / float64(f.Updated)
		out.Hot = &hot
	}
	writeJSON(w, http.StatusOK, out)
}

// clearHeader must be on a request to clear. No form can send it, and a script of another site only after a CORS preflight, which this
// handler refuses.
const clearHeader = "X-Pgcache-Clear"

func (u *ui) serveClear(w http.ResponseWriter, r *http.Request) {
	switch {
	case !u.o.AllowClear:
		writeError(w, http.StatusForbidden, errors.New("this page may only be read"))
		return
	case r.Header.Get(clearHeader) == "":
		writeError(w, http.StatusForbidden, errors.New("the header "+clearHeader+" is missing"))
		return
	}
	n := u.node(w, r)
	if n == nil {
		return
	}
	if err := n.Cache.Clear(r.Context()); err != nil {
		writeError(w, http.StatusServiceUnavailable, err)
		return
	}
	writeJSON(w, http.StatusOK, map[string]bool{"cleared": true})
}

// node is the one that a request is about, or nil: then it has been answered.
func (u *ui) node(w http.ResponseWriter, r *http.Request) *node {
	i, err := strconv.Atoi(r.URL.Query().Get("node"))
	if err != nil || i < 0 || i >= len(u.nodes) {
		writeError(w, http.StatusBadRequest, errors.New("no such node"))
		return nil
	}
	return u.nodes[i]
}

func writeJSON(w http.ResponseWriter, code int, v any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	json.NewEncoder(w).Encode(v) //nolint:errcheck,errchkjson // who asked has gone
}

func writeError(w http.ResponseWriter, code int, err error) {
	writeJSON(w, code, map[string]string{"error": redact.Database(err).Error()})
}
