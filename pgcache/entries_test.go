package pgcache_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

func keys(t *testing.T, c *pgcache.Cache, prefix string) []string {
	t.Helper()
	all := []string{}
	for key, err := range c.Keys(t.Context(), prefix) {
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, key)
	}
	return all
}

// Keys and Entries are the live ones, in order, over several pages, whatever the prefix is made of.
func TestKeysAndEntries(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		c := cl.on(testdb.Open(t, driver, testdb.DSN(t)), nil)
		ctx := t.Context()
		all := map[string]int{}
		for i := range 1700 {
			all[fmt.Sprintf("%04d", i)] = i
		}
		view := pgcache.For[int](c, pgcache.Namespace("user"))
		others := map[string]int{
			"user": 1, "user%": 1, "user9:x": 1, "users:1": 1, "usez:1": 1, "a_b": 1, "aXb": 1, "ключ:1": 1, "ключ:2": 1, "\U0010FFFFx": 1, "a\\b": 1, "zz": 1,
		}
		if err := errors.Join(view.SetMany(ctx, all), pgcache.For[int](c).SetMany(ctx, others)); err != nil {
			t.Fatal(err)
		}
		cl.expire("key < 'user:0100' AND key >= 'user:'")
		for i := 100; i < 1300; i += 2 { // more dead rows in a row than a page has would end it too early
			delete(all, fmt.Sprintf("%04d", i))
		}
		cl.exec("UPDATE " + cl.table() + " SET version = version + 1, stamp = version + 1, value = NULL WHERE key >= 'user:0100' AND key < 'user:1300' AND right(key, 1) IN ('0', '2', '4', '6', '8')")
		wantKeys := []string{}
		for key := range all {
			if key >= "0100" {
				wantKeys = append(wantKeys, "user:"+key)
			}
		}
		slices.Sort(wantKeys)
		if diff := cmp.Diff(wantKeys, keys(t, c, "user:")); diff != "" {
			t.Error(diff)
		}
		var got []string
		for e, err := range view.Entries(ctx) {
			if err != nil || fmt.Sprintf("%04d", e.Value) != e.Key || e.ExpiresIn <= 0 || e.ExpiresIn > pgcache.DefaultTTL {
				t.Fatal(e, err)
			}
			got = append(got, "user:"+e.Key)
		}
		if diff := cmp.Diff(wantKeys, got); diff != "" {
			t.Error(diff)
		}
		for prefix, want := range map[string][]string{
			"a_": {"a_b"}, "user%": {"user%"}, "a\\": {"a\\b"}, "ключ": {"ключ:1", "ключ:2"}, "\U0010FFFF": {"\U0010FFFFx"}, "none": {}, "zz": {"zz"},
		} {
			if diff := cmp.Diff(want, keys(t, c, prefix)); diff != "" {
				t.Errorf("%q: %s", prefix, diff)
			}
		}
		whole := 0
		for _, err := range pgcache.For[int](c).Entries(ctx) {
			if err != nil {
				t.Fatal(err)
			}
			whole++
		}
		if n := len(keys(t, c, "")); n != len(wantKeys)+len(others) || whole != n {
			t.Error(n, whole)
		}
		n := 0
		for range c.Keys(ctx, "user:") {
			if n++; n == 3 {
				break
			}
		}
		eventually(t, "no statement is left", func() bool {
			return cl.count("SELECT count(*) FROM pg_stat_activity WHERE state LIKE 'idle in%' AND query LIKE '%'||$1||'%'", cl.opts.Schema) == 0
		})
	})
}

// A page takes a bounded part of large values, what does not decode comes with its key and an error, and tags come too.
func TestEntriesOfAllKinds(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	c, w := cl.wired(func(o *pgcache.Options) { o.MaxValueBytes = 4 << 20 })
	ctx := t.Context()
	view := pgcache.For[string](c, pgcache.Namespace("ns"))
	large := strings.Repeat("x", 3<<20)
	for i := range 5 {
		if err := view.Set(ctx, fmt.Sprint("large", i), large, pgcache.TTL(pgcache.NoExpiry)); err != nil {
			t.Fatal(err)
		}
	}
	set(t, c, "ns:a number", 7)
	cl.exec("UPDATE " + cl.table() + ` SET version = version + 1, stamp = version + 1, tags = '{"b\"","org:7"}' WHERE key = 'ns:large0'`)
	cl.exec("INSERT INTO "+cl.table()+" (key, value) VALUES ('ns:too large', $1)", make([]byte, 5<<20))
	var got, failed []string
	for e, err := range view.Entries(ctx) {
		switch {
		case err != nil:
			cause(t, err, "entries", "ns:"+e.Key)
			failed = append(failed, e.Key)
		case e.Value != large || e.ExpiresIn != pgcache.NoExpiry:
			t.Errorf("%s: %d bytes, %v", e.Key, len(e.Value), e.ExpiresIn)
		default:
			got = append(got, e.Key)
		}
	}
	if len(got) != 5 || !slices.Equal(failed, []string{"a number", "too large"}) {
		t.Error(got, failed)
	}
	if n := w.count(named("EntriesPage")); n < 2 {
		t.Errorf("%d pages for 15 MiB", n)
	}
	e, found, err := view.GetEntry(ctx, "large0")
	if !found || err != nil || !slices.Equal(e.Tags, []string{`b"`, "org:7"}) || e.Key != "large0" || e.ExpiresIn != pgcache.NoExpiry {
		t.Error(e.Tags, e.Key, e.ExpiresIn, found, err)
	}
	for _, key := range []string{"a number", "too large", "none"} {
		if e, found, err := view.GetEntry(ctx, key); found || err != nil || e.Key != "" {
			t.Error(key, e, found, err)
		}
	}

	failures := func(name string, errs ...error) {
		t.Helper()
		if len(errs) != 1 || errs[0] == nil {
			t.Errorf("%s: %v", name, errs)
		}
	}
	collect := func(c *pgcache.Cache, ctx context.Context, prefix string) (errs []error) {
		for _, err := range c.Keys(ctx, prefix) {
			errs = append(errs, err)
		}
		for _, err := range pgcache.For[int](c, pgcache.Namespace(prefix)).Entries(ctx) {
			errs = append(errs, err)
		}
		return errs[:min(len(errs), 1)]
	}
	failures("a NUL", collect(c, ctx, "a\x00")...)
	ended, cancel := context.WithCancel(ctx)
	cancel()
	failures("an ended context", collect(c, ended, "ns")...)
	if errs := collect(pgcache.Null(), ctx, "ns"); len(errs) != 0 {
		t.Error(errs)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	failures("closed", collect(c, ctx, "ns")...)
	_, _, err = view.GetEntry(ctx, "k")
	wantErr(t, err, pgcache.ErrClosed)
	_, err = c.Increment(ctx, "k", 1)
	wantErr(t, err, pgcache.ErrClosed)
	_, err = c.SetIfAbsent(ctx, "k", 1)
	wantErr(t, err, pgcache.ErrClosed)
	_, err = c.Touch(ctx, "k", time.Hour)
	wantErr(t, err, pgcache.ErrClosed)
	_, err = view.Update(ctx, "k", func(string, bool) (string, error) { return "", nil })
	wantErr(t, err, pgcache.ErrClosed)
}
