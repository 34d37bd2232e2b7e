package store

import (
	"context"
	"database/sql"
	"encoding/json"
	"errors"
	"time"
	"unicode/utf8"

	"github.com/pgcache/go/internal/dbsqlc"
)

// What people and monitoring look at. No Get or Set uses this file.

// Inspected is a row as it lies in the table, also a tombstone or one that has expired.
type Inspected struct {
	Key       string
	Codec     string
	Value     []byte // nil: a tombstone, or larger than was asked for
	Version   int64
	Tombstone bool
	Dead      bool          // one of its groups has been removed since it was written
	Bytes     int64         // of the value
	Stored    int64         // what the value takes in the table, as Postgres has compressed it
	Forever   bool          // it does not expire
	Remaining time.Duration // until it expires; negative: it has
	Age       time.Duration // since it was written
	Written   time.Time     // by the database's clock
	Tags      []string
	Stale     time.Duration // how much longer it may be handed out where a loader fails; 0: it may not
}

// NoValue is the codec of a row that says that a loader found nothing: see NegativeTTL.
const NoValue = "!none"

// Negative says that the row is of the codec NoValue.
func (e Inspected) Negative() bool { return e.Codec == NoValue }

// Gone says that no Get returns the row.
func (e Inspected) Gone() bool {
	return e.Tombstone || e.Dead || e.Negative() || !e.Forever && e.Remaining <= 0
}

// Inspect reads the row of key, with its value if that is at most largest bytes. found is false where there is no row.
func (s *Store) Inspect(ctx context.Context, key string, largest int) (e Inspected, found bool, err error) {
	r, err := s.q.InspectEntry(ctx, dbsqlc.InspectEntryParams{Key: key, Largest: int32(largest)})
	if errors.Is(err, sql.ErrNoRows) {
		return Inspected{}, false, nil
	}
	if err != nil {
		return Inspected{}, false, err
	}
	e = Inspected{
		Key: key, Codec: r.Codec, Value: r.Value, Version: r.Version, Tombstone: r.Tombstone, Bytes: r.ByteCount, Stored: r.StoredBytes,
		Forever: r.Forever, Remaining: micros(r.RemainingUs), Age: micros(r.NowUs - r.WrittenUs), Written: time.UnixMicro(r.WrittenUs),
		Stale: max(0, micros(r.StaleUs)), Dead: r.Dead,
	}
	return e, true, json.Unmarshal([]byte(r.Tags), &e.Tags)
}

// List returns at most most rows whose keys begin with prefix and come after a key, in their order and without their values. gone
// asks for tombstones and expired rows too.
func (s *Store) List(ctx context.Context, prefix, after string, gone bool, most int) ([]Inspected, error) {
	rows, err := s.q.ListEntries(ctx, dbsqlc.ListEntriesParams{First: prefix, After: after, Until: beyond(prefix), Gone: gone, Most: int32(most)})
	if err != nil {
		return nil, err
	}
	list := make([]Inspected, len(rows))
	for i, r := range rows {
		list[i] = Inspected{
			Key: r.Key, Codec: r.Codec, Tombstone: r.Tombstone, Bytes: r.ByteCount, Forever: r.Forever,
			Remaining: micros(r.RemainingUs), Age: micros(r.AgeUs), Dead: r.Dead,
		}
	}
	return list, nil
}

// beyond is the least string that comes after all that begin with prefix, in the order of bytes; "": there is none. UTF-8 keeps
// the order of its code points.
func beyond(prefix string) string {
	for prefix != "" {
		r, size := utf8.DecodeLastRuneInString(prefix)
		prefix = prefix[:len(prefix)-size]
		if r == utf8.MaxRune {
			continue
		}
		if r++; r == 0xD800 {
			r = 0xE000 // surrogates are no characters
		}
		return prefix + string(r)
	}
	return ""
}

// TagCount is a tag with the live entries that have it.
type TagCount struct {
	Tag            string
	Entries, Bytes int64
}

// ListTags returns at most most tags that begin with beginning, those of most entries first. It reads all rows of the table.
func (s *Store) ListTags(ctx context.Context, beginning string, most int) ([]TagCount, error) {
	rows, err := s.q.ListTags(ctx, dbsqlc.ListTagsParams{Beginning: beginning, Most: int32(most)})
	if err != nil {
		return nil, err
	}
	list := make([]TagCount, len(rows))
	for i, r := range rows {
		list[i] = TagCount{r.Tag, r.Entries, r.ByteCount}
	}
	return list, nil
}

// Watched is a watched table and what is wrong with it.
type Watched struct {
	Watch
	Faults []string
}

// ListWatches returns the watched tables.
func (s *Store) ListWatches(ctx context.Context) ([]Watched, error) {
	rows, err := s.q.ListWatches(ctx)
	if err != nil {
		return nil, err
	}
	list := make([]Watched, len(rows))
	for i, r := range rows {
		w := &list[i]
		w.Table, w.Most = r.Watched, int(r.Most)
		err = errors.Join(err, json.Unmarshal([]byte(r.Keys), &w.Keys), json.Unmarshal([]byte(r.Tags), &w.Tags), json.Unmarshal([]byte(r.Faults), &w.Faults))
	}
	return list, err
}

// WrittenAt is when a version of a row was written, by the database's clock.
type WrittenAt struct {
	Version int64
	At      time.Time
}

// WrittenAt returns when the rows of keys were written; keys without a row are absent.
func (s *Store) WrittenAt(ctx context.Context, keys []string) (map[string]WrittenAt, error) {
	rows, err := s.q.WrittenAt(ctx, textArray(keys))
	if err != nil {
		return nil, err
	}
	at := make(map[string]WrittenAt, len(rows))
	for _, r := range rows {
		at[r.Key] = WrittenAt{r.Version, time.UnixMicro(r.WrittenUs)}
	}
	return at, nil
}

// Figures are sizes and counters of the tables, as the catalogs and the statistics have them.
type Figures dbsqlc.FiguresRow

// MostPending is where Figures.Pending stops counting.
const MostPending = 1000

// Figures reads sizes and counters, and no entry.
func (s *Store) Figures(ctx context.Context) (Figures, error) {
	f, err := s.q.Figures(ctx)
	return Figures(f), err
}

// Session is whose session a process of the server is. What the role may not see is empty.
type Session struct{ Application, Role, Address string }

// SessionOf returns whose session the process pid is, or the zero Session where it has ended.
func (s *Store) SessionOf(ctx context.Context, pid uint32) (Session, error) {
	r, err := s.q.SessionOf(ctx, int32(pid))
	if errors.Is(err, sql.ErrNoRows) {
		return Session{}, nil
	}
	return Session(r), err
}
