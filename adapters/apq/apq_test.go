package apq_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/99designs/gqlgen/graphql"
	"github.com/99designs/gqlgen/graphql/handler/extension"
	"github.com/99designs/gqlgen/graphql/handler/testserver"
	"github.com/99designs/gqlgen/graphql/handler/transport"

	"github.com/pgcache/go/adapters/apq"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

const (
	query = "{ me { name } }"
	hash  = "b8d9506e34c83b0e53c2aa463624fcea354713bc38f95276e6f0bd893ffb5b88"
)

// gqlgen's TestAPQIntegration, on two servers: what one was sent, the other knows.
func TestIntegration(t *testing.T) {
	t.Parallel()
	const body = `{"query":"{ name }","extensions":{"persistedQuery":{"version":1,"sha256Hash":"30166fc3298853f22709fce1e4a00e98f1b6a3160eaaaf9cb3b7db6a16073b07"}}}`
	const hashOnly = `{"extensions":{"persistedQuery":{"version":1,"sha256Hash":"30166fc3298853f22709fce1e4a00e98f1b6a3160eaaaf9cb3b7db6a16073b07"}}}`
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	post := func(node int, body string) (string, *extension.ApqStats) {
		h := testserver.New()
		h.Use(&extension.AutomaticPersistedQuery{Cache: newCache(t, nodes[node].Cache)})
		h.AddTransport(&transport.POST{})
		var stats *extension.ApqStats
		h.AroundResponses(func(ctx context.Context, next graphql.ResponseHandler) *graphql.Response {
			stats = extension.GetApqStats(ctx)
			return next(ctx)
		})
		r := httptest.NewRequest(http.MethodPost, "/graphql", strings.NewReader(body))
		r.Header.Set("Content-Type", "application/json")
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		return w.Body.String(), stats
	}
	if got, _ := post(1, hashOnly); !strings.Contains(got, "PersistedQueryNotFound") {
		t.Errorf("before it was sent: %s", got)
	}
	if got, stats := post(0, body); got != `{"data":{"name":"test"}}` || stats == nil || !stats.SentQuery {
		t.Errorf("with the query: %s, %+v", got, stats)
	}
	if got, stats := post(1, hashOnly); got != `{"data":{"name":"test"}}` || stats == nil || stats.SentQuery {
		t.Errorf("with the hash alone: %s, %+v", got, stats)
	}
}

// The cases of gqlgen's TestAPQ.
func TestAPQ(t *testing.T) {
	t.Parallel()
	persisted := func(hash string, version any) map[string]any {
		return map[string]any{"persistedQuery": map[string]any{"sha256Hash": hash, "version": version}}
	}
	for _, c := range []struct {
		name   string
		params graphql.RawParams
		known  bool
		query  string // what runs
		err    string
		stored bool
	}{
		{name: "with query and no hash", params: graphql.RawParams{Query: "original query"}, query: "original query"},
		{name: "with hash miss and no query", params: graphql.RawParams{Extensions: persisted(hash, 1)}, err: "PersistedQueryNotFound"},
		{name: "with hash miss and query", params: graphql.RawParams{Query: query, Extensions: persisted(hash, 1)}, query: query, stored: true},
		{name: "with hash hit and no query", params: graphql.RawParams{Extensions: persisted(hash, 1)}, known: true, query: query, stored: true},
		{name: "with malformed extension payload", params: graphql.RawParams{Extensions: map[string]any{"persistedQuery": "asdf"}}, err: "invalid APQ extension data"},
		{name: "with invalid extension version", params: graphql.RawParams{Extensions: persisted("", 2)}, err: "unsupported APQ version"},
		{name: "with hash mismatch", params: graphql.RawParams{Query: query, Extensions: persisted("badhash", 1)}, query: query, err: "provided APQ hash does not match query"},
		{name: "with a hash that is none", params: graphql.RawParams{Extensions: persisted("\x00\xff"+strings.Repeat("x", 5000), 1)}, err: "PersistedQueryNotFound"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			ctx := graphql.WithOperationContext(t.Context(), &graphql.OperationContext{})
			cache := newCache(t, pgcachetest.New(t, pgcache.Options{}))
			if c.known {
				cache.Add(ctx, hash, query)
			}
			message := ""
			if err := (extension.AutomaticPersistedQuery{Cache: cache}).MutateOperationParameters(ctx, &c.params); err != nil {
				message = err.Message
			}
			if message != c.err || c.params.Query != c.query {
				t.Errorf("query %q, error %q; want %q, %q", c.params.Query, message, c.query, c.err)
			}
			if got, ok := cache.Get(ctx, hash); ok != c.stored || (ok && got != query) {
				t.Errorf("stored: %q, %v; want %v", got, ok, c.stored)
			}
		})
	}
}

// The cases of gqlgen's tests of MapCache and lru: any key is a key, the last value counts, a miss is the zero value, and
// concurrent requests share one cache.
func TestCache(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	cache := newCache(t, pgcachetest.New(t, pgcache.Options{}))
	if got, ok := cache.Get(ctx, "query{b}"); ok || got != "" {
		t.Errorf("a key that was never added: %q, %v", got, ok)
	}
	for _, key := range []string{"query{a}", "query { a }", ""} {
		cache.Add(ctx, key, "first")
		cache.Add(ctx, key, "doc "+key)
	}
	for _, key := range []string{"query{a}", "query { a }", ""} {
		if got, ok := cache.Get(ctx, key); !ok || got != "doc "+key {
			t.Errorf("%q: %q, %v", key, got, ok)
		}
	}
	var wg sync.WaitGroup
	for i := range 32 {
		wg.Go(func() {
			key := strconv.Itoa(i % 8)
			for range 20 {
				cache.Add(ctx, key, "doc-"+key)
				if got, ok := cache.Get(ctx, key); !ok || got != "doc-"+key {
					t.Errorf("%q: %q, %v", key, got, ok)
				}
			}
		})
	}
	wg.Wait()
}

func TestDatabaseDown(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	cache := apq.New(node.Cache)
	var errs []error
	cache.OnError = func(err error) { errs = append(errs, err) }
	node.Faults.Fail(nil)
	defer node.Faults.Mend()
	cache.Add(context.Background(), hash, query)
	if _, ok := cache.Get(context.Background(), hash); ok {
		t.Error("Get found something")
	}
	if len(errs) != 2 {
		t.Errorf("%d errors were reported, want 2: %v", len(errs), errs)
	}
}

func newCache(t *testing.T, c *pgcache.Cache) *apq.Cache {
	cache := apq.New(c)
	cache.OnError = func(err error) { t.Errorf("the cache: %v", err) }
	return cache
}
