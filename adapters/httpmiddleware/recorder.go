package httpmiddleware

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// recorder hands a response on to its client and keeps a copy of it while it may be stored.
type recorder struct {
	m      *middleware
	w      http.ResponseWriter
	r      *http.Request
	before http.Header      // what others had set before the handler ran
	give   func(outcome)    // is told once what became of the response
	header func(status int) // is called once, before the header is sent
	stale  *entry           // what the client gets if the handler fails; nil: its failure

	decided bool   // nothing is kept any more
	wrote   bool   // the header
	discard bool   // what the handler writes does not reach the client, who gets a 304 or what is stale
	entry   *entry // what is kept of the response so far; nil: nothing
	failed  bool   // the client can't be written to
}

// decide gives out to give, unless that was done before, and ends the recording.
func (rec *recorder) decide(out outcome) {
	if !rec.decided {
		rec.decided = true
		rec.entry = nil
		rec.give(out)
	}
}

func (rec *recorder) Header() http.Header { return rec.w.Header() }

func (rec *recorder) WriteHeader(status int) {
	if rec.wrote {
		rec.w.WriteHeader(status) // which complains
		return
	}
	if status < 200 && status != http.StatusSwitchingProtocols {
		rec.w.WriteHeader(status)
		return
	}
	rec.wrote = true
	rec.sent(status)
	if rec.stale != nil && slices.Contains(failures, status) {
		rec.fail()
		return
	}
	if rec.decided {
		rec.w.WriteHeader(status)
		return
	}
	h := rec.w.Header()
	if life := rec.m.lifetime(rec.r, status, h); life > 0 && !rec.tooLong() {
		rec.entry = &entry{
			Status: status, Header: rec.own(h), Vary: varyOf(h), Lifetime: life + ageOf(h), Age: ageOf(h), Stored: time.Now().UnixMilli(),
			StaleIfError: rec.m.staleIfError(h),
		}
	} else {
		rec.decide(outcome{err: errPass})
	}
	h.Set("Cache-Status", "pgcache; fwd=miss")
	if status == http.StatusOK && notModified(rec.r, h) {
		rec.discard = true
		writeNotModified(rec.w)
		return
	}
	rec.w.WriteHeader(status)
}

// sent is called when it is known what the handler answers with.
func (rec *recorder) sent(status int) {
	if header := rec.header; header != nil {
		rec.header = nil
		header(status)
	}
}

// fail answers with what is stale, in place of what the handler has set and will write.
func (rec *recorder) fail() {
	rec.discard = true
	rec.decide(outcome{err: errFailed})
	h := rec.w.Header()
	clear(h)
	maps.Copy(h, rec.before.Clone())
	rec.stale.serve(rec.w, rec.r)
}

// tooLong says that the handler has announced a body that is too long.
func (rec *recorder) tooLong() bool {
	n, err := strconv.ParseInt(rec.Header().Get("Content-Length"), 10, 64)
	return err == nil && n > int64(rec.m.o.MaxBytes)
}

// untyped says that the server will find out the type of the body. A handler that sets the type to nil wants none.
func (rec *recorder) untyped() bool {
	h := rec.Header()
	_, typed := h["Content-Type"]
	return !typed && h.Get("Content-Encoding") == ""
}

// own returns what the handler has set of h, without what belongs to a connection.
func (rec *recorder) own(h http.Header) http.Header {
	own := h.Clone()
	maps.DeleteFunc(own, func(name string, values []string) bool {
		return slices.Equal(values, rec.before[name])
	})
	for _, name := range strings.Split(strings.Join(h.Values("Connection"), ","), ",") {
		own.Del(strings.TrimSpace(name))
	}
	for _, name := range []string{
		"Connection", "Keep-Alive", "Proxy-Authenticate", "Proxy-Authentication-Info", "Proxy-Connection", "Te", "Transfer-Encoding", "Upgrade", "Age",
		"Cache-Status", "Content-Length",
	} {
		own.Del(name)
	}
	if own.Get("Date") == "" {
		own.Set("Date", time.Now().UTC().Format(http.TimeFormat))
	}
	return own
}

