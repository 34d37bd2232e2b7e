package httpmiddleware

import (
	"context"
	"errors"
	"net/http"

	"github.com/pgcache/go/adapters/internal/report"
	"github.com/pgcache/go/pgcache"
)

var (
	errPass   = errors.New("the response is not stored")
	errAgain  = errors.New("the handler was not finished")
	errFailed = errors.New("the handler failed")
)

// What a load brings where the response is not stored; it is kept nowhere.
var (
	passEntry  = &entry{Pass: true}
	againEntry = &entry{Again: true}
)

// miss runs the handler for r, if nobody else does, and says whether r was answered. If not, the response may have been stored.
//
// The handler runs on the goroutine of its request, as it would without a cache. The load of pgcache, which holds the lock against a
// stampede, runs beside it and waits for the response.
//
//	request  ---- handler, writes to the client and to the recorder ---->| done
//	load     ---- waits ------------------------------------------------>| stores it; the waiters go on
//
// A load fails where the handler does: pgcache then answers all who wait with what has expired, if there is something.
func (m *middleware) miss(ctx context.Context, w http.ResponseWriter, r *http.Request, p place, want request) (answered bool) {
	lead := make(chan *entry)
	response := make(chan outcome, 1)
	type loaded struct {
		pgcache.Result[*entry]
		err error
	}
	done := make(chan loaded, 1)
	// Not r's context: net/http ends it when the request is answered, and the response would not be stored.
	own, leave := context.WithCancel(context.WithoutCancel(r.Context()))
	m.stores.Go(func() {
		defer leave()
		result, err := m.view.Fetch(own, p.row(), func(ctx context.Context, l *pgcache.Load[*entry]) (*entry, error) {
			stale, _ := l.Stale()
			select {
			case lead <- stale:
			case <-own.Done(): // the request went away before its turn came
				l.DoNotStore()
				return againEntry, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
			select {
			case out := <-response:
				return m.load(ctx, l, p, r, out)
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}, pgcache.StaleFor(m.o.MaxStale))
		done <- loaded{result, err}
	})
	select {
	case stale := <-lead:
		if !want.acceptsStale() {
			stale = nil
		}
		m.run(w, r, p, response, stale)
		return true
	case l := <-done:
		switch {
		case l.err != nil:
			if !errors.Is(l.err, errFailed) {
				report.Error(m.o.OnError, l.err)
			}
		case l.Stale && want.acceptsStale():
			l.Value.serve(w, r)
			return true
		case !l.Stale && !l.Value.Pass:
			return false
		}
		m.next.ServeHTTP(w, r)
		return true
	case <-ctx.Done():
		leave()
		m.next.ServeHTTP(w, r)
		return true
	}
}

// load is what the load of p.row() returns of a response.
func (m *middleware) load(ctx context.Context, l *pgcache.Load[*entry], p place, r *http.Request, out outcome) (*entry, error) {
	e, err := m.store(ctx, p, r, out)
	switch {
	case errors.Is(err, errPass):
		e, err = passEntry, nil
	case errors.Is(err, errAgain):
		e, err = againEntry, nil
	case p.mark == nil:
		return e, err // the mark, which is stored behind the fence of this load
	}
	l.DoNotStore()
	return e, err
}

// refresh runs the handler although a response is stored, or may be, because the client wants a newer one.
func (m *middleware) refresh(w http.ResponseWriter, r *http.Request, p place) {
	response := make(chan outcome, 1)
	m.run(w, r, p, response, nil)
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

// run runs the handler, and gives its response to response, once, as soon as it is known whether it is stored. If the handler fails
// and there is something stale, the client gets that.
func (m *middleware) run(w http.ResponseWriter, r *http.Request, p place, response chan<- outcome, stale *entry) {
	rec := &recorder{m: m, w: w, r: r, before: w.Header().Clone(), stale: stale, give: func(out outcome) {
		if errors.Is(out.err, errPass) {
			m.passes.add(p.row())
		}
		response <- out
	}}
	defer rec.decide(outcome{err: errFailed}) // a panic
	mine := own(r)
	defer route(r, mine)
	m.next.ServeHTTP(rec.writer(), mine)
	rec.finish()
}

// store keeps a response. It returns what the load of p.row() is to bring: the mark, if there was none, else the response.
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
	ttl := out.entry.ttl(m.o.MaxTTL)
	if ttl <= 0 {
		return nil, errPass // its body took longer than it lives
	}
	err := m.view.Set(ctx, variant(p.key, mark, r), out.entry, pgcache.TTL(ttl), pgcache.StaleFor(out.entry.StaleIfError))
	switch {
	case errors.Is(err, pgcache.ErrValueTooLarge):
		m.passes.add(p.row())
		return nil, errPass
	case err != nil:
		return nil, err
	case p.mark == nil:
		return mark, nil
	}
	return out.entry, nil
}
