package pgcache_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/localcache"
	"github.com/pgcache/go/pgcache"
)

// New says which option is wrong, and why. It sends nothing.
func TestOptionErrors(t *testing.T) {
	t.Parallel()
	db, wire := openWire(t, "pgx", testdb.DSN(t))
	for name, test := range map[string]struct {
		opts pgcache.Options
		says []string
	}{
		"Prefix with a quote":        {pgcache.Options{Prefix: `a"b`}, []string{"Prefix", "letters, digits and _"}},
		"Prefix too long":            {pgcache.Options{Prefix: strings.Repeat("x", 42)}, []string{"Prefix", "42 bytes", "41"}},
		"Schema with a dot":          {pgcache.Options{Schema: "a.b"}, []string{"Schema", "letters, digits and _"}},
		"Schema too long":            {pgcache.Options{Schema: strings.Repeat("x", 64)}, []string{"Schema", "64 bytes", "63"}},
		"Channel with a space":       {pgcache.Options{Channel: "a b"}, []string{"Channel", "letters, digits and _"}},
		"Channel too long":           {pgcache.Options{Channel: strings.Repeat("x", 64)}, []string{"Channel", "64 bytes", "63"}},
		"DefaultTTL":                 {pgcache.Options{DefaultTTL: -5}, []string{"DefaultTTL", "-5ns"}},
		"InvalidationWindow":         {pgcache.Options{InvalidationWindow: -5}, []string{"InvalidationWindow", "-5ns", "Immediate"}},
		"InvalidationWindow, long":   {pgcache.Options{InvalidationWindow: time.Hour}, []string{"InvalidationWindow", "1h0m0s", "minute"}},
		"LocalTTL":                   {pgcache.Options{LocalTTL: -1}, []string{"LocalTTL", "-1ns", "negative"}},
		"LocalTTL of nothing":        {pgcache.Options{LocalTTL: time.Second, Local: localcache.None()}, []string{"LocalTTL", "None"}},
		"Local":                      {pgcache.Options{Local: localcache.New(localcache.Options{MaxEntries: -1})}, []string{"Local", "MaxEntries", "-1"}},
		"LockTimeout":                {pgcache.Options{LockTimeout: -1}, []string{"LockTimeout", "-1ns"}},
		"LoadTimeout":                {pgcache.Options{LoadTimeout: -1}, []string{"LoadTimeout", "-1ns"}},
		"LoadTimeout, long":          {pgcache.Options{LoadTimeout: pgcache.MaxLoadTimeout + 1}, []string{"LoadTimeout", "4m0s"}},
		"Timeout":                    {pgcache.Options{Timeout: -time.Second}, []string{"Timeout", "-1s"}},
		"CleanupBatch":               {pgcache.Options{CleanupBatch: -1}, []string{"CleanupBatch", "-1"}},
		"MaxValueBytes":              {pgcache.Options{MaxValueBytes: -1}, []string{"MaxValueBytes", "-1"}},
		"MaxValueBytes, large":       {pgcache.Options{MaxValueBytes: 1 << 30}, []string{"MaxValueBytes", "512 MiB"}},
		"MaxRows":                    {pgcache.Options{MaxRows: -1}, []string{"MaxRows", "-1"}},
		"MaxBytes":                   {pgcache.Options{MaxBytes: -1}, []string{"MaxBytes", "-1"}},
		"bounds without the janitor": {pgcache.Options{MaxRows: 1, CleanupInterval: -1}, []string{"CleanupInterval", "MaxRows"}},
		"Codec without a name":       {pgcache.Options{Codec: rawCodec{}}, []string{"Codec"}},
		"Codec with a long name":     {pgcache.Options{Codec: rawCodec{strings.Repeat("x", 33)}}, []string{"Codec"}},
	} {
		c, err := pgcache.New(db, test.opts)
		if err == nil || c != nil {
			t.Errorf("%s: accepted", name)
			c.Close()
			continue
		}
		for _, s := range append(test.says, "pgcache: ") {
			if !strings.Contains(err.Error(), s) {
				t.Errorf("%s: the error does not say %q: %v", name, s, err)
			}
		}
	}
	if c, err := pgcache.New(nil, pgcache.Options{}); err == nil || c != nil || !strings.Contains(err.Error(), "nil") {
		t.Errorf("nil pool: %v", err)
	}
	for limit := 1; limit < 4; limit++ {
		small := testdb.DB(t)
		small.SetMaxOpenConns(limit)
		_, err := pgcache.New(small, pgcache.Options{})
		if err == nil || !strings.Contains(err.Error(), "MaxOpenConns") || !strings.Contains(err.Error(), fmt.Sprint(limit)) || !strings.Contains(err.Error(), "SetMaxOpenConns(4)") {
			t.Errorf("MaxOpenConns %d: %v", limit, err)
		}
		for _, guard := range []pgcache.Guard{pgcache.NoGuard(), pgcache.Lease(), panicking{}} {
			c, err := pgcache.New(small, pgcache.Options{Guard: guard})
			if err != nil {
				t.Errorf("MaxOpenConns %d, no listener, %T: %v", limit, guard, err)
				continue
			}
			c.Close()
			if _, err := pgcache.New(small, pgcache.Options{Guard: guard, Listener: pgxdriver.Listener(small)}); err == nil || !strings.Contains(err.Error(), "Lease()") {
				t.Errorf("MaxOpenConns %d with a listener, %T: %v", limit, guard, err)
			}
		}
	}
	if s := wire.statements(); len(s) != 0 {
		t.Errorf("sent %q", s)
	}
}

