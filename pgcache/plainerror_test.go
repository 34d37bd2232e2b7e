package pgcache_test

import (
	"context"
	"strings"
	"testing"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/compress"
	"github.com/pgcache/go/pgcache"
)

// What our own codecs say of a value that they refuse reaches the caller: it names types and sizes alone, and what to do.
func TestCodecsSayWhyTheyRefuse(t *testing.T) {
	t.Parallel()
	c := pgcache.Null()
	defer c.Close()
	for _, test := range []struct {
		codec codec.Codec
		value any
		want  string
	}{
		{codec.Raw{}, 3, "use another codec for this type"},
		{codec.JSON{}, "\xff", "use []byte"},
		{compress.New(codec.JSON{}, compress.MaxBytes(10)), strings.Repeat("s", 50), "compress.MaxBytes"},
	} {
		err := c.Set(context.Background(), "k", test.value, pgcache.WithCodec(test.codec))
		if err == nil || !strings.Contains(err.Error(), test.want) || strings.Contains(err.Error(), "sss") {
			t.Errorf("%s of a %T: %v, want %q in it", test.codec.Name(), test.value, err, test.want)
		}
	}
}
