package gocache_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/eko/gocache/lib/v4/cache"
	"github.com/eko/gocache/lib/v4/marshaler"
	"github.com/eko/gocache/lib/v4/store"
	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/adapters/gocache"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

type user struct {
	Name  string
	Roles []string
}

func notFound(err error) bool { return errors.Is(err, store.NotFound{}) }

// The cases that the tests of gocache's own stores have in common.
func TestStore(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	s := gocache.New[string](pgcachetest.New(t, pgcache.Options{}))
	if _, err := s.Get(ctx, "my-key"); !notFound(err) {
		t.Errorf("Get of nothing: %v", err)
	}
	if _, _, err := s.GetWithTTL(ctx, "my-key"); !notFound(err) {
		t.Errorf("GetWithTTL of nothing: %v", err)
	}
	for _, options := range [][]store.Option{
		nil,
		{store.WithExpiration(6 * time.Second)},
		{store.WithExpiration(6 * time.Second), store.WithTags([]string{"tag1", "tag2"}), store.WithTagsTTL(time.Second), store.WithCost(4), store.WithSynchronousSet()},
	} {
		if err := s.Set(ctx, "my-key", "my-cache-value", options...); err != nil {
			t.Fatal(err)
		}
		v, ttl, err := s.GetWithTTL(ctx, "my-key")
		if most := max(store.ApplyOptions(options...).Expiration, 5*time.Minute*time.Duration(1-min(len(options), 1))); v != "my-cache-value" || err != nil || ttl <= most-time.Minute || ttl > most {
			t.Errorf("GetWithTTL: %v, %v, %v", v, ttl, err)
		}
		if v, err := s.Get(ctx, "my-key"); v != "my-cache-value" || err != nil {
			t.Errorf("Get: %v, %v", v, err)
		}
	}
	if err := s.Invalidate(ctx, store.WithInvalidateTags([]string{"tag3"})); err != nil {
		t.Error(err)
	}
	if err := s.Invalidate(ctx); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "my-key"); err != nil {
		t.Errorf("after Invalidate of another tag: %v", err)
	}
	if err := s.Invalidate(ctx, store.WithInvalidateTags([]string{"tag2"})); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "my-key"); !notFound(err) {
		t.Errorf("after Invalidate: %v", err)
	}
	s.Set(ctx, "my-key", "1")
	if err := s.Delete(ctx, "my-key"); err != nil {
		t.Error(err)
	}
	if err := s.Delete(ctx, "my-key"); err != nil {
		t.Error(err)
	}
	if _, err := s.Get(ctx, "my-key"); !notFound(err) {
		t.Errorf("after Delete: %v", err)
	}
	if s.GetType() != "pgcache" {
		t.Error(s.GetType())
	}
}

// Values of each kind come back as they were, from another process too, and never as another type.
func TestTypes(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	a, b := nodes[0].Cache, nodes[1].Cache
	ann := user{"Ann", []string{"admin"}}
	if err := cache.New[user](gocache.New[user](a)).Set(ctx, "ann", ann); err != nil {
		t.Fatal(err)
	}
	got, err := cache.New[user](gocache.New[user](b)).Get(ctx, "ann")
	if diff := cmp.Diff(ann, got); diff != "" || err != nil {
		t.Error(diff, err)
	}
	if v, err := cache.New[string](gocache.New[string](b)).Get(ctx, "ann"); !notFound(err) {
		t.Errorf("of another type: %v, %v", v, err)
	}
	if err := gocache.New[string](a).Set(ctx, "k", 1); err == nil || !strings.Contains(err.Error(), "is a int") {
		t.Error(err)
	}
	if err := gocache.New[string](a).Set(ctx, 1, "v"); err == nil {
		t.Error("a key that is no string")
	}
	// The marshaler.
	m := marshaler.New(cache.New[any](gocache.New[[]byte](a, pgcache.Namespace("m"))))
	if err := m.Set(ctx, user{Name: "a key"}, ann, store.WithTags([]string{"people"})); err != nil {
		t.Fatal(err)
	}
	back := new(user)
	if _, err := marshaler.New(cache.New[any](gocache.New[[]byte](b, pgcache.Namespace("m")))).Get(ctx, user{Name: "a key"}, back); err != nil || back.Name != "Ann" {
		t.Errorf("%+v, %v", back, err)
	}
	// Any key and any tag.
	bytes := cache.New[[]byte](gocache.New[[]byte](a))
	for _, odd := range []string{"", "\xff\x00", strings.Repeat("x", 5000), `{"a"}`, "a:b", "%_'"} {
		if err := bytes.Set(ctx, odd, []byte("v"), store.WithTags([]string{odd, "all"})); err != nil {
			t.Errorf("%.20q: %v", odd, err)
		}
		if v, err := bytes.Get(ctx, odd); string(v) != "v" || err != nil {
			t.Errorf("%.20q: %q, %v", odd, v, err)
		}
		if err := bytes.Invalidate(ctx, store.WithInvalidateTags([]string{odd})); err != nil {
			t.Errorf("%.20q: %v", odd, err)
		}
		if _, err := bytes.Get(ctx, odd); !notFound(err) {
			t.Errorf("%.20q: %v", odd, err)
		}
	}
}

