package codec_test

import (
	"testing"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/codectest"
)

func BenchmarkJSON(b *testing.B) { codectest.Benchmark(b, codec.JSON{}) }

func BenchmarkGob(b *testing.B) { codectest.Benchmark(b, codec.Gob{}) }
