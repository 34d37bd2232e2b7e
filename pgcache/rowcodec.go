package pgcache

import (
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/localcache"
)

// reader is the codec that decodes rows of this codec name for the view, or nil if they are misses.
func (v *view) reader(codecName string) codec.Codec {
	if codecName == v.codecName {
		return v.codec
	}
	if r, ok := v.codec.(codec.Reader); ok && codecName != codecNegative {
		return r.ReaderOf(codecName)
	}
	return nil
}

// marshalRow encodes value for the row of k. The row's key is put together for codecs alone that ask for it.
func marshalRow(c codec.Codec, k localcache.Key, value any) ([]byte, error) {
	if keyed, ok := c.(codec.KeyedCodec); ok {
		return keyed.MarshalKeyed(k.Row(), value)
	}
	return c.Marshal(value)
}

// unmarshalRow decodes data of the row of k.
func unmarshalRow(c codec.Codec, k localcache.Key, data []byte, dst any) error {
	if keyed, ok := c.(codec.KeyedCodec); ok {
		return keyed.UnmarshalKeyed(k.Row(), data, dst)
	}
	return c.Unmarshal(data, dst)
}
