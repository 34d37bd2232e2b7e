package pgcache

import (
	"fmt"
	"reflect"
	"time"
	"unique"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

// view is a Cache with the options of a typed view, and of one call: which keys, which codec, how long, and in which form values are kept
// in memory. The untyped methods use Cache.base. Calls with options of their own work on a copy.
type view struct {
	c         *Cache
	namespace string
	codec     codec.Codec
	codecName string
	codecID   unique.Handle[string] // the same, as entries in memory have it
	ttl       time.Duration         // store.Never for no expiry
	until     time.Time             // from ExpiresAt, in place of ttl unless it is zero: see life
	stats     *counters             // of the namespace

	resilience *resilience   // nil: none of its options is set
	due        time.Duration // a hit with less than this left starts a load in the background; 0: none does
	tags       []string      // the groups of what is stored; not to be changed
	localNever bool          // what is stored is never kept in memory: see LocalNever

	// keep decodes a value into the form that hits hand out as it is. nil: keep the bytes and decode them at every hit.
	keep func(codec.Codec, localcache.Key, []byte) (any, error)

	err error // what is wrong with the options of For: every call returns it
}

func newView(c *Cache) view {
	v := view{c: c, stats: c.views.of("")}
	v.useCodec(c.opts.Codec)
	v.ttl, _ = ttl(c.opts.DefaultTTL) // New has checked it
	return v
}

// useCodec makes c the view's codec.
func (v *view) useCodec(c codec.Codec) {
	v.codec, v.codecName, v.codecID = c, c.Name(), unique.Make(c.Name())
}

// key is the key of the row in its two parts.
func (v *view) key(key string) localcache.Key {
	if v.namespace != "" {
		return localcache.Key{Namespace: v.namespace, Name: key}
	}
	return keyOf(key)
}

// enter checks what an operation that goes beyond this process's memory needs: valid options, a valid key and an open Cache.
func (v *view) enter(op, key string) error {
	if v.err != nil {
		return fail(op, key, v.err)
	}
	if err := checkKey(v.namespace, key); err != nil {
		return fail(op, key, err)
	}
	if v.c.ctx.Err() != nil {
		return fail(op, key, ErrClosed)
	}
	return nil
}

// encode turns a value into the bytes of the row of k.
func (v *view) encode(k localcache.Key, value any) (data []byte, err error) {
	defer func() {
		if r := recover(); r != nil {
			data, err = nil, codecPanic("encode", v.codecName, reflect.TypeOf(value), r)
		}
	}()
	data, err = marshalRow(v.codec, k, value)
	if err != nil {
		return nil, codecError("encode", v.codecName, reflect.TypeOf(value), err)
	}
	if len(data) > v.c.opts.MaxValueBytes {
		return nil, fmt.Errorf("%w: %d bytes, at most %d are allowed", ErrValueTooLarge, len(data), v.c.opts.MaxValueBytes)
	}
	if data == nil {
		data = []byte{} // nil is a tombstone
	}
	return data, nil
}

// decode turns the bytes of a row into the value that dst points to. Bytes that do not decode are a miss: counted, and
// logged.
func (v *view) decode(k localcache.Key, codecName string, data []byte, dst any) (ok bool) {
	err := v.unmarshal(k, codecName, data, dst)
	if err != nil && codecName != codecNegative {
		v.c.stats.decodeErrors.Add(1)
		v.c.warn("a stored value does not decode and counts as a miss", "key", k.Row(), "error", err)
	}
	return err == nil
}

func (v *view) unmarshal(k localcache.Key, codecName string, data []byte, dst any) (err error) {
	cd := v.codecFor(codecName)
	if cd == nil {
		return fmt.Errorf("written with codec %q, read with %q", codecName, v.codecName)
	}
	// Codecs leave fields alone that the bytes do not name, so what dst held would be mixed into the value.
	into := reflect.ValueOf(dst).Elem()
	into.SetZero()
	defer func() {
		if r := recover(); r != nil {
			err = codecPanic("decode", codecName, into.Type(), r)
		}
		if err != nil {
			into.SetZero() // dst may have half a value
		}
	}()
	if err := unmarshalRow(cd, k, data, dst); err != nil {
		return codecError("decode", codecName, into.Type(), err)
	}
	return nil
}

// entry is what is kept in memory of a row, or nil for a row without a value and for one that is never kept. sent is when the statement
// was sent, by the monotonic clock.
func (v *view) entry(k localcache.Key, row *store.Row, sent int64) *localcache.Entry {
	if !row.Live() || store.NeverKept(row.Version) {
		return nil
	}
	id, cd := v.codecID, v.codecFor(row.Codec)
	if row.Codec != v.codecName {
		id = unique.Make(row.Codec)
	}
	e := &localcache.Entry{
		Codec: id, Version: row.Version,
		Deadline: v.c.local.Deadline(sent, row.Remaining),
		Size:     len(k.Namespace) + len(k.Name) + len(row.Value),
	}
	if v.keep != nil && cd != nil {
		if value, err := v.keep(cd, k, row.Value); err == nil {
			e.Value, e.Codec = value, v.codecID
			return e
		}
	}
	e.Raw = new([]byte)
	*e.Raw = row.Value
	return e
}
