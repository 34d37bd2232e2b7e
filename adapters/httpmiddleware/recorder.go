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
	header func(status int) // is called before the header is sent

	decided bool // nothing is kept any more
	wrote   bool // the header
	discard bool // the client gets a 304, and no body
	entry   *entry
	failed  bool
}

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
	if rec.header != nil {
		rec.header(status)
	}
	if rec.decided {
		rec.w.WriteHeader(status)
		return
	}
	h := rec.w.Header()
	if life := rec.m.lifetime(rec.r, status, h); life > 0 {
		rec.entry = &entry{
			Status: status, Header: rec.own(h), Vary: varyOf(h), Lifetime: life + ageOf(h), Age: ageOf(h), Stored: time.Now().UnixMilli(),
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

// own returns what the handler has set of h, without what belongs to a connection.
func (rec *recorder) own(h http.Header) http.Header {
	own := h.Clone()
	maps.DeleteFunc(own, func(name string, values []string) bool {
		return slices.Equal(values, rec.before[name])
	})
	for _, name := range strings.Split(h.Get("Connection"), ",") {
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
		if h := rec.Header(); h.Get("Content-Type") == "" && h.Get("Content-Encoding") == "" && len(b) > 0 {
			h.Set("Content-Type", http.DetectContentType(b)) // as the server does
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
	if !rec.wrote && rec.header != nil {
		rec.wrote = true // a handler that writes nothing sends a 200, or has hijacked the connection
		rec.header(http.StatusOK)
	}
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
	if len(e.Body) > 0 && e.Header.Get("Content-Type") == "" && e.Header.Get("Content-Encoding") == "" {
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

// The writer of a server can flush, or be hijacked, or both, and handlers ask for it: ours can do what the server's can.
type (
	flusher  struct{ *recorder }
	hijacker struct{ *recorder }
	both     struct{ *recorder }
)

func (rec *recorder) writer() http.ResponseWriter {
	_, canFlush := rec.w.(http.Flusher)
	_, canHijack := rec.w.(http.Hijacker)
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

func (f flusher) Flush() { f.flush() }
func (b both) Flush()    { b.flush() }
func (rec *recorder) flush() {
	rec.pass()
	if !rec.wrote {
		rec.WriteHeader(http.StatusOK)
	}
	rec.w.(http.Flusher).Flush()
}

func (h hijacker) Hijack() (net.Conn, *bufio.ReadWriter, error) { return h.hijack() }
func (b both) Hijack() (net.Conn, *bufio.ReadWriter, error)     { return b.hijack() }

func (rec *recorder) hijack() (net.Conn, *bufio.ReadWriter, error) {
	rec.pass()
	return rec.w.(http.Hijacker).Hijack()
}
