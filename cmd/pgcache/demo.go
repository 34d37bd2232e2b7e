package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/spf13/cobra"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/pgserver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcache/pgcacheui"
)

func demoCommand(a *app) *cobra.Command {
	var address string
	var limit time.Duration
	c := &cobra.Command{
		Use:   "demo",
		Short: "Run two nodes on a throw-away Postgres, with a page that shows them",
		Long: `Run two nodes of a cache on a throw-away Postgres, with readers and a writer, and a page in the browser that shows both. It needs
server binaries on this machine (PGCACHE_PG_BIN names their folder), or downloads them once. It touches no other server,
whatever the environment names, and leaves nothing behind.`,
		Args: cobra.NoArgs,
		RunE: func(c *cobra.Command, _ []string) error {
			return a.demo(c.Context(), address, limit)
		},
	}
	c.Flags().StringVar(&address, "listen", "127.0.0.1:8765", "where the page is; anybody who can connect to it can see it and clear the cache")
	c.Flags().DurationVar(&limit, "for", 0, "end after so long; 0: when interrupted")
	return c
}

func (a *app) demo(ctx context.Context, address string, limit time.Duration) (err error) {
	ln, err := (&net.ListenConfig{}).Listen(ctx, "tcp", address)
	if err != nil {
		return usageError{fmt.Errorf("--listen: %w", err)}
	}
	defer ln.Close()
	server, err := pgserver.StartWith(ctx, pgserver.Config{Own: true})
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, server.Close()) }()
	var nodes []pgcacheui.Node
	for _, name := range []string{"node A", "node B"} {
		node, end, err := startNode(ctx, server.DSN, name)
		if err != nil {
			return err
		}
		defer end()
		nodes = append(nodes, node)
	}
	web := &http.Server{
		Handler:           onlyOwnHost(ln.Addr(), pgcacheui.Nodes(nodes, pgcacheui.Options{Title: "pgcache demo", AllowClear: true})),
		ReadHeaderTimeout: 10 * time.Second,
	}
	served := make(chan error, 1)
	go func() { served <- web.Serve(ln) }()
	defer web.Close()

	page := "http://" + ln.Addr().String() + "/"
	if a.global.json {
		err = writeJSON(a.out, map[string]string{"page": page, "dsn": server.DSN, "server_version": server.Version})
	} else {
		s := style(a.colors())
		_, err = fmt.Fprintf(a.out, `PostgreSQL %s from %s, two nodes with readers and a writer.

  the page            %s
  what is published   pgcache tail --dsn '%s'
  figures             pgcache top  --dsn '%s'
  change something    pgcache set product:7 '{"price": 1}' --dsn '%s'

Ctrl-C ends it and leaves nothing behind.
`, server.Version, server.Source, s.bold(page), server.DSN, server.DSN, server.DSN)
	}
	if err != nil {
		return err
	}
	var work sync.WaitGroup
	defer work.Wait()
	ctx, cancel := context.WithCancel(ctx)
	if limit > 0 {
		ctx, cancel = context.WithTimeout(ctx, limit)
	}
	defer cancel()
	for i, node := range nodes {
		for range 2 {
			work.Go(func() { browse(ctx, node.Cache) })
		}
		if i == 0 {
			work.Go(func() { reprice(ctx, node.Cache) })
		}
	}
	select {
	case <-ctx.Done():
		return nil
	case err := <-served:
		return err
	}
}

// onlyOwnHost refuses requests with a foreign Host where the page is for this machine alone: a site can let its own name lead here,
// and would then be the same site for the browser.
func onlyOwnHost(at net.Addr, h http.Handler) http.Handler {
	if tcp, ok := at.(*net.TCPAddr); !ok || !tcp.IP.IsLoopback() {
		return h
	}
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = r.Host
		}
		if ip := net.ParseIP(strings.Trim(host, "[]")); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
			http.Error(w, "this page is for this machine alone", http.StatusForbidden)
			return
		}
		h.ServeHTTP(w, r)
	})
}

// startNode is what a service does when it starts.
func startNode(ctx context.Context, dsn, name string) (pgcacheui.Node, func(), error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return pgcacheui.Node{}, nil, err
	}
	config.RuntimeParams["application_name"] = name
	db := stdlib.OpenDB(*config)
	db.SetMaxOpenConns(maxConns)
	db.SetMaxIdleConns(maxConns)
	cache, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db), Logger: slog.New(slog.DiscardHandler)})
	if err == nil {
		if err = cache.Migrate(ctx); err == nil {
			err = cache.Ready(ctx)
		}
		if err != nil {
			cache.Close()
		}
	}
	if err != nil {
		db.Close()
		return pgcacheui.Node{}, nil, err
	}
	return pgcacheui.Node{Name: name, Cache: cache}, func() {
		cache.Close()
		db.Close()
	}, nil
}

const products = 500

type product struct {
	Name  string `json:"name"`
	Price int    `json:"price"`
}

// pick is a product, some of them far more often than others.
func pick() string {
	return fmt.Sprint(int(products * rand.Float64() * rand.Float64() * rand.Float64()))
}

func view(c *pgcache.Cache) *pgcache.Typed[product] {
	return pgcache.For[product](c, pgcache.Namespace("product"), pgcache.TTL(20*time.Second))
}

// browse reads products, some hundred a second.
func browse(ctx context.Context, c *pgcache.Cache) {
	for ctx.Err() == nil {
		id := pick()
		// A value of another form, which somebody may have set by hand, is loaded anew; an error is on the page.
		_, _ = view(c).GetOrSet(ctx, id, func(ctx context.Context) (product, error) {
			pause(ctx, time.Duration(5+rand.IntN(20))*time.Millisecond)
			return product{"product " + id, 100 + rand.IntN(900)}, nil
		})
		pause(ctx, time.Duration(rand.IntN(6))*time.Millisecond)
	}
}

// reprice changes products, some of them a second.
func reprice(ctx context.Context, c *pgcache.Cache) {
	for ctx.Err() == nil {
		id := pick()
		if rand.IntN(10) == 0 {
			_ = view(c).Delete(ctx, id)
		} else {
			_ = view(c).Set(ctx, id, product{"product " + id, 100 + rand.IntN(900)})
		}
		pause(ctx, time.Duration(20+rand.IntN(120))*time.Millisecond)
	}
}

func pause(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-ctx.Done():
	case <-t.C:
	}
}
