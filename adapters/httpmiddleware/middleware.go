// Package httpmiddleware is a shared HTTP cache in front of a handler, by RFC 9111, whose responses are in a pgcache.Cache.
//
//	mux := http.NewServeMux()
//	mux.HandleFunc("GET /rates", func(w http.ResponseWriter, r *http.Request) {
//		w.Header().Set("Cache-Control", "public, max-age=60")
//		...
//	})
//	cached := httpmiddleware.New(cache, httpmiddleware.Options{})(mux)
//
// The handler decides: what it sends without an explicit lifetime (s-maxage, max-age or Expires) is never stored.
//
//   - Stored are complete responses to GET with a status that RFC 9111 allows to store, up to Options.MaxBytes. Never stored: no-store,
//     no-cache and private, Vary: *, responses with Set-Cookie or to requests with Authorization (see Options), partial content, trailers.
//   - GET and HEAD are answered from what is stored, with Age, and with 304 where If-None-Match or If-Modified-Since match. A stored
//     200 without an ETag gets a weak one. Requests with Range, Upgrade, a body, or Accept: text/event-stream reach the handler untouched.
//   - Of the requests for one resource that come while none is stored, one runs the handler, in the fleet as a rule. Its response goes to
//     its client while it is written. The others wait for it, for Options.MaxWait at most; once it turns out that it won't be stored (by its
//     header, its size, a Flush or Hijack) they run the handler, too, and for ten seconds nobody waits for this resource.
//   - The request's no-store, no-cache, max-age, min-fresh and only-if-cached are obeyed: a client can make the handler run. max-stale
//     is not.
//   - What has expired is served only where the handler allows it by stale-if-error (RFC 5861) and fails: it panics or answers with 500, 502,
//     503 or 504. It then runs once in ten seconds on each node at the most. must-revalidate, proxy-revalidate and Options.MaxStale forbid it.
//   - A POST, PUT, PATCH or DELETE invalidates the resource of the same URL before its response is sent, on every node, unless it is
//     refused with a 4xx; the response of a handler that began before is not stored for those who come later.
//   - Who changes the data that a page shows removes its responses by Options.RowKey, in the same transaction if it likes, or has a
//     watched table do that; all pages go with DeletePrefix of the namespace and a colon.
//   - Where the handler has run, the Pattern and the path values that a ServeMux within has set are those of the request outside too; a hit
//     runs no handler and has none.
//   - When the database can't be reached the handler runs. Where it neither answers nor fails, a request waits for MaxWait.
//
// Put it inside of middlewares whose headers differ from request to request (request IDs, CORS): headers that were set before it are
// not stored. Put it outside of those that compress, if they set Vary.
//
// Clients choose URLs, and what varies: bound the table with Options.MaxRows and MaxBytes of the pgcache.Cache. Ages are by the nodes' clocks,
// expiry by the database's.
package httpmiddleware

