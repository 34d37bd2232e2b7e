package pgserver

import (
	"net/url"
	"strconv"
	"strings"
)

// A URL is taken apart by hand: net/url would refuse the list of hosts that drivers accept.

// WithParam returns dsn, a URL or key=value pairs, with one parameter set: search_path, sslmode, a driver's own.
func WithParam(dsn, key, value string) string {
	if !IsURL(dsn) {
		// The last one of a key counts.
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)
		return strings.TrimSpace(dsn + " " + key + "='" + quoted + "'")
	}
	base, query, _ := strings.Cut(dsn, "?")
	params, _ := url.ParseQuery(query) // what cannot be parsed there, no driver can use
	params.Set(key, value)
	return base + "?" + encode(params)
}

// WithAddress returns dsn, a URL or key=value pairs, with one other host and port.
func WithAddress(dsn, host string, port int) string {
	if !IsURL(dsn) {
		return WithParam(WithParam(dsn, "host", host), "port", strconv.Itoa(port))
	}
	scheme, rest, _ := strings.Cut(dsn, "://")
	end := strings.IndexAny(rest, "/?")
	if end < 0 {
		end = len(rest)
	}
	hosts := strings.LastIndexByte(rest[:end], '@') + 1
	path, query, _ := strings.Cut(rest[end:], "?")
	params, _ := url.ParseQuery(query)
	for _, key := range []string{"host", "hostaddr", "port"} {
		params.Del(key)
	}
	dsn = scheme + "://" + rest[:hosts] + host + ":" + strconv.Itoa(port) + path
	if len(params) > 0 {
		dsn += "?" + encode(params)
	}
	return dsn
}

// encode is how the parameters of a URL are written: libpq knows no other space.
func encode(params url.Values) string { return strings.ReplaceAll(params.Encode(), "+", "%20") }

// IsURL reports which of the two forms a DSN has.
func IsURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}
