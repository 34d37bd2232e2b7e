package pgcache_test

import (
	"context"
	"encoding/gob"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/codec/msgpack"
	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/internal/testdb"
	"github.com/pgcache/go/pgcache"
)

// talker is a type whose own methods fail and quote what they have: with an error, or a panic of one kind or another.
type talker struct{ How, Text string }

func (k talker) fail() error {
	quote := &quotes{k.Text + plantedValue}
	switch k.How {
	case "panic":
		panic(quote.Error())
	case "panic with an error":
		panic(quote)
	case "panic with the value":
		panic(k)
	case "index":
		return fmt.Errorf("no %v", []int{}[len(k.Text)])
	case "wrong type":
		return &json.UnmarshalTypeError{Value: quote.Error(), Field: quote.Error(), Struct: quote.Error()}
	case "MarshalerError":
		return &json.MarshalerError{Err: quote}
	case "unsupported":
		return &json.UnsupportedValueError{Str: quote.Error()}
	}
	return fmt.Errorf("gob: wrong: msgpack: %w", quote)
}

func (k talker) MarshalJSON() ([]byte, error)    { return nil, k.fail() }
func (k talker) MarshalMsgpack() ([]byte, error) { return nil, k.fail() }
func (k talker) GobEncode() ([]byte, error)      { return nil, k.fail() }

// hearer fails when it is decoded.
type hearer struct{ How string }

func (h *hearer) UnmarshalJSON(data []byte) error    { return talker{how, string(data)}.fail() }
func (h *hearer) UnmarshalMsgpack(data []byte) error { return talker{how, string(data)}.fail() }
func (h *hearer) GobDecode(data []byte) error        { return talker{how, string(data)}.fail() }
func (h hearer) MarshalJSON() ([]byte, error)        { return json.Marshal(plantedValue) }
func (h hearer) MarshalMsgpack() ([]byte, error)     { return msgpack.Codec{}.Marshal(plantedValue) }
func (h hearer) GobEncode() ([]byte, error)          { return []byte(plantedValue), nil }

// how a hearer fails. One test uses it.
var how string

var hows = []string{"error", "panic", "panic with an error", "panic with the value", "index", "wrong type", "MarshalerError", "unsupported"}

// chatty is a codec that quotes.
type chatty struct {
	codec.JSON
	how string
}

func (chatty) Name() string { return "chatty" }

func (c chatty) Marshal(v any) ([]byte, error) {
	if c.how != "" {
		return nil, talker{c.how, fmt.Sprint(v)}.fail()
	}
	return c.JSON.Marshal(v)
}

func (c chatty) Unmarshal(data []byte, v any) error {
	if c.how != "" {
		return talker{c.how, string(data)}.fail()
	}
	return c.JSON.Unmarshal(data, v)
}

type card struct {
	Owner  string
	Number int64
	Until  time.Time
	Tags   map[string]string
}

var aCard = card{Owner: plantedValue, Number: plantedNumber, Tags: map[string]string{plantedValue: plantedValue}}

// others are types that a card does not decode into.
type (
	otherCard  struct{ Owner int }
	smallCard  struct{ Number int8 }
	timedCard  struct{ Owner time.Time }
	taggedCard struct{ Tags map[int]int }
	badKeys    struct{ Tags map[time.Month]string }
)

// tries reads key as a T in each way, which must not work, and loads what a T can't be decoded from.
func tries[T any](p *plants, c *pgcache.Cache, key string, loaded any, opts ...pgcache.Option) {
	p.t.Helper()
	var view []pgcache.ViewOption
	for _, o := range opts {
		view = append(view, o)
	}
	typed := pgcache.For[T](c, view...)
	if v, found, err := typed.Get(p.t.Context(), key); found || err != nil {
		p.t.Errorf("%s as %T: %v, %v", key, v, found, err)
	}
	if m, err := typed.GetMany(p.t.Context(), []string{key}); len(m) > 0 || err != nil {
		p.t.Errorf("%s: %v, %v", key, m, err)
	}
	err := c.GetOrSet(p.t.Context(), key, new(T), func(context.Context) (any, error) { return loaded, nil }, opts...)
	p.err(fmt.Sprintf("GetOrSet of a %T into a %T", loaded, *new(T)), err)
}

