package drivertest

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/pgcache/go/pgcache"
)

// nodes see what each other write, one way and the other.
func nodes(t *testing.T, b *bundle) {
	ctx := t.Context()
	one, two := b.node(nil), b.node(nil)
	for i := range 10 {
		value := func(write int) []byte { return valueOf("k", 10*i+write) }
		must(t, one.Set(ctx, "k", value(1)))
		one.inMemory(t, "k")
		two.sees(t, "k", value(1))
		two.inMemory(t, "k")
		must(t, two.Set(ctx, "k", value(2)))
		two.want(t, "k", value(2))
		one.sees(t, "k", value(2))
		one.inMemory(t, "k")
		must(t, pgcache.For[[]byte](two.Cache).SetMany(ctx, map[string][]byte{"k": value(3), "l": value(3)}))
		one.sees(t, "k", value(3))
		one.sees(t, "l", value(3))
		one.inMemory(t, "l")
		must(t, two.Delete(ctx, "l"))
		two.want(t, "l", nil)
		one.sees(t, "l", nil)
		two.inMemory(t, "k")
		must(t, one.Delete(ctx, "k", "l"))
		two.sees(t, "k", nil)
	}
}

// publishedAtCommit: what is changed by hand, in a transaction, is seen when it commits, not before, and not after a rollback.
func publishedAtCommit(t *testing.T, b *bundle) {
	ctx := t.Context()
	n, other := b.node(nil), b.node(nil)
	for _, c := range []struct {
		query  string
		commit bool
		want   []byte
	}{
		{"UPDATE " + b.table() + " SET value = 'by hand'::bytea WHERE key = 'k'", true, []byte("by hand")},
		{"UPDATE " + b.table() + " SET value = 'by hand'::bytea WHERE key = 'k'", false, []byte("set")},
		{"DELETE FROM " + b.table() + " WHERE key = 'k'", true, nil},
		{"DELETE FROM " + b.table() + " WHERE key = 'k'", false, []byte("set")},
		{"TRUNCATE " + b.table(), true, nil},
	} {
		must(t, n.Set(ctx, "k", []byte("set")))
		other.sees(t, "k", []byte("set"))
		other.inMemory(t, "k")
		tx, err := b.look.BeginTx(ctx, nil)
		must(t, err)
		_, err = tx.ExecContext(ctx, c.query)
		must(t, err)
		// A note of ours, sent after the change and committed before it, comes first: so the change is not on its way.
		if !strings.HasPrefix(c.query, "TRUNCATE") { // which keeps everybody out
			must(t, n.Set(ctx, "note", []byte("1")))
			must(t, n.Set(ctx, "note", []byte(c.query)))
			other.sees(t, "note", []byte(c.query))
			other.inMemory(t, "k")
			other.want(t, "k", []byte("set"))
		}
		if !c.commit {
			must(t, tx.Rollback())
			must(t, n.Set(ctx, "note", []byte("2")))
			other.sees(t, "note", []byte("2"))
			other.want(t, "k", c.want)
			continue
		}
		must(t, tx.Commit())
		other.sees(t, "k", c.want)
		n.sees(t, "k", c.want)
	}
}

func clearAll(t *testing.T, b *bundle) {
	ctx := t.Context()
	one, two, db := b.node(nil), b.node(nil), b.node(forgetful)
	must(t, one.Clear(ctx)) // of nothing
	all := map[string][]byte{}
	var keys []string
	for i := range 100 {
		keys = append(keys, fmt.Sprint(i))
		all[keys[i]] = valueOf(keys[i], i)
	}
	must(t, pgcache.For[[]byte](one.Cache).SetMany(ctx, all))
	wantMany(t, pgcache.For[[]byte](two.Cache), keys, all)
	two.inMemory(t, "7")
	must(t, one.Clear(ctx))
	wantMany(t, pgcache.For[[]byte](one.Cache), keys, nil)
	wantMany(t, pgcache.For[[]byte](db.Cache), keys, nil)
	two.sees(t, "7", nil)
	must(t, two.Set(ctx, "7", []byte("new")))
	one.sees(t, "7", []byte("new"))
	two.want(t, "7", []byte("new"))
	// While somebody reads the table it can't be emptied at once.
	tx, err := b.look.BeginTx(ctx, nil)
	must(t, err)
	defer tx.Rollback()
	_, err = tx.ExecContext(ctx, "LOCK TABLE "+b.table()+" IN ACCESS SHARE MODE")
	must(t, err)
	must(t, two.Clear(ctx))
	one.sees(t, "7", nil)
	two.want(t, "7", nil)
}

