// Package store is the table: reads, writes, fenced stores and upkeep, one statement each, over whatever database/sql
// driver the caller's pool has. It knows rows, not values, and nothing of local caches.
package store

import (
	"context"
	"database/sql"
	"errors"
	"strconv"
	"strings"
	"sync"
	"time"

	"github.com/pgcache/go/internal/dbsqlc"
	"github.com/pgcache/go/internal/notify"
)

// DB is what the store needs of a pool, a connection or a transaction.
type DB interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	PrepareContext(ctx context.Context, query string) (*sql.Stmt, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Never is the TTL of a row that does not expire.
const Never time.Duration = -1

// Row is one row as the database had it.
type Row struct {
	Key       string
	Value     []byte // nil: expired or a tombstone; never nil otherwise
	Version   int64  // 0: there is no row
	Codec     string
	Remaining time.Duration // until it expires, by the database's clock; centuries if never
	Server    int64         // identity of the server that answered; 0 with no row
}

// Live says whether the row has a value to hand out.
func (r Row) Live() bool { return r.Value != nil }

// Write is one row to be written.
type Write struct {
	Key     string
	Value   []byte // nil: a tombstone
	Version int64
	TTL     time.Duration // Never, or at least 0
	Codec   string
	Base    int64 // Load only: the version that the load saw before it began, 0 if there was no row
	Loud    bool  // tell it even if the row is new
}

// Store runs the statements of one cache. It is safe for concurrent use.
type Store struct {
	Names Names
	db    *sql.DB
	q     *dbsqlc.Queries
}

// New returns the store of the cache that n names. n must have been resolved.
func New(db *sql.DB, n Names) *Store {
	return &Store{Names: n, db: db, q: dbsqlc.New(&rendered{DB: db, names: n, texts: new(sync.Map)})}
}

// rendered fills the templates into every statement on its way out, once a statement.
type rendered struct {
	DB
	names Names
	texts *sync.Map // generated text -> text for this cache
}

func (r *rendered) text(sql string) string {
	if t, ok := r.texts.Load(sql); ok {
		return t.(string)
	}
	t := r.names.Render(sql)
	r.texts.Store(sql, t)
	return t
}

func (r *rendered) ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error) {
	return r.DB.ExecContext(ctx, r.text(query), args...)
}

func (r *rendered) QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error) {
	return r.DB.QueryContext(ctx, r.text(query), args...)
}

func (r *rendered) QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row {
	return r.DB.QueryRowContext(ctx, r.text(query), args...)
}

// with returns the queries on another connection or a transaction.
func (s *Store) with(db DB) *dbsqlc.Queries {
	return dbsqlc.New(&rendered{DB: db, names: s.Names, texts: new(sync.Map)})
}

// Get reads one row. A key without a row is the zero Row, not an error.
func (s *Store) Get(ctx context.Context, key string) (Row, error) {
	r, err := retry(ctx, func() (dbsqlc.GetEntryRow, error) { return s.q.GetEntry(ctx, key) })
	if errors.Is(err, sql.ErrNoRows) {
		return Row{Key: key}, nil
	}
	if err != nil {
		return Row{}, err
	}
	return Row{key, r.Value, r.Version, r.Codec, micros(r.RemainingUs), r.Server}, nil
}

// GetMany reads many rows in one statement, which sees them all at one moment. Keys without a row are absent.
func (s *Store) GetMany(ctx context.Context, keys []string) (map[string]Row, error) {
	list := arrayOf(len(keys), func(b *strings.Builder, i int) { quoteElement(b, keys[i]) })
	found, err := retry(ctx, func() ([]dbsqlc.GetEntriesRow, error) { return s.q.GetEntries(ctx, list) })
	if err != nil {
		return nil, err
	}
	rows := make(map[string]Row, len(found))
	for _, r := range found {
		rows[r.Key] = Row{r.Key, r.Value, r.Version, r.Codec, micros(r.RemainingUs), r.Server}
	}
	return rows, nil
}

// Put writes one row and tells it, if it was there before or w is loud. It returns the server that wrote it.
func (s *Store) Put(ctx context.Context, w Write) (server int64, err error) {
	arg := dbsqlc.PutEntryParams{
		Key: w.Key, Value: w.Value, Version: w.Version, Codec: w.Codec,
		TtlUs: sql.NullInt64{Int64: w.TTL.Microseconds(), Valid: w.TTL != Never},
		Loud:  w.Loud, Channel: s.Names.Channel, Payload: notify.One(w.Key, w.Version),
	}
	// The version makes it safe to send twice: the second time it writes the same row again.
	r, err := retry(ctx, func() (dbsqlc.PutEntryRow, error) { return s.q.PutEntry(ctx, arg) })
	return r.Server, err
}

