package pgcache

import (
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/store"
)

// An Option changes one call, or all calls of a typed view, which may change it again for one call. The zero Option changes
// nothing.
type Option struct {
	kind     optionKind
	dur      time.Duration
	fraction float64 // of the TTL
	codec    codec.Codec
	until    time.Time
	tags     []string
}

type optionKind uint8

const (
	noOption optionKind = iota
	optionTTL
	optionCodec
	optionExpiresAt
	optionStale
	optionSoft
	optionHard
	optionRefresh
	optionNegative
	optionTags
	optionNever
)

// optionNames are the names of the options in errors.
var optionNames = [...]string{
	optionTTL: "TTL", optionCodec: "WithCodec", optionExpiresAt: "ExpiresAt", optionStale: "StaleFor", optionSoft: "SoftTimeout",
	optionHard: "HardTimeout", optionRefresh: "RefreshAfter", optionNegative: "NegativeTTL", optionTags: "Tags",
	optionNever: "LocalNever",
}

func (k optionKind) String() string { return optionNames[k] }

// A ViewOption changes all calls of a typed view: an Option, or what For alone takes, Namespace and Shared.
type ViewOption interface {
	forView(*viewOptions)
}

// viewOptions is what For was given.
type viewOptions struct {
	calls     []Option // for every call
	namespace string
	shared    bool
	err       error
}

func (o Option) forView(v *viewOptions) { v.calls = append(v.calls, o) }

// namespace is the ViewOption of Namespace.
type namespace string

func (ns namespace) forView(v *viewOptions) {
	v.namespace, v.err = string(ns), errors.Join(v.err, checkNamespace(string(ns)))
}

// shared is the ViewOption of Shared.
type shared struct{}

func (shared) forView(v *viewOptions) { v.shared = true }

// TTL says how long an entry lives: 0 is the default of the view or the Cache, NoExpiry for ever, any other negative an
// error. Shorter than a microsecond is rounded up, longer than MaxTTL cut.
func TTL(d time.Duration) Option { return Option{kind: optionTTL, dur: d} }

// ExpiresAt says when an entry ends, by this machine's clock: it becomes a TTL when the entry is written. If the time has passed by
// then, Set and SetMany delete the entry, and what a loader returns is handed out but not stored. A TTL that is given later
// replaces it. The zero Time is an error.
func ExpiresAt(t time.Time) Option { return Option{kind: optionExpiresAt, until: t} }

// Namespace puts "ns:" before every key of a typed view. It must not be empty or contain a ':'.
func Namespace(ns string) ViewOption { return namespace(ns) }

// WithCodec is the codec of a typed view or of one call.
func WithCodec(c codec.Codec) Option { return Option{kind: optionCodec, codec: c} }

// Shared makes all hits of a typed view hand out one decoded value. It saves decoding on every hit. No caller may then change
// what it is given, nor what a pointer, map or slice in it leads to.
func Shared() ViewOption { return shared{} }

// LocalNever keeps what is stored out of the memory of every process, whoever reads it. Where such an entry takes the place of another,
// nobody needs to hear of it, so the write goes into no change log and wakes no listener: for entries that are written about as often as
// they are read, as sessions and counters are, or that are read once. Every Get of them asks the database; it may share the read of a
// caller who came up to 10 ms before. OnInvalidate hears of such an entry only where it is removed, and where one that may be kept takes
// its place or had it. The option is for a view, or else for every call that writes the key: a write without it makes the entry one that
// may be kept.
func LocalNever() Option { return Option{kind: optionNever} }

// ttl checks a TTL and brings it into bounds. NoExpiry becomes store.Never; 0 stays 0.
func ttl(d time.Duration) (time.Duration, error) {
	switch {
	case d == NoExpiry:
		return store.Never, nil
	case d < 0:
		return 0, fmt.Errorf("%w %v", ErrInvalidTTL, d)
	case d > 0 && d < time.Microsecond:
		return time.Microsecond, nil
	}
	return min(d, MaxTTL), nil
}

// apply returns the view with options applied to it; v stays as it is.
func (v *view) apply(opts []Option) (view, error) {
	out := *v
	for i := range opts {
		switch o := &opts[i]; o.kind {
		case noOption:
		case optionTTL:
			d, err := ttl(o.dur)
			if err != nil {
				return out, err
			}
			if d != 0 {
				out.ttl, out.until = d, time.Time{}
			}
		case optionExpiresAt:
			if o.until.IsZero() {
				return out, fmt.Errorf("%w: ExpiresAt of the zero time", ErrInvalidTTL)
			}
			out.until = o.until
		case optionCodec:
			if err := codec.Validate(o.codec); err != nil {
				return out, err
			}
			out.useCodec(o.codec)
		case optionStale, optionSoft, optionHard, optionRefresh, optionNegative:
			if err := out.applyResilience(o, v); err != nil {
				return out, err
			}
		case optionNever:
			out.localNever = true
		case optionTags:
			tags, err := withTags(out.tags, o.tags)
			if err != nil {
				return out, err
			}
			out.tags = tags
		}
	}
	if out.resilience != nil {
		return out, out.completeResilience()
	}
	return out, nil
}
