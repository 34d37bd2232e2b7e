package integration

import (
	"context"
	"crypto/rand"
	"database/sql"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// node is a Cache whose tables are there. Another one with its options shares them.
type node struct {
	*pgcache.Cache
	options pgcache.Options
}

// open returns a node on db, with tables of its own unless change says otherwise.
func open(t *testing.T, db *sql.DB, change func(*pgcache.Options)) *node {
	t.Helper()
	o := pgcache.Options{
		Schema: "i_" + strings.ToLower(rand.Text()[:16]), Timeout: 20 * time.Second, Logger: slog.New(slog.DiscardHandler),
	}
	if change != nil {
		change(&o)
	}
	c, err := pgcache.New(db, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	return &node{c, o}
}

func (n *node) ready(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	if err := n.Ready(ctx); err != nil {
		t.Fatal(err)
	}
}
