package httpmiddleware

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

// eligible says whether r may be answered from the cache.
func (m *middleware) eligible(r *http.Request) bool {
	for _, name := range []string{"Range", "Upgrade", "If-Match", "If-Unmodified-Since", "If-Range"} {
		if r.Header.Get(name) != "" {
			return false
		}
	}
	switch {
	case r.ContentLength != 0,
		r.Header.Get("Authorization") != "" && !m.o.Authorized,
		strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/event-stream"):
		return false
	}
	_, noStore := directives(r.Header)["no-store"]
	return !noStore
}

// directives parses Cache-Control: names in lower case, values without quotes.
func directives(h http.Header) map[string]string {
	fields := h.Values("Cache-Control")
	if len(fields) == 0 {
		return nil
	}
	d := map[string]string{}
	rest := strings.Join(fields, ",")
	for rest != "" {
		var part string
		if part, rest = next(rest); part == "" {
			continue
		}
		name, value, _ := strings.Cut(part, "=")
		name = strings.ToLower(strings.TrimSpace(name))
		if _, twice := d[name]; twice {
			value = "" // of a number that is given twice none counts
		}
		d[name] = strings.Trim(strings.TrimSpace(value), `"`)
	}
	return d
}

// next splits s at its first comma outside of quotes.
func next(s string) (part, rest string) {
	quoted := false
	for i := range len(s) {
		switch {
		case s[i] == '"':
			quoted = !quoted
		case s[i] == ',' && !quoted:
			return strings.TrimSpace(s[:i]), s[i+1:]
		}
	}
	return strings.TrimSpace(s), ""
}

// seconds is the value of a directive; a number that is none is 0, the cautious reading.
func seconds(d map[string]string, name string) (time.Duration, bool) {
	value, ok := d[name]
	if !ok {
		return 0, false
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil {
		return 0, true
	}
	return time.Duration(n) * time.Second, true
}

// request is what a client wants.
type request struct {
	noCache, onlyIfCached  bool
	maxAge, minFresh       time.Duration
	hasMaxAge, hasMinFresh bool
}

func requestDirectives(h http.Header) (q request) {
	d := directives(h)
	_, q.noCache = d["no-cache"]
	if d == nil && strings.EqualFold(h.Get("Pragma"), "no-cache") {
		q.noCache = true
	}
	_, q.onlyIfCached = d["only-if-cached"]
	q.maxAge, q.hasMaxAge = seconds(d, "max-age")
	q.minFresh, q.hasMinFresh = seconds(d, "min-fresh")
	return q
}

func (q request) accepts(e *entry) bool {
	age := e.age()
	return !q.noCache && (!q.hasMaxAge || age < q.maxAge) && (!q.hasMinFresh || e.Lifetime-age >= q.minFresh)
}

// acceptsStale says whether the client takes what has expired.
func (q request) acceptsStale() bool { return !q.noCache && !q.hasMaxAge && !q.hasMinFresh }

// failures are the statuses that stale-if-error is about.
var failures = []int{500, 502, 503, 504}

// staleIfError is for how long the response may be served beyond its lifetime where the handler fails.
func (m *middleware) staleIfError(h http.Header) time.Duration {
	d := directives(h)
	for _, name := range []string{"must-revalidate", "proxy-revalidate"} {
		if _, ok := d[name]; ok {
			return 0
		}
	}
	stale, _ := seconds(d, "stale-if-error")
	return min(stale, m.o.MaxStale)
}

// cacheable are the statuses that RFC 9110 calls so, but for 206.
var cacheable = []int{200, 203, 204, 300, 301, 308, 404, 405, 410, 414, 501}

// lifetime returns how long the response may be stored; 0: not at all.
func (m *middleware) lifetime(r *http.Request, status int, h http.Header) time.Duration {
	d := directives(h)
	has := func(name string) bool { _, ok := d[name]; return ok }
	switch {
	case !slices.Contains(cacheable, status),
		has("no-store"), has("private"), has("no-cache"),
		len(h["Set-Cookie"]) > 0 && !m.o.SetCookie,
		len(h["Trailer"]) > 0, len(h["Content-Range"]) > 0,
		r.Header.Get("Authorization") != "" && !has("public") && !has("s-maxage") && !has("must-revalidate"):
		return 0
	}
	for name := range h {
		if strings.HasPrefix(name, http.TrailerPrefix) {
			return 0
		}
	}
	if vary := varyOf(h); slices.Contains(vary, "*") || len(vary) > 16 {
		return 0
	}
	life, ok := seconds(d, "s-maxage")
	if !ok {
		life, ok = seconds(d, "max-age")
	}
	if !ok && h.Get("Expires") != "" {
		if expires, err := http.ParseTime(h.Get("Expires")); err == nil {
			date, err := http.ParseTime(h.Get("Date"))
			if err != nil {
				date = time.Now()
			}
			life = expires.Sub(date)
		}
	}
	return max(0, life-ageOf(h))
}

func ageOf(h http.Header) time.Duration {
	n, err := strconv.ParseUint(h.Get("Age"), 10, 31)
	if err != nil {
		return 0
	}
	return time.Duration(n) * time.Second
}

// varyOf returns the fields of Vary, sorted, each once.
func varyOf(h http.Header) (names []string) {
	for part := range strings.SplitSeq(strings.Join(h.Values("Vary"), ","), ",") {
		if part = strings.TrimSpace(part); part != "" {
			names = append(names, http.CanonicalHeaderKey(part))
		}
	}
	return merge(nil, names)
}

func merge(a, b []string) []string {
	all := slices.Concat(a, b)
	slices.Sort(all)
	return slices.Compact(all)
}

// own returns r for the handler: without the conditions that a 304 would answer, as the response is stored for those that have none,
// and with a header of its own. What a handler takes out of that, a cookie when it has seen who it is, still belongs to the
// variant:
//
//	Cookie: ann        handler: Vary: Cookie, deletes Cookie        stored for requests without a cookie
func own(r *http.Request) *http.Request {
	u := new(http.Request)
	*u = *r
	u.Header = r.Header.Clone()
	u.Header.Del("If-None-Match")
	u.Header.Del("If-Modified-Since")
	return u
}

// route tells r by which route its copy was handled: a ServeMux within sets Pattern and the path values of the request that it gets, and
// loggers, metrics and traces around the middleware look there when the handler has returned.
func route(r, handled *http.Request) {
	if handled.Pattern == r.Pattern {
		return
	}
	r.Pattern = handled.Pattern
	for _, part := range strings.Split(r.Pattern, "{")[1:] {
		name, _, _ := strings.Cut(part, "}")
		name = strings.TrimSuffix(name, "...")
		if value := handled.PathValue(name); value != "" {
			r.SetPathValue(name, value)
		}
	}
}

// notModified says whether r has a copy of the response already.
func notModified(r *http.Request, h http.Header) bool {
	if match := r.Header.Get("If-None-Match"); match != "" {
		etag := strings.TrimPrefix(h.Get("ETag"), "W/")
		for match = strings.Join(r.Header.Values("If-None-Match"), ","); match != ""; {
			var part string
			part, match = next(match)
			if part == "*" || (etag != "" && strings.TrimPrefix(part, "W/") == etag) {
				return true
			}
		}
		return false
	}
	since, err := http.ParseTime(r.Header.Get("If-Modified-Since"))
	if err != nil {
		return false
	}
	modified, err := http.ParseTime(h.Get("Last-Modified"))
	return err == nil && !modified.After(since)
}