// It is not parallel: how is shared, and its log must have a line for each warning.
func TestSecretsOfCodecs(t *testing.T) {
	gob.Register(card{})
	cl := newCluster(t)
	p := &plants{t: t}
	for _, cd := range []codec.Codec{codec.JSON{}, codec.Gob{}, msgpack.Codec{}, chatty{}} {
		o := cl.opts
		o.Logger, o.Codec, o.MaxValueBytes = p.logs.logger(), cd, 1000
		c, err := pgcache.New(cl.db, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		name := cd.Name()
		ctx := t.Context()

		// What can't be encoded.
		for _, h := range hows {
			if name == "chatty" {
				in := pgcache.WithCodec(chatty{how: h})
				p.err(name+" Set, "+h, c.Set(ctx, "k", aCard, in))
				p.err(name+" GetOrSet, "+h, c.GetOrSet(ctx, "new", new(card), func(context.Context) (any, error) { return aCard, nil }, in))
				set(t, c, "card", aCard)
				tries[card](p, c, "card", aCard, in)
				continue
			}
			for _, v := range []any{talker{h, plantedValue}, []talker{{h, plantedValue}}, map[string]any{plantedValue: talker{h, ""}}, struct{ T talker }{talker{h, ""}}} {
				if name == "gob" && strings.HasPrefix(fmt.Sprintf("%T", v), "map") {
					continue // it has to be registered
				}
				err := c.Set(ctx, "k", v)
				p.err(fmt.Sprintf("%s Set of a %T, %s", name, v, h), err)
				if !strings.Contains(fmt.Sprint(err), fmt.Sprintf("%T", v)) {
					t.Errorf("the error does not name the type %T: %v", v, err)
				}
				p.err(name+" SetMany", pgcache.For[any](c).SetMany(ctx, map[string]any{"k": v}))
			}
			how = h
			set(t, c, "hearer", hearer{})
			tries[hearer](p, c, "hearer", hearer{})
		}
		for _, v := range []any{make(chan int), func() {}, map[string]any{plantedValue: make(chan int)}, strings.Repeat(plantedValue, 100)} {
			p.err(fmt.Sprintf("%s Set of a %T", name, v), c.Set(ctx, "k", v))
		}
		if name == "json" {
			p.err("json.Number", c.Set(ctx, "k", json.Number(plantedValue)))
			p.err("RawMessage", c.Set(ctx, "k", json.RawMessage(plantedValue)))
			p.err("not UTF-8", c.Set(ctx, "k", plantedValue+"\xff"))
		}

		// What does not decode.
		set(t, c, "card", aCard)
		tries[otherCard](p, c, "card", aCard)
		if name != "msgpack" { // it cuts numbers off
			tries[smallCard](p, c, "card", aCard)
		}
		tries[timedCard](p, c, "card", aCard)
		tries[taggedCard](p, c, "card", aCard)
		tries[int](p, c, "card", aCard)
		tries[[]string](p, c, "card", aCard)
		tries[badKeys](p, c, "card", aCard)
		set(t, c, "text", plantedValue)
		tries[int](p, c, "text", plantedValue)
		tries[time.Time](p, c, "text", plantedValue)
		tries[[4]byte](p, c, "text", map[string]string{"a": plantedValue})
		if name == "json" {
			tries[json.Number](p, c, "text", plantedValue)
			tries[[]byte](p, c, "text", plantedValue)
		}
		for i, raw := range []string{plantedValue, `"` + plantedValue, `{"Owner":"` + plantedValue, `{"Owner":"` + plantedValue + `"}x`, "\xac" + plantedValue + "x", "\xbf" + plantedValue} {
			key := fmt.Sprint("raw", i)
			cl.exec("INSERT INTO "+cl.table()+" (key, value, codec) VALUES ($1, $2, $3) ON CONFLICT (key) DO UPDATE SET value = EXCLUDED.value, codec = EXCLUDED.codec", key, []byte(raw), name)
			if _, found, err := pgcache.For[card](c).Get(ctx, key); found || err != nil {
				t.Error(found, err)
			}
			if _, err := pgcache.For[card](c, pgcache.WithCodec(rawCodec{"raw"})).GetMany(ctx, []string{key}); err != nil {
				t.Error(err)
			}
		}
		p.done(c, o)
	}
	p.done(pgcache.Null(), cl.opts, "does not decode")
}

// Statements that fail with the value among their parameters, in every way in which a server quotes it.
func TestSecretsOfStatements(t *testing.T) {
	t.Parallel()
	forDrivers(t, func(t *testing.T, driver string) {
		cl := newCluster(t)
		p := &plants{t: t}
		dsn := testdb.WithParam(testdb.DSN(t), "options", "-c log_parameter_max_length_on_error=-1")
		db := testdb.Open(t, driver, dsn)
		o := cl.opts
		o.Logger, o.Listener, o.Timeout = p.logs.logger(), pgxdriver.Listener(testdb.DB(t)), 4*time.Second
		c, err := pgcache.New(db, o)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
		if err := c.Migrate(t.Context()); err != nil {
			t.Fatal(err)
		}
		cl.ready(c)
		strs := pgcache.For[string](c)
		ctx := t.Context()
		set(t, c, "locked", "")
		write := func(what, state string) {
			t.Helper()
			for name, err := range map[string]error{
				"Set":     c.Set(ctx, "k", plantedValue),
				"SetMany": strs.SetMany(ctx, map[string]string{"k": plantedValue, "l": plantedValue}),
				"large":   c.Set(ctx, "m", strings.Repeat(plantedValue, 30000)),
			} {
				p.err(what+": "+name, err)
				var s interface{ SQLState() string }
				if driver == "postgres" && strings.Contains(err.Error(), "pq: server error:") {
					continue // of an error of more than 30 kB lib/pq reads the first word
				}
				if !errors.As(err, &s) || s.SQLState() != state {
					t.Errorf("%s: %s: it lacks the server's error: %v", what, name, err)
				}
				var server *pgconn.PgError
				if errors.As(err, &server) != (driver == "pgx") {
					t.Errorf("%s: %s: it lacks the driver's error: %v", what, name, err)
				}
			}
			p.logs.mu.Lock()
			lines := p.logs.buf.Len()
			p.logs.mu.Unlock()
			eventually(t, "a load that can't be stored is logged", func() bool {
				v, err := strs.GetOrSet(ctx, "n", func(context.Context) (string, error) { return plantedValue, nil })
				if v != plantedValue || err != nil {
					t.Fatal(v, err)
				}
				return strings.Contains(p.logs.String()[lines:], "storing it failed")
			})
		}
		table := cl.table()
		for what, check := range map[string]struct{ sql, state string }{
			"a CHECK":              {"octet_length(value) < 5", "23514"},
			"a CHECK of the form":  {"convert_from(value, 'UTF8')::int > 0", "22P02"},
			"a CHECK of the text":  {"trim('\"' from convert_from(value, 'UTF8'))::date > now()", "22007"},
			"a CHECK of a number":  {"length(convert_from(value, 'UTF8') || repeat('9', 30))::numeric / (octet_length(value) * 0) > 0", "22012"},
			"a CHECK of its JSON":  {"(convert_from(value, 'UTF8')::json->>'a')::int IS NULL AND convert_from(substring(value from 2), 'UTF8')::json IS NOT NULL", "22P02"},
			"a CHECK of its bytes": {"convert_from(value || '\\xff', 'UTF8') <> ''", "22021"},
		} {
			cl.exec("ALTER TABLE " + table + " ADD CONSTRAINT planted CHECK (" + check.sql + ") NOT VALID")
			write(what, check.state)
			cl.exec("ALTER TABLE " + table + " DROP CONSTRAINT planted")
		}
		cl.exec("CREATE UNIQUE INDEX planted ON " + table + " (md5(value), value)")
		cl.exec("INSERT INTO "+table+" (key, value) VALUES ('other', convert_to($1, 'UTF8'))", `"`+plantedValue+`"`)
		p.err("a unique index", c.Set(ctx, "k", plantedValue))
		cl.exec("DROP INDEX " + cl.opts.Schema + ".planted")
		fn := cl.opts.Schema + ".planted()"
		cl.exec("CREATE FUNCTION " + fn + ` RETURNS trigger LANGUAGE plpgsql AS $$
			BEGIN
				RAISE EXCEPTION 'no' USING DETAIL = convert_from(NEW.value, 'UTF8'), HINT = convert_from(NEW.value, 'UTF8');
			END $$`)
		cl.exec("CREATE TRIGGER planted BEFORE INSERT OR UPDATE ON " + table + " FOR EACH ROW EXECUTE FUNCTION " + fn)
		write("a trigger", "P0001")
		cl.exec("DROP FUNCTION " + fn + " CASCADE")

		// Timeouts: a row that somebody holds.
		tx, err := cl.db.BeginTx(ctx, nil)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := tx.ExecContext(ctx, "SELECT FROM "+table+" WHERE key = 'locked' FOR UPDATE"); err != nil {
			t.Fatal(err)
		}
		p.err("Timeout", c.Set(ctx, "locked", plantedValue))
		short, cancel := context.WithTimeout(ctx, 100*time.Millisecond)
		p.err("a deadline", c.Set(short, "locked", plantedValue))
		cancel()
		_ = tx.Rollback()

		cl.exec("DROP TABLE " + table + " CASCADE")
		p.err("no table: Set", c.Set(ctx, "k", plantedValue))
		p.err("no table: GetOrSet", c.GetOrSet(ctx, "k", new(string), func(context.Context) (any, error) { return plantedValue, nil }))
		db.Close()
		p.err("a closed pool", c.Set(ctx, "k", plantedValue))
		p.done(c, o, "storing it failed")
	})
}