// cleanup removes what has expired, a batch at a time, and nothing else.
func cleanup(t *testing.T, b *bundle) {
	ctx := t.Context()
	n := b.node(func(o *pgcache.Options) { o.CleanupBatch, o.CleanupInterval = 10, -1 })
	view := pgcache.For[[]byte](n.Cache)
	live, expired := map[string][]byte{}, map[string][]byte{}
	var keys []string
	for i := range 25 {
		keys = append(keys, fmt.Sprint("live ", i))
		live[keys[i]] = []byte{}
		expired[fmt.Sprint("expired ", i)] = []byte{}
	}
	must(t, view.SetMany(ctx, live))
	must(t, view.SetMany(ctx, expired, pgcache.TTL(1)))
	must(t, n.Delete(ctx, "deleted"))
	for i, want := range []int64{10, 10, 5, 0} {
		if removed, err := n.Cleanup(ctx); err != nil || removed != want {
			t.Errorf("Cleanup %d returns %d, %v; want %d", i, removed, err, want)
		}
	}
	if rows := b.count("SELECT count(*) FROM " + b.table()); rows != len(live)+1 {
		t.Errorf("%d rows are left, want %d and a tombstone", rows, len(live))
	}
	wantMany(t, view, keys, live)

	// By itself, on one node or the other, once the grace for loads is over.
	must(t, view.SetMany(ctx, expired, pgcache.TTL(1)))
	b.exec("UPDATE " + b.table() + " SET expires_at = expires_at - interval '1 hour' WHERE key LIKE 'expired%'")
	b.exec("UPDATE " + b.name + "." + prefix + "cache_state SET ended_before = pg_snapshot_xmax(pg_current_snapshot())") // and their transactions ended long ago
	b.node(func(o *pgcache.Options) { o.CleanupInterval = 20 * time.Millisecond })
	eventually(t, "the janitor removes them", func() bool {
		return b.count("SELECT count(*) FROM "+b.table()+" WHERE key LIKE 'expired%'") == 0
	})
}

// mixedUse: everything at once on two nodes. Whatever is read is a value of its key, no call fails, and in the end all
// agree.
func mixedUse(t *testing.T, b *bundle) {
	const callers, keys = 8, 8
	ctx := t.Context()
	nodes := []node{b.node(nil), b.node(nil)}
	check := func(op, key string, value []byte, err error) {
		if err != nil {
			t.Errorf("%s: %v", op, err)
		} else if value != nil && !strings.HasSuffix(string(value), " "+key) {
			t.Errorf("%s(%q) returns %q", op, key, value)
		}
	}
	end := time.Now().Add(500 * time.Millisecond)
	var wg sync.WaitGroup
	for i := range callers {
		wg.Go(func() {
			n := nodes[i%len(nodes)]
			view := pgcache.For[[]byte](n.Cache)
			random := rand.New(rand.NewPCG(uint64(i), 0))
			for write := i; time.Now().Before(end); write += callers {
				key, second := fmt.Sprint(random.IntN(keys)), fmt.Sprint(random.IntN(keys))
				value := valueOf(key, write)
				switch random.IntN(20) {
				case 0, 1:
					check("Set", key, nil, n.Set(ctx, key, value))
				case 2:
					check("Delete", key, nil, n.Delete(ctx, key))
				case 3:
					check("SetMany", key, nil, view.SetMany(ctx, map[string][]byte{key: value, second: valueOf(second, write)}))
				case 4:
					check("Delete", key, nil, n.Delete(ctx, key, second))
				case 5:
					if random.IntN(20) == 0 {
						check("Clear", "", nil, n.Clear(ctx))
					}
				case 6, 7, 8:
					got, err := view.GetOrSet(ctx, key, func(context.Context) ([]byte, error) { return value, nil })
					check("GetOrSet", key, got, err)
				case 9:
					load := func(_ context.Context, missing []string) (map[string][]byte, error) {
						all := map[string][]byte{}
						for _, key := range missing {
							all[key] = valueOf(key, write)
						}
						return all, nil
					}
					all, err := view.GetOrSetMany(ctx, []string{key, second}, load)
					check("GetOrSetMany", key, all[key], err)
					check("GetOrSetMany", second, all[second], err)
				case 10, 11:
					all, err := view.GetMany(ctx, []string{key, second})
					check("GetMany", key, all[key], err)
					check("GetMany", second, all[second], err)
				default:
					got, _, err := view.Get(ctx, key)
					check("Get", key, got, err)
				}
			}
		})
	}
	wg.Wait()
	db := b.node(forgetful)
	for i := range keys {
		var want []byte
		key := fmt.Sprint(i)
		found, err := db.Get(ctx, key, &want)
		must(t, err)
		if !found {
			want = nil
		}
		for _, n := range nodes {
			n.sees(t, key, want)
		}
	}
}