// The zero value works: JSON, five minutes, no memory without a listener. New needs no server.
func TestZeroOptions(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		schema := testdb.Schema(t)
		db := testdb.Open(t, driver, testdb.WithParam(testdb.DSN(t), "search_path", schema))
		db.SetMaxOpenConns(4)
		c, err := pgcache.New(db, pgcache.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		for name, err := range everything(t.Context(), c) {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		set(t, c, "k", user{ID: 1})
		if u, found := get[user](t, c, "k"); !found || u.ID != 1 {
			t.Error(u, found)
		}
		if n := c.Stats().LocalHits; n != 0 {
			t.Errorf("%d hits in memory, and nobody who keeps it true", n)
		}
		var where, how string
		var seconds float64
		if err := db.QueryRowContext(t.Context(), `SELECT n.nspname, convert_from(e.value, 'UTF8'), date_part('epoch', e.expires_at - clock_timestamp())
			FROM cache_entries e JOIN pg_class c ON c.oid = e.tableoid JOIN pg_namespace n ON n.oid = c.relnamespace WHERE e.key = 'k'`).Scan(&where, &how, &seconds); err != nil {
			t.Fatal(err)
		}
		if where != schema || !strings.HasPrefix(how, `{"ID":1`) || seconds < 290 || seconds > 300 {
			t.Error(where, how, seconds)
		}
	})
	nowhere, err := sql.Open("pgx", "postgres://127.0.0.1:1/none?connect_timeout=1")
	if err != nil {
		t.Fatal(err)
	}
	defer nowhere.Close()
	c, err := pgcache.New(nowhere, pgcache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	cause(t, c.Set(t.Context(), "k", 1), "set", "k")
	var v int
	if err := c.GetOrSet(t.Context(), "k", &v, func(context.Context) (any, error) { return 7, nil }); err != nil || v != 7 {
		t.Error(v, err)
	}
	c.Close()
}

// hostile are names that must reach no statement, or reach it quoted.
var hostile = []string{
	`"`, `'`, `"; DROP SCHEMA public CASCADE; --`, `'; SELECT pg_sleep(10); --`, `a"b`, "a'b", "a;b", "a b", "a.b", `a\b`, "$1", "$$", "%s", "a\x00b", "a\nb",
	"\u00e4", "\u212a", "\u017f", "a\u0301", "\U0001f4a3", "\xff", "-", "a-b", "a*b", "(", "/* TEMPLATE: prefix */x", "*/", "--",
	strings.Repeat("x", 64), strings.Repeat("x", 200), strings.Repeat("\u00e4", 20),
}

// Whatever a prefix, schema or channel holds: it is refused by New, or it works.
func TestHostileNames(t *testing.T) {
	t.Parallel()
	db, wire := openWire(t, "pgx", testdb.DSN(t))
	letters := []rune("ab9_AZ\"'; .-\\$\x00\u00e4%")
	names := append([]string{}, hostile...)
	for range 300 {
		var b strings.Builder
		for range rand.N(12) + 1 {
			b.WriteRune(letters[rand.N(len(letters))])
		}
		names = append(names, b.String())
	}
	for _, name := range names {
		good := name != "" && strings.Trim(name, "ab9_AZx") == "" && len(name) <= 41
		for option, o := range map[string]pgcache.Options{"Prefix": {Prefix: name}, "Schema": {Schema: name}, "Channel": {Channel: name}} {
			c, err := pgcache.New(db, o)
			if err == nil {
				c.Close()
			}
			if (err == nil) != good {
				t.Errorf("%s %q: %v", option, name, err)
			}
			if err != nil && (!strings.Contains(err.Error(), option) || !utf8.ValidString(err.Error()) || strings.ContainsRune(err.Error(), 0) || len(err.Error()) > 500) {
				t.Errorf("%s %q: the error is %q", option, name, err)
			}
		}
	}
	if s := wire.statements(); len(s) != 0 {
		t.Errorf("sent %q", s)
	}
	// The odd ones that are good.
	for i, name := range []string{"1", "_", "SELECT", "user", "A", "a", "9_9", "PgCache", "x" + strings.Repeat("9", 40)} {
		cl := newCluster(t)
		cl.opts.Schema, cl.opts.Prefix, cl.opts.Channel = cl.opts.Schema+"_"+name[:1]+"X", name, strings.ToUpper(cl.opts.Schema)+name[:1]
		a, b := cl.node(nil), cl.node(nil)
		set(t, a, "k", i)
		warm(t, b, "k", i)
		set(t, a, "k", -i-1)
		eventually(t, name+": b receives", func() bool { return b.Stats().Invalidations > 0 })
		warm(t, b, "k", -i-1)
		if err := a.Clear(t.Context()); err != nil {
			t.Error(err)
		}
		if n := cl.count("SELECT count(*) FROM pg_tables WHERE schemaname = $1 AND tablename LIKE $2", cl.opts.Schema, strings.ReplaceAll(name, "_", `\_`)+"cache%"); n == 0 {
			t.Errorf("%s: no tables of this name", name)
		}
		cl.exec(`DROP SCHEMA "` + cl.opts.Schema + `" CASCADE`)
	}
}

// The longest prefix fits: no name of an object is cut, and one is as long as can be.
func TestLongestPrefix(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	cl.opts.Prefix = strings.Repeat("p", 41)
	c := cl.node(nil)
	set(t, c, "k", 1)
	if _, err := c.Cleanup(t.Context()); err != nil {
		t.Fatal(err)
	}
	rows, err := cl.db.QueryContext(t.Context(), `
		SELECT relname FROM pg_class WHERE relnamespace = $1::text::regnamespace
		UNION SELECT proname FROM pg_proc WHERE pronamespace = $1::text::regnamespace`, cl.opts.Schema)
	if err != nil {
		t.Fatal(err)
	}
	defer rows.Close()
	longest, short := 0, newCluster(t)
	short.opts.Prefix = "s_"
	short.node(nil)
	n := 0
	for rows.Next() {
		var name string
		if err := rows.Scan(&name); err != nil {
			t.Fatal(err)
		}
		n++
		longest = max(longest, len(name))
		rest, ok := strings.CutPrefix(name, cl.opts.Prefix)
		if !ok || !strings.HasPrefix(rest, "cache_") {
			t.Errorf("an object is called %q", name)
		}
		// Cut names would be other names.
		if short.count("SELECT (SELECT count(*) FROM pg_class WHERE relnamespace = $1::text::regnamespace AND relname = $2) + (SELECT count(*) FROM pg_proc WHERE pronamespace = $1::text::regnamespace AND proname = $2)",
			short.opts.Schema, "s_"+rest) != 1 {
			t.Errorf("%q is %q with a longer prefix", "s_"+rest, name)
		}
	}
	if err := rows.Err(); err != nil {
		t.Fatal(err)
	}
	if longest != 63 || n < 6 {
		t.Errorf("of %d names the longest has %d bytes: the limit of Prefix could be another", n, longest)
	}
	if n := cl.count("SELECT count(*) FROM pg_trigger t JOIN pg_class c ON c.oid = t.tgrelid WHERE c.relnamespace = $1::text::regnamespace AND tgname NOT LIKE 'cache\\_%'", cl.opts.Schema); n != 0 {
		t.Errorf("%d triggers are not called cache_", n)
	}
}

// Options hold for all nodes of one cache: another codec is a miss, never a wrong value.
func TestOtherCodec(t *testing.T) {
	t.Parallel()
	cl := newCluster(t)
	a := cl.node(nil)
	b := cl.node(func(_ *sql.DB, o *pgcache.Options) { o.Codec = codec.Gob{} })
	set(t, a, "k", 1)
	wantNoneOf[int](t, b, "k")
	set(t, b, "g", 2)
	wantNoneOf[int](t, a, "g")
	if n := a.Stats().DecodeErrors + b.Stats().DecodeErrors; n != 2 {
		t.Errorf("%d decode errors", n)
	}
	v, found, err := pgcache.For[int](a, pgcache.WithCodec(codec.Gob{})).Get(t.Context(), "g")
	if v != 2 || !found || err != nil {
		t.Error(v, found, err)
	}
}
