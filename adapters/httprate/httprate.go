// Package httprate counts the requests of github.com/go-chi/httprate in a pgcache.Cache, so that a limit is one for all processes of a
// service.
//
//	r.Use(httprate.LimitBy(100, time.Minute, key, httprate.WithLimitCounter(pghttprate.New(cache, "login"))))
//
// What to know:
//
//   - Every request is counted once. What a process reads of the others' counts may be some milliseconds old (P2 of package
//     pgcache), and httprate reads before it counts, so that a few requests at the same moment may pass beyond the limit.
//   - A limiter of httprate has one lock for all keys and holds it while it reads and counts: two statements a request, one
//     request at a time in each process. It is for what is worth a round trip, such as logins.
//   - Without the database httprate answers with an error, unless Counter.Fallback is set.
//   - Windows are by the processes' clocks.
package httprate

import (
	"context"
	"strconv"
	"strings"
	"time"

	"github.com/go-chi/httprate"

	"github.com/pgcache/go/adapters/internal/report"
	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/pgcache"
)

var _ httprate.LimitCounter = (*Counter)(nil)

// Counter is an httprate.LimitCounter. It is safe for concurrent use, once its fields are set. A Counter serves one limiter.
type Counter struct {
	// Fallback counts what the database can't, in this process alone: httprate.NewLocalLimitCounter(0).
	Fallback httprate.LimitCounter
	// Timeout bounds each call, because the limiter lets no other request pass meanwhile. New sets 250 ms; it must be positive.
	Timeout time.Duration
	// OnError gets the errors that Fallback hides; nil logs them with slog.Default.
	OnError func(error)

	cache  *pgcache.Cache
	name   string
	view   *pgcache.Typed[int]
	window time.Duration
}

// New returns a Counter in c. name distinguishes the limiters of a service and may be any text; "" is httprate.
func New(c *pgcache.Cache, name string) *Counter {
	if name == "" {
		name = "httprate"
	}
	name = pgcache.HashKey(escape.Replace(name)) // a namespace has no ':'
	return &Counter{
		Timeout: 250 * time.Millisecond,
		cache:   c, name: name, window: time.Minute,
		view: pgcache.For[int](c, pgcache.Namespace(name), pgcache.WithCodec(codec.JSON{})),
	}
}

// escape makes different names of different names.
var escape = strings.NewReplacer("~", "~0", ":", "~1")

// Config is called by httprate with the limiter's window, before any other method. Until then the window is a minute.
func (c *Counter) Config(requestLimit int, windowLength time.Duration) {
	c.window = windowLength
	if c.Fallback != nil {
		c.Fallback.Config(requestLimit, windowLength)
	}
}

// Increment counts one request of key in currentWindow, which begins at that time.
func (c *Counter) Increment(key string, currentWindow time.Time) error {
	return c.IncrementBy(key, currentWindow, 1)
}

// IncrementBy counts amount requests, in one statement. An error is that of Fallback, where that is set.
func (c *Counter) IncrementBy(key string, currentWindow time.Time, amount int) error {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	// A count is read during its own window and the next.
	_, err := c.cache.Increment(ctx, c.name+":"+counterKey(key, currentWindow), int64(amount), pgcache.TTL(3*c.window))
	if err != nil && c.Fallback != nil {
		report.Error(c.OnError, err)
		return c.Fallback.IncrementBy(key, currentWindow, amount)
	}
	return err
}

// Get returns the counts of key in two windows, 0 where none was counted: from memory, or else in one statement. An error is that of
// Fallback, where that is set.
func (c *Counter) Get(key string, currentWindow, previousWindow time.Time) (current, previous int, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), c.Timeout)
	defer cancel()
	now, before := counterKey(key, currentWindow), counterKey(key, previousWindow)
	counts, err := c.view.GetMany(ctx, []string{now, before})
	if err != nil && c.Fallback != nil {
		report.Error(c.OnError, err)
		return c.Fallback.Get(key, currentWindow, previousWindow)
	}
	return counts[now], counts[before], err
}

// counterKey begins with the window, so that no key of a client's can be another's at another time.
func counterKey(key string, window time.Time) string {
	return pgcache.HashKey(strconv.FormatInt(window.UnixMilli(), 36) + "." + key)
}
