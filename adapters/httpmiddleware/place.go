package httpmiddleware

import (
	"crypto/sha256"
	"encoding/hex"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"

	"github.com/pgcache/go/pgcache"
)

// urlOf is the default of Options.Key. RequestURI is what the client sent: http.StripPrefix changes the URL.
func urlOf(r *http.Request) string {
	uri := r.RequestURI
	if uri == "" {
		uri = r.URL.RequestURI()
	}
	if r.TLS != nil {
		return "https://" + r.Host + uri
	}
	return "http://" + r.Host + uri
}

// keyOf is the row of the mark of the resource that r asks for; "" leaves r to the handler.
func (m *middleware) keyOf(r *http.Request) string {
	key := m.o.Key(r)
	if key == "" {
		return ""
	}
	return rowOf(key)
}

// rowOf is where the mark of a resource is, in the namespace. It is never the key of a variant.
func rowOf(resource string) string { return "k~" + pgcache.HashKey(resource) }

// place is where the response to a request is stored.
type place struct {
	key     string // of the mark
	mark    *entry // nil: the resource has none
	variant string // the row of the response; "" where the resource has no mark
}

// row is the row that a load of the response stores: the mark where there is none, else the response.
func (p place) row() string {
	if p.mark == nil {
		return p.key
	}
	return p.variant
}

// newMark returns a mark of a resource whose responses depend on these request fields. Its number is random and not 0.
func newMark(vary []string) *entry {
	return &entry{Vary: vary, Mark: rand.Uint64() | 1}
}

// variant is the row of the response to r, for a resource with this mark: the fields that vary are hashed with their lengths, so that
// no two requests with different fields share a row.
func variant(key string, mark *entry, r *http.Request) string {
	hash := sha256.New()
	write := func(s string) {
		hash.Write([]byte(strconv.Itoa(len(s)) + ":" + s))
	}
	write(key)
	write(strconv.FormatUint(mark.Mark, 16))
	for _, name := range mark.Vary {
		write(name)
		value := strings.Join(r.Header.Values(name), ",")
		if name == "Host" {
			value = r.Host
		}
		write(strings.TrimSpace(value))
	}
	return "v~" + hex.EncodeToString(hash.Sum(nil))
}
