package pgcache

import (
	"context"
	"errors"
	"fmt"
	"reflect"
	"unique"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/localcache"
)

// Typed is a view of a Cache for values of one type. It is safe for concurrent use and costs nothing to make; keep it.
//
// Hits in memory hand out the decoded value as it is, if T has no pointers, maps, slices or interfaces in it (strings
// and times are fine): no caller can change another's. Other types are decoded anew at every hit, unless the view is
// Shared.
type Typed[T any] struct {
	view
	direct bool // hits may share a decoded value: T is plain, or the view is Shared
}

// For returns the view of c for values of type T. The options apply to all its calls; one that is wrong makes every call
// return an error.
func For[T any](c *Cache, opts ...ViewOption) *Typed[T] {
	var with viewOptions
	for _, o := range opts {
		if o != nil {
			o.forView(&with)
		}
	}
	t := &Typed[T]{}
	t.view, t.err = c.base.apply(with.calls)
	t.namespace, t.err = with.namespace, errors.Join(with.err, t.err)
	t.stats = &counters{}
	if with.err == nil { // Stats, and the metrics made of it, name no namespace that is none
		t.stats = c.views.of(with.namespace)
	}
	typ := reflect.TypeFor[T]()
	// A view of an interface type would take a value that a view of another type has decoded for its own.
	t.direct = plain(typ) || with.shared && typ.Kind() != reflect.Interface
	if t.err != nil {
		t.codecID = unique.Make("") // no entry has it: hits in memory are refused too
	}
	if t.direct {
		t.keep = func(cd codec.Codec, k localcache.Key, data []byte) (_ any, err error) {
			defer func() {
				if r := recover(); r != nil {
					err = fmt.Errorf("codec panicked: %v", r)
				}
			}()
			var v T
			err = unmarshalRow(cd, k, data, &v)
			return v, err
		}
	}
	return t
}

// Get returns the value under key and whether there is one. A value that does not decode as a T counts as none.
func (t *Typed[T]) Get(ctx context.Context, key string) (v T, found bool, err error) {
	if v, h := t.fromMemory(t.key(key)); h.e != nil {
		return v, true, nil
	}
	return t.fromDatabase(ctx, key)
}

// fromDatabase is Get where memory has nothing. It is a function of its own because v escapes to the heap in it: a hit allocates nothing.
func (t *Typed[T]) fromDatabase(ctx context.Context, key string) (v T, found bool, err error) {
	if err := t.enter("get", key); err != nil {
		return v, false, err
	}
	k := t.key(key)
	if t.negativeInMemory(k) { // the Observer is not shown what memory answers
		return v, false, nil
	}
	defer t.observe(&ctx, "get", 1).end(&found, &err)
	row, err := t.read(ctx, k)
	if err != nil {
		return v, false, fail("get", k.Row(), err)
	}
	if !t.take(k, row, &v) {
		var none T
		return none, false, nil
	}
	return v, true, nil
}

// fromMemory returns the value of k that is kept in memory, if it may be handed out. It is the fast path: it allocates nothing for a view
// that is direct.
func (t *Typed[T]) fromMemory(k localcache.Key) (v T, _ hit) {
	now := coherence.Now()
	e := t.c.local.Hit(k, now)
	if e == nil || e.Codec != t.codecID && (e.Raw == nil || t.err != nil) {
		return v, hit{}
	}
	ok := false
	if t.direct && e.Codec == t.codecID {
		v, ok = e.Value.(T)
	}
	if !ok {
		if v, ok = t.unpack(k, e); !ok {
			return v, hit{}
		}
	}
	t.stats.hit(now)
	return v, hit{e, now}
}

// unpack decodes the bytes of e, and where hits may share the value keeps it in their place.
func (t *Typed[T]) unpack(k localcache.Key, e *localcache.Entry) (v T, ok bool) {
	if e.Raw == nil || t.unmarshal(k, e.Codec.Value(), *e.Raw, &v) != nil {
		var none T
		return none, false
	}
	if t.direct {
		t.c.local.Replace(k, e, &localcache.Entry{Value: v, Codec: t.codecID, Size: e.Size})
	}
	return v, true
}

// Set stores value under key, like [Cache.Set]: when it has returned, this Cache returns nothing older.
func (t *Typed[T]) Set(ctx context.Context, key string, value T, opts ...Option) error {
	return t.set(ctx, "set", key, value, opts)
}

// GetOrSet returns the value under key, or calls load and stores what it returns. One caller in the fleet runs load for a key
// at a time, as a rule, and the others get its value: what the value depends on belongs in the key. An error of load is
// returned and nothing is stored, but for [NegativeTTL] and [StaleFor]. [Cache.GetOrSet] says more.
func (t *Typed[T]) GetOrSet(ctx context.Context, key string, load func(context.Context) (T, error), opts ...Option) (T, error) {
	with, err := t.apply(opts)
	if err != nil {
		return *new(T), fail("get or set", key, err)
	}
	if load == nil {
		return *new(T), fail("get or set", key, errNilLoader)
	}
	k := t.key(key)
	if v, h := t.fromMemory(k); h.e != nil {
		if h.left() < with.due && with.dueInMemory(h) {
			with.loadEarly(ctx, []localcache.Key{k}, reflect.TypeFor[T](), false, plainLoader(load))
		}
		return v, nil
	}
	return getOrSet(ctx, with, key, load)
}

// getOrSet is GetOrSet where memory has nothing. It is a function of its own because v escapes to the heap in it: a hit allocates nothing.
func getOrSet[T any](ctx context.Context, with view, key string, load func(context.Context) (T, error)) (T, error) {
	var v, none T
	if _, err := with.getOrSet(ctx, "get or set", key, &v, plainLoader(load)); err != nil {
		return none, err
	}
	return v, nil
}

// Delete removes keys, like [Cache.Delete]; a key without an entry is no error. No loader that began before can store what it
// read.
func (t *Typed[T]) Delete(ctx context.Context, keys ...string) error { return t.delete(ctx, keys) }

// plain says whether a copy of a value of type t shares nothing with it that could be changed.
func plain(t reflect.Type) bool {
	switch t.Kind() {
	case reflect.Bool, reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64,
		reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64, reflect.Uintptr,
		reflect.Float32, reflect.Float64, reflect.Complex64, reflect.Complex128, reflect.String:
		return true
	case reflect.Array:
		return plain(t.Elem())
	case reflect.Struct:
		if t.PkgPath() == "time" && t.Name() == "Time" {
			return true // its pointer leads to a Location, which nobody can change
		}
		for i := range t.NumField() {
			if !plain(t.Field(i).Type) {
				return false
			}
		}
		return true
	}
	return false
}