import (
	"cmp"
	"context"
	"net/http"
	"sync"
	"time"

	"github.com/pgcache/go/adapters/internal/report"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

// Options says how the middleware works. The zero value is useful.
type Options struct {
	// Namespace begins the keys of its entries. Defaults to http.
	Namespace string
	// Key returns what stands for the resource that r asks for; "" leaves r to the handler. Defaults to scheme, host and URL as the client sent
	// them. Whatever else the response depends on must be in its Vary.
	Key func(r *http.Request) string
	// MaxBytes is the largest body that is stored, and what a request that may be stored takes in memory. Defaults to 1 MiB.
	MaxBytes int
	// MaxTTL bounds how long a response is stored. Defaults to a day.
	MaxTTL time.Duration
	// MaxStale bounds the stale-if-error of responses. Defaults to a day; negative: nothing stale is served.
	MaxStale time.Duration
	// MaxWait bounds how long a request waits for the cache, and for another request's handler. Defaults to 5 s.
	MaxWait time.Duration
	// Authorized lets requests with Authorization use the cache: responses to them are stored if they are public or have s-maxage or
	// must-revalidate, and then serve everybody.
	Authorized bool
	// SetCookie lets responses with Set-Cookie be stored. Everybody then gets the cookie.
	SetCookie bool
	// Wrap, if it is not nil, wraps the codec of the entries: compress.New, for example.
	Wrap func(codec.Codec) codec.Codec
	// OnError gets the errors of the cache. nil logs them with slog.Default.
	OnError func(error)
}

// RowKey returns the key that stands for a resource in the pgcache.Cache; resource is what Key returns. To delete it, by Delete, WithTx
// or WatchTable, removes all responses of the resource, on every node, and what handlers bring that began before is not stored for
// those who come later. With the default Key a resource is "https://host/path?query", as clients send it.
//
// A resource of more than 200 bytes, or of bytes that are no valid key, is hashed: WatchTable can't name it.
func (o Options) RowKey(resource string) string {
	return cmp.Or(o.Namespace, defaultNamespace) + ":" + rowOf(resource)
}

const defaultNamespace = "http"

// New returns a middleware whose responses are in c. It is safe for concurrent use.
func New(c *pgcache.Cache, o Options) func(http.Handler) http.Handler {
	o.Namespace = cmp.Or(o.Namespace, defaultNamespace)
	if o.Key == nil {
		o.Key = urlOf
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 20
	}
	if o.MaxTTL <= 0 {
		o.MaxTTL = 24 * time.Hour
	}
	if o.MaxStale == 0 {
		o.MaxStale = 24 * time.Hour
	}
	o.MaxStale = max(0, o.MaxStale)
	if o.MaxWait <= 0 {
		o.MaxWait = 5 * time.Second
	}
	var cd codec.Codec = entryCodec{}
	if o.Wrap != nil {
		cd = o.Wrap(cd)
	}
	view := pgcache.For[*entry](c, pgcache.Namespace(o.Namespace), pgcache.WithCodec(cd), pgcache.TTL(o.MaxTTL), pgcache.Shared())
	return func(next http.Handler) http.Handler {
		return &middleware{next: next, view: view, o: o}
	}
}

type middleware struct {
	next   http.Handler
	view   *pgcache.Typed[*entry]
	o      Options
	passes passes
	stores sync.WaitGroup // loads that may go on after their request
}

func (m *middleware) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodGet && r.Method != http.MethodHead {
		m.write(w, r)
		return
	}
	key := m.keyOf(r)
	if key == "" || !m.eligible(r) {
		m.next.ServeHTTP(w, r)
		return
	}
	deadline, cancel := context.WithTimeout(r.Context(), m.o.MaxWait)
	defer cancel()
	want := requestDirectives(r.Header)
	for range 3 {
		p, found, err := m.find(deadline, key, r)
		if err != nil {
			if r.Context().Err() == nil {
				report.Error(m.o.OnError, err)
			}
			break
		}
		if found != nil && want.accepts(found) {
			found.serve(w, r)
			return
		}
		if want.onlyIfCached {
			w.WriteHeader(http.StatusGatewayTimeout)
			return
		}
		if r.Method == http.MethodHead || m.passes.has(p.row()) {
			break
		}
		if found != nil || want.noCache {
			m.refresh(w, r, p)
			return
		}
		if m.miss(deadline, w, r, p, want) {
			return
		}
	}
	if want.onlyIfCached {
		w.WriteHeader(http.StatusGatewayTimeout)
		return
	}
	m.next.ServeHTTP(w, r)
}

// find returns where the response to r is or would be, and the response if it is stored.
func (m *middleware) find(ctx context.Context, key string, r *http.Request) (p place, found *entry, err error) {
	p = place{key: key}
	mark, ok, err := m.view.Get(ctx, key)
	if err != nil || !ok {
		return p, nil, err
	}
	p.mark = mark
	p.variant = variant(key, mark, r)
	found, ok, err = m.view.Get(ctx, p.variant)
	if !ok {
		found = nil
	}
	return p, found, err
}

// write runs the handler of a request that may change the resource, and invalidates it before the response is sent. After a 4xx
// nothing has changed; after a 5xx or a panic nobody knows.
func (m *middleware) write(w http.ResponseWriter, r *http.Request) {
	key := m.keyOf(r)
	switch r.Method {
	case http.MethodPost, http.MethodPut, http.MethodPatch, http.MethodDelete:
	default:
		key = ""
	}
	if key == "" {
		m.next.ServeHTTP(w, r)
		return
	}
	rec := &recorder{m: m, w: w, r: r, decided: true, header: func(status int) {
		if status >= 400 && status < 500 {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), m.o.MaxWait)
		defer cancel()
		report.Error(m.o.OnError, m.view.Delete(ctx, key))
	}}
	defer rec.sent(http.StatusInternalServerError) // a panic
	m.next.ServeHTTP(rec.writer(), r)
	rec.finish()
}