func (rec *recorder) Write(b []byte) (int, error) {
	if !rec.wrote {
		if len(b) > 0 && rec.untyped() {
			rec.Header().Set("Content-Type", http.DetectContentType(b)) // as the server does
		}
		rec.WriteHeader(http.StatusOK)
	}
	if rec.entry != nil {
		if len(rec.entry.Body)+len(b) > rec.m.o.MaxBytes {
			rec.decide(outcome{err: errPass})
		} else {
			rec.entry.Body = append(rec.entry.Body, b...)
		}
	}
	if rec.discard {
		return len(b), nil
	}
	n, err := rec.w.Write(b)
	rec.failed = rec.failed || err != nil
	return n, err
}

// ReadFrom lets the server use sendfile where nothing is kept.
func (rec *recorder) ReadFrom(src io.Reader) (int64, error) {
	if rec.wrote && rec.decided && !rec.discard {
		return io.Copy(rec.w, src)
	}
	return io.Copy(struct{ io.Writer }{rec}, src)
}

// finish is called when the handler has returned.
func (rec *recorder) finish() {
	if !rec.wrote && !rec.decided {
		rec.WriteHeader(http.StatusOK)
	}
	rec.sent(http.StatusOK) // a handler that writes nothing sends a 200, or has hijacked the connection
	e := rec.entry
	if e == nil {
		return
	}
	// A client that went away may have made the handler stop halfway.
	declared := rec.Header().Get("Content-Length")
	if rec.failed || rec.r.Context().Err() != nil || (!rec.discard && declared != "" && declared != strconv.Itoa(len(e.Body))) {
		rec.decide(outcome{err: errAgain})
		return
	}
	for name := range rec.Header() {
		if strings.HasPrefix(name, http.TrailerPrefix) { // set after the header was sent, as is the custom
			rec.decide(outcome{err: errPass})
			return
		}
	}
	if len(e.Body) > 0 && rec.untyped() {
		e.Header.Set("Content-Type", http.DetectContentType(e.Body))
	}
	if e.Status == http.StatusOK && e.Header.Get("ETag") == "" {
		// Weak: a middleware around this one may compress the body.
		e.Header.Set("ETag", fmt.Sprintf(`W/"%x"`, sha256.Sum256(e.Body))[:35]+`"`)
	}
	rec.decide(outcome{entry: e})
}

// Unwrap is for http.ResponseController, whose deadlines are the server's business.
func (rec *recorder) Unwrap() http.ResponseWriter { return rec.w }

// pass ends the recording: what is flushed is a stream, and each client gets its own.
func (rec *recorder) pass() {
	rec.decide(outcome{err: errPass})
}

// The writer of a server can flush, or be hijacked, or both, and handlers ask for it: ours can do what the server's can, also where
// another middleware has wrapped that. None of it goes past the recorder.
type (
	flusher  struct{ *recorder }
	hijacker struct{ *recorder }
	both     struct{ *recorder }
)

func (rec *recorder) writer() http.ResponseWriter {
	canFlush := can[http.Flusher](rec.w) || can[interface{ FlushError() error }](rec.w)
	canHijack := can[http.Hijacker](rec.w)
	switch {
	case canFlush && canHijack:
		return both{rec}
	case canFlush:
		return flusher{rec}
	case canHijack:
		return hijacker{rec}
	}
	return rec
}

// can says whether w, or what it wraps, is an I: where http.ResponseController looks.
func can[I any](w http.ResponseWriter) bool {
	for {
		if _, ok := w.(I); ok {
			return true
		}
		wrapper, ok := w.(interface{ Unwrap() http.ResponseWriter })
		if !ok {
			return false
		}
		w = wrapper.Unwrap()
	}
}

func (f flusher) Flush()            { f.flush() } //nolint:errcheck // there is no place for it
func (f flusher) FlushError() error { return f.flush() }
func (b both) Flush()               { b.flush() } //nolint:errcheck // there is no place for it
func (b both) FlushError() error    { return b.flush() }

func (rec *recorder) flush() error {
	rec.pass()
	if !rec.wrote {
		rec.WriteHeader(http.StatusOK)
	}
	return http.NewResponseController(rec.w).Flush()
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.hijack() }
func (b both) Hijack() (net.Conn, *bufio.ReadWriter, error)     { return b.hijack() }

func (rec *recorder) hijack() (net.Conn, *bufio.ReadWriter, error) {
	rec.pass()
	return http.NewResponseController(rec.w).Hijack()
}