// Expiries: those of the options, those that are wrong, and none at all, which a ChainCache hands on.
func TestExpiries(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgcachetest.New(t, pgcache.Options{})
	far := gocache.New[string](c, pgcache.TTL(pgcache.NoExpiry), pgcache.Namespace("far"))
	near := gocache.New[string](c, pgcache.TTL(time.Minute), pgcache.Namespace("near"))
	if err := far.Set(ctx, "k", "v"); err != nil {
		t.Fatal(err)
	}
	if _, ttl, err := far.GetWithTTL(ctx, "k"); ttl != 0 || err != nil {
		t.Errorf("for ever: %v, %v", ttl, err)
	}
	chain := cache.NewChain[string](cache.New[string](near), cache.New[string](far))
	if v, err := chain.Get(ctx, "k"); v != "v" || err != nil {
		t.Errorf("chain: %v, %v", v, err)
	}
	for end := time.Now().Add(time.Minute); ; time.Sleep(5 * time.Millisecond) { // it sets the other layers behind its callers' back
		if _, ttl, err := near.GetWithTTL(ctx, "k"); err == nil {
			if ttl > time.Minute || ttl < 30*time.Second {
				t.Errorf("near: %v", ttl)
			}
			break
		} else if time.Now().After(end) {
			t.Fatal(err)
		}
	}
	if err := near.Set(ctx, "k", "v", store.WithExpiration(-time.Second)); !errors.Is(err, pgcache.ErrInvalidTTL) {
		t.Errorf("a negative expiration: %v", err)
	}
	many := make([]string, 33)
	for i := range many {
		many[i] = fmt.Sprint(i)
	}
	if err := near.Set(ctx, "k", "v", store.WithTags(many)); !errors.Is(err, pgcache.ErrInvalidTag) {
		t.Errorf("33 tags: %v", err)
	}
}

// Clear leaves what is not the store's, and the other nodes know of it.
func TestClear(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	a := gocache.New[string](nodes[0].Cache)
	b := gocache.New[string](nodes[1].Cache)
	other := pgcache.For[string](nodes[0].Cache, pgcache.Namespace("other"))
	if err := errors.Join(a.Set(ctx, "k", "v"), other.Set(ctx, "k", "v")); err != nil {
		t.Fatal(err)
	}
	if v, err := b.Get(ctx, "k"); v != "v" || err != nil {
		t.Fatal(v, err)
	}
	if err := a.Clear(ctx); err != nil {
		t.Fatal(err)
	}
	pgcachetest.Sync(t, nodes[0].Cache, nodes[1].Cache)
	if _, err := b.Get(ctx, "k"); !notFound(err) {
		t.Error(err)
	}
	if _, found, err := other.Get(ctx, "k"); !found || err != nil {
		t.Error(found, err)
	}
}

// An error of the database is one, and not a miss; a context that has ended is one, too.
func TestErrors(t *testing.T) {
	t.Parallel()
	node := pgcachetest.Nodes(t, 1, pgcache.Options{})[0]
	s := gocache.New[string](node.Cache)
	ended, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := s.Get(ended, "k"); !errors.Is(err, context.Canceled) || notFound(err) {
		t.Errorf("a context that has ended: %v", err)
	}
	node.Faults.Fail(nil)
	ctx := t.Context()
	for what, err := range map[string]error{
		"Set": s.Set(ctx, "k", "v"), "Delete": s.Delete(ctx, "k"), "Clear": s.Clear(ctx), "Invalidate": s.Invalidate(ctx, store.WithInvalidateTags([]string{"t"})),
	} {
		if err == nil {
			t.Error(what, "returned no error")
		}
	}
	_, err := s.Get(ctx, "k")
	_, _, again := s.GetWithTTL(ctx, "k")
	if err == nil || again == nil || notFound(err) || notFound(again) {
		t.Error(err, again)
	}
}

// Nil is a value of an interface, as in gocache's stores in memory, and of nothing else.
func TestNil(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgcachetest.New(t, pgcache.Options{})
	values := gocache.New[any](c)
	if err := values.Set(ctx, "k", nil); err != nil {
		t.Error(err)
	}
	if v, err := values.Get(ctx, "k"); v != nil || err != nil {
		t.Errorf("%v, %v", v, err)
	}
	if err := gocache.New[user](c).Set(ctx, "k", nil); err == nil || !strings.Contains(err.Error(), "for gocache_test.user") {
		t.Errorf("nil for a struct: %v", err)
	}
	if err := gocache.New[error](c).Set(ctx, "k", 1); err == nil || !strings.Contains(err.Error(), "for error") {
		t.Errorf("another type for an interface: %v", err)
	}
}

func TestConcurrently(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	c := pgcachetest.New(t, pgcache.Options{})
	users := cache.New[user](gocache.New[user](c))
	loads := cache.NewLoadable(func(context.Context, any) (user, []store.Option, error) {
		return user{Name: "loaded"}, []store.Option{store.WithTags([]string{"t"})}, nil
	}, cache.CacheInterface[user](users))
	defer loads.Close()
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			for j := range 20 {
				key := fmt.Sprint(j % 5)
				v, err := loads.Get(ctx, key)
				if err == nil && v.Name != "loaded" {
					err = errors.New(v.Name)
				}
				if i == 0 {
					err = errors.Join(err, loads.Invalidate(ctx, store.WithInvalidateTags([]string{"t"})))
				}
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}