// maxRows and maxBytes bound one writing statement.
const (
	maxRows  = 1000
	maxBytes = 8 << 20
)

// PutMany writes rows of different keys, in statements of bounded size, each atomic. On an error some statements may
// have been done.
func (s *Store) PutMany(ctx context.Context, ws []Write) (server int64, err error) {
	for len(ws) > 0 {
		n, bytes := 0, 0
		for n < len(ws) && n < maxRows && (n == 0 || bytes+len(ws[n].Value) <= maxBytes) {
			bytes += len(ws[n].Value)
			n++
		}
		p := pack(ws[:n], bytes)
		rows, err := retry(ctx, func() ([]dbsqlc.PutEntriesRow, error) {
			return s.q.PutEntries(ctx, dbsqlc.PutEntriesParams{
				Keys: p.keys, Versions: p.versions, TtlsUs: p.ttls, Codecs: p.codecs, Louds: p.louds, Sizes: p.sizes,
				Vals: p.values, Channel: s.Names.Channel,
			})
		})
		if err != nil {
			return 0, err
		}
		if len(rows) > 0 {
			server = rows[0].Server
		}
		ws = ws[n:]
	}
	return server, nil
}

// Generation is the number that every Clear turns. A load reads it before it begins.
func (s *Store) Generation(ctx context.Context) (int64, error) { return s.q.GetGeneration(ctx) }

// PutLoaded stores what a load brought, of each row only if nothing was written since the load saw w.Base, and of all
// only if nothing was cleared since generation. It returns the keys that were stored. It is sent once: a second try
// could not tell its own row from another's.
func (s *Store) PutLoaded(ctx context.Context, ws []Write, generation int64) (stored map[string]bool, server int64, err error) {
	bytes := 0
	for i := range ws {
		bytes += len(ws[i].Value)
	}
	p := pack(ws, bytes)
	rows, err := s.q.StoreLoaded(ctx, dbsqlc.StoreLoadedParams{
		Keys: p.keys, Versions: p.versions, Bases: p.bases, TtlsUs: p.ttls, Codecs: p.codecs, Louds: p.louds,
		Sizes: p.sizes, Vals: p.values, Generation: generation, Channel: s.Names.Channel,
	})
	stored = make(map[string]bool, len(rows))
	for _, r := range rows {
		stored[r.Key], server = true, r.Server
	}
	return stored, server, err
}

// packed is a list of writes as the columns of one statement.
type packed struct {
	keys, versions, bases, ttls, codecs, louds, sizes string
	values                                            []byte
}

func pack(ws []Write, bytes int) packed {
	number := func(b *strings.Builder, n int64) { b.WriteString(strconv.FormatInt(n, 10)) }
	column := func(element func(b *strings.Builder, w *Write)) string {
		return arrayOf(len(ws), func(b *strings.Builder, i int) { element(b, &ws[i]) })
	}
	p := packed{
		keys:     column(func(b *strings.Builder, w *Write) { quoteElement(b, w.Key) }),
		versions: column(func(b *strings.Builder, w *Write) { number(b, w.Version) }),
		bases:    column(func(b *strings.Builder, w *Write) { number(b, w.Base) }),
		codecs:   column(func(b *strings.Builder, w *Write) { quoteElement(b, w.Codec) }),
		louds:    column(func(b *strings.Builder, w *Write) { b.WriteString(strconv.FormatBool(w.Loud)) }),
		ttls: column(func(b *strings.Builder, w *Write) {
			if w.TTL == Never {
				number(b, -1)
			} else {
				number(b, w.TTL.Microseconds())
			}
		}),
		sizes: column(func(b *strings.Builder, w *Write) {
			if w.Value == nil {
				number(b, -1)
			} else {
				number(b, int64(len(w.Value)))
			}
		}),
		values: make([]byte, 0, bytes),
	}
	for i := range ws {
		p.values = append(p.values, ws[i].Value...)
	}
	return p
}

func micros(us int64) time.Duration {
	const most = int64(1<<63-1) / int64(time.Microsecond)
	return time.Duration(min(us, most)) * time.Microsecond
}
