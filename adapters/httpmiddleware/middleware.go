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
//     is not: nothing stale is served.
//   - A successful POST, PUT, PATCH or DELETE invalidates the resource of the same URL before its response is sent, on every node; the
//     response of a handler that began before is not stored for those who come later.
//   - When the database can't be reached the handler runs. Where it neither answers nor fails, a request waits for MaxWait.
//
// Put it inside of middlewares whose headers differ from request to request (request IDs, CORS): headers that were set before it are
// not stored. Put it outside of those that compress, if they set Vary.
//
// Clients choose URLs, and what varies: bound the table with Options.MaxRows and MaxBytes of the pgcache.Cache. Ages are by the nodes' clocks,
// expiry by the database's.
package httpmiddleware

import (
	"context"
	"errors"
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

// New returns a middleware whose responses are in c. It is safe for concurrent use.
func New(c *pgcache.Cache, o Options) func(http.Handler) http.Handler {
	if o.Namespace == "" {
		o.Namespace = "http"
	}
	if o.Key == nil {
		o.Key = urlOf
	}
	if o.MaxBytes <= 0 {
		o.MaxBytes = 1 << 20
	}
	if o.MaxTTL <= 0 {
		o.MaxTTL = 24 * time.Hour
	}
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
		if m.miss(deadline, w, r, p) {
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

var (
	errPass  = errors.New("the response is not stored")
	errAgain = errors.New("the handler was not finished")
)

// miss runs the handler for r, if nobody else does, and says whether r was answered. If not, the response may have been stored.
//
// The handler runs on the goroutine of its request, as it would without a cache. The load of pgcache, which holds the lock against a
// stampede, runs beside it and waits for the response.
//
//	request  ---- handler, writes to the client and to the recorder ---->| done
//	load     ---- waits ------------------------------------------------>| stores it; the waiters go on
func (m *middleware) miss(ctx context.Context, w http.ResponseWriter, r *http.Request, p place) (answered bool) {
	lead := make(chan struct{})
	response := make(chan outcome, 1)
	done := make(chan error, 1)
	// Not r's context: net/http ends it when the request is answered, and the response would not be stored.
	own, leave := context.WithCancel(context.WithoutCancel(r.Context()))
	m.stores.Go(func() {
		defer leave()
		_, err := m.view.GetOrSet(own, p.row(), func(ctx context.Context) (*entry, error) {
			select {
			case lead <- struct{}{}:
			case <-own.Done(): // the request went away before its turn came
				return nil, errAgain
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			select {
			case out := <-response:
				return m.store(ctx, p, r, out)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		})
		done <- err
	})
	select {
	case <-lead:
		m.run(w, r, p, response)
		return true
	case err := <-done:
		if errors.Is(err, errPass) {
			m.next.ServeHTTP(w, r)
			return true
		}
		if err != nil && !errors.Is(err, errAgain) {
			report.Error(m.o.OnError, err)
			m.next.ServeHTTP(w, r)
			return true
		}
		return false
	case <-ctx.Done():
		leave()
		m.next.ServeHTTP(w, r)
		return true
	}
}

// refresh runs the handler although a response is stored, or may be, because the client wants a newer one.
func (m *middleware) refresh(w http.ResponseWriter, r *http.Request, p place) {
	response := make(chan outcome, 1)
	m.run(w, r, p, response)
	if p.mark == nil {
		return // without the fence of a load, what it read may be gone already
	}
	out := <-response
	m.stores.Go(func() {
		if _, err := m.store(context.WithoutCancel(r.Context()), p, r, out); err != nil && !errors.Is(err, errPass) && !errors.Is(err, errAgain) {
			report.Error(m.o.OnError, err)
		}
	})
}

// outcome is the response of a handler, or why it is not stored.
type outcome struct {
	entry *entry
	err   error
}

// run runs the handler, and gives its response to response, once, as soon as it is known whether it is stored.
func (m *middleware) run(w http.ResponseWriter, r *http.Request, p place, response chan<- outcome) {
	rec := &recorder{m: m, w: w, r: r, before: w.Header().Clone(), give: func(out outcome) {
		if errors.Is(out.err, errPass) {
			m.passes.add(p.row())
		}
		response <- out
	}}
	defer rec.decide(outcome{err: errAgain}) // a panic
	m.next.ServeHTTP(rec.writer(), unconditional(r))
	rec.finish()
}

// store keeps a response. What the load of p.row() stores is what it returns.
//
// A resource has two rows: a mark under its key, and each variant under a key that is made of the mark's random number and the fields that
// vary. To invalidate the resource is to delete the mark: what a handler brings that began before is stored where nobody looks.
//
//	GET:  handler reads the old data ............... stores it: the load of the mark is fenced, a variant belongs to the old mark
//	POST:                              changes, deletes the mark
func (m *middleware) store(ctx context.Context, p place, r *http.Request, out outcome) (*entry, error) {
	if out.err != nil {
		return nil, out.err
	}
	mark := p.mark
	if mark == nil {
		mark = newMark(out.entry.Vary)
	} else if union := merge(mark.Vary, out.entry.Vary); len(union) > len(mark.Vary) {
		// A new mark is safe, a response under it would not be: the old mark may be deleted by now.
		if err := m.view.Set(ctx, p.key, newMark(union)); err != nil {
			return nil, err
		}
		return nil, errAgain
	}
	if err := m.view.Set(ctx, variant(p.key, mark, r), out.entry, pgcache.TTL(out.entry.ttl(m.o.MaxTTL))); err != nil {
		return nil, err
	}
	if p.mark == nil {
		return mark, nil
	}
	return out.entry, nil
}

// write runs the handler of a request that may change the resource, and invalidates it before a successful response is sent.
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
		if status >= 400 {
			return
		}
		ctx, cancel := context.WithTimeout(context.WithoutCancel(r.Context()), m.o.MaxWait)
		defer cancel()
		report.Error(m.o.OnError, m.view.Delete(ctx, key))
	}}
	m.next.ServeHTTP(rec.writer(), r)
	rec.finish()
}
