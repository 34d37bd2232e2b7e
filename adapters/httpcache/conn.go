package httpcache

import (
	"context"
	"fmt"
	"net/url"

	"github.com/bartventer/httpcache/store"
	"github.com/bartventer/httpcache/store/driver"

	"github.com/pgcache/go/pgcache"
)

var _ driver.Conn = (*Conn)(nil)

// Conn is a driver.Conn of bartventer/httpcache. It is safe for concurrent use.
type Conn struct {
	view *pgcache.Typed[[]byte]
}

// NewConn returns a Conn whose responses are in c, in the namespace httpcache, for a day. The options may say otherwise. The
// longest time for which a stale response may be used, or revalidated, is then a day as well.
func NewConn(c *pgcache.Cache, opts ...pgcache.ViewOption) *Conn {
	return &Conn{view(c, opts)}
}

// Register makes conn what httpcache.NewTransport opens for name + "://". As store.Register it panics if the name is taken.
func Register(name string, conn *Conn) {
	store.Register(name, driver.DriverFunc(func(*url.URL) (driver.Conn, error) { return conn, nil }))
}

// Get returns the value under key, or an error that is driver.ErrNotExist.
func (c *Conn) Get(key string) ([]byte, error) {
	value, found, err := c.view.Get(context.Background(), pgcache.HashKey(key))
	if err == nil && !found {
		err = notExist(key)
	}
	return value, err
}

// Set stores value under key.
func (c *Conn) Set(key string, value []byte) error {
	return c.view.Set(context.Background(), pgcache.HashKey(key), value)
}

// Delete removes the value under key. Without one it is an error that is driver.ErrNotExist, so Delete looks first: of two calls
// at the same time both may return nil.
func (c *Conn) Delete(key string) error {
	if _, err := c.Get(key); err != nil {
		return err
	}
	return c.view.Delete(context.Background(), pgcache.HashKey(key))
}

func notExist(key string) error {
	return fmt.Errorf("%w: %.200q", driver.ErrNotExist, key)
}
