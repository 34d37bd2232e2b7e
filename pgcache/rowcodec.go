package pgcache

import (
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/localcache"
)

// codecFor returns the codec with which the view decodes rows of this codec name; nil if they are misses to it.
func (v *view) codecFor(codecName string) codec.Codec {
	if codecName == v.codecName {
		return v.codec
	}
	if r, ok := v.codec.(codec.Reader); ok && codecName != codecNegative {
		return r.ReaderOf(codecName)
	}
	return nil
}

// marshalRow is codec.Marshal, but joins the two parts of the key only for codecs that ask for it.
func marshalRow(c codec.Codec, k localcache.Key, value any) ([]byte, error) {
	if keyed, ok := c.(codec.KeyedCodec); ok {
		return keyed.MarshalKeyed(k.Row(), value)
	}
	return c.Marshal(value)
}

// unmarshalRow is codec.Unmarshal in the same way.
func unmarshalRow(c codec.Codec, k localcache.Key, data []byte, dst any) error {
	if keyed, ok := c.(codec.KeyedCodec); ok {
		return keyed.UnmarshalKeyed(k.Row(), data, dst)
	}
	return c.Unmarshal(data, dst)
}
