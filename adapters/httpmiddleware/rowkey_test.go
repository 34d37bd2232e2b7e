package httpmiddleware_test

import (
	"fmt"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/pgcache/go/adapters/httpmiddleware"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// A page and the data that it shows change in one commit, by WithTx, by a watched table, or by a prefix.
func TestRowKey(t *testing.T) {
	t.Parallel()
	nodes := pgcachetest.Nodes(t, 2, pgcache.Options{})
	db, ctx := nodes[0].DB, t.Context()
	exec := func(statement string) {
		t.Helper()
		if _, err := db.ExecContext(ctx, statement); err != nil {
			t.Fatal(err)
		}
	}
	exec("CREATE TABLE payments (id int PRIMARY KEY, cents int); INSERT INTO payments VALUES (1, 100)")
	byPath := httpmiddleware.Options{Namespace: "pages", Key: func(r *http.Request) string { return r.URL.Path }}
	entered, leave := make(chan struct{}), make(chan struct{})
	var block atomic.Bool
	var runs atomic.Int32
	sites := func(o httpmiddleware.Options) (all []*site) {
		for _, n := range nodes {
			all = append(all, newSite(t, n.Cache, o, &runs, func(w http.ResponseWriter, r *http.Request) {
				var cents int
				if err := n.DB.QueryRowContext(r.Context(), "SELECT cents FROM payments WHERE id = 1").Scan(&cents); err != nil {
					t.Error(err)
				}
				if block.CompareAndSwap(true, false) {
					entered <- struct{}{}
					<-leave
				}
				w.Header().Set("Cache-Control", "max-age=600")
				w.Header().Set("Vary", "Accept-Language")
				fmt.Fprint(w, cents)
			}))
		}
		return all
	}
	show := func(s *site, want string) {
		t.Helper()
		for _, language := range []string{"de", "en"} {
			if _, body := s.do("GET", "/payments/1", "Accept-Language", language); body != want {
				t.Errorf("%s, want %s", body, want)
			}
		}
	}
	change := func(cents int, key string, commit bool) {
		t.Helper()
		tx, err := db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		defer tx.Rollback()
		if _, err := tx.ExecContext(ctx, "UPDATE payments SET cents = $1 WHERE id = 1", cents); err != nil {
			t.Fatal(err)
		}
		if err := nodes[0].WithTx(tx).Delete(ctx, key); err != nil {
			t.Fatal(err)
		}
		if commit {
			if err := tx.Commit(); err != nil {
				t.Fatal(err)
			}
		}
	}
	sync := func() { pgcachetest.Sync(t, nodes[0].Cache, nodes[1].Cache) }

	pages := sites(byPath)
	key := byPath.RowKey("/payments/1")
	for _, s := range pages {
		show(s, "100")
	}
	change(200, key, false)
	sync()
	for _, s := range pages {
		show(s, "100")
	}
	change(200, key, true)
	sync()
	for _, s := range pages {
		show(s, "200")
	}

	// A handler that has read the old data is under way when the new data is committed. The page is stored, or not, before it begins.
	for cents, known := range map[int]bool{300: true, 400: false} {
		if !known {
			change(cents-1, key, true)
			sync()
		}
		block.Store(true)
		done := make(chan struct{})
		go func() {
			defer close(done)
			pages[1].do("GET", "/payments/1", "Accept-Language", fmt.Sprint("x", cents))
		}()
		<-entered
		change(cents, key, true)
		close(leave)
		<-done
		leave = make(chan struct{})
		sync()
		for _, s := range pages {
			show(s, fmt.Sprint(cents))
			if _, body := s.do("GET", "/payments/1", "Accept-Language", fmt.Sprint("x", cents)); body != fmt.Sprint(cents) {
				t.Errorf("%s, want %d", body, cents)
			}
		}
	}

	// The default key, the URL, and every page at once.
	urls := sites(httpmiddleware.Options{})
	show(urls[0], fmt.Sprint(inTable(t, nodes[0])))
	change(500, httpmiddleware.Options{}.RowKey(urls[0].url+"/payments/1"), true)
	show(urls[0], "500")
	exec("UPDATE payments SET cents = 600")
	if err := nodes[1].DeletePrefix(ctx, "http:"); err != nil {
		t.Fatal(err)
	}
	sync()
	show(urls[0], "600")

	// A watched table.
	watched := strings.ReplaceAll(byPath.RowKey("/payments/ID"), "ID", "{id}")
	if err := nodes[0].WatchTable(ctx, pgcache.TableWatch{Table: "payments", Keys: []string{watched}}); err != nil {
		t.Fatal(err)
	}
	sync()
	show(pages[1], "600")
	exec("UPDATE payments SET cents = 700")
	sync()
	show(pages[1], "700")
}

func inTable(t *testing.T, n *pgcachetest.Node) (v int) {
	t.Helper()
	if err := n.DB.QueryRowContext(t.Context(), "SELECT cents FROM payments WHERE id = 1").Scan(&v); err != nil {
		t.Fatal(err)
	}
	return v
}
