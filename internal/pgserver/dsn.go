package pgserver

import (
	"net/url"
	"strings"
)

// WithParam returns dsn, a URL or key=value pairs, with one parameter set: search_path, sslmode, a driver's own.
func WithParam(dsn, key, value string) string {
	if !IsURL(dsn) {
		// The last one of a key counts.
		quoted := strings.NewReplacer(`\`, `\\`, `'`, `\'`).Replace(value)
		return strings.TrimSpace(dsn + " " + key + "='" + quoted + "'")
	}
	// By hand: net/url would refuse the list of hosts that drivers accept.
	base, query, _ := strings.Cut(dsn, "?")
	params, _ := url.ParseQuery(query) // what cannot be parsed there, no driver can use
	params.Set(key, value)
	return base + "?" + strings.ReplaceAll(params.Encode(), "+", "%20") // libpq knows no other space
}

// IsURL reports which of the two forms a DSN has.
func IsURL(dsn string) bool {
	return strings.HasPrefix(dsn, "postgres://") || strings.HasPrefix(dsn, "postgresql://")
}
