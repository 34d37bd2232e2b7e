package pgcache

import (
	"database/sql"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"time"

	"github.com/pgcache/go/codec"
	"github.com/pgcache/go/internal/store"
	"github.com/pgcache/go/localcache"
)

const (
	// NoExpiry as a TTL keeps an entry until it is deleted. It is a fixed negative number that no arithmetic with times yields;
	// every other negative TTL is ErrInvalidTTL, so time.Until of a time that has passed is an error, never "for ever".
	NoExpiry time.Duration = math.MinInt64 + 777_777_777

	// Immediate as an InvalidationWindow publishes every write in its own statement, without delay.
	Immediate time.Duration = -1
)

// Defaults of Options, and the bounds that New holds them to.
const (
	DefaultTTL             = 5 * time.Minute
	DefaultLockTimeout     = 5 * time.Second
	DefaultLoadTimeout     = 30 * time.Second
	DefaultTimeout         = 5 * time.Second
	DefaultCleanupInterval = time.Minute
	DefaultCleanupBatch    = 500
	DefaultWindow          = 25 * time.Millisecond
	DefaultMaxWindow       = 500 * time.Millisecond
	DefaultMaxValueBytes   = 8 << 20

	// MaxTTL is the longest TTL; longer ones are cut to it, without an error.
	MaxTTL = 100 * 365 * 24 * time.Hour
	// MaxLoadTimeout is the longest LoadTimeout. A Delete is remembered a minute longer than that, so that no loader
	// that began before it can store what it read.
	MaxLoadTimeout = 4 * time.Minute
	// MaxKeyBytes is the longest key, with its namespace.
	MaxKeyBytes = 1024
)

// tombstoneGrace is how long the tombstone of a Delete is kept: longer than any load takes, see store.LoadGrace. It is the same for all
// nodes, whatever their options.
const tombstoneGrace = MaxLoadTimeout + time.Minute

// MaxLoadTimeout < store.LoadGrace < tombstoneGrace, or this does not compile: a load that is as slow as it may be is stored, and only
// while the tombstones of all Deletes since it began are kept.
const _ = uint64(store.LoadGrace-MaxLoadTimeout-1) + uint64(tombstoneGrace-store.LoadGrace-1)

// Options says how a Cache works. The zero value is useful: JSON, five minutes, and no local cache, because without a
// Listener nothing would invalidate it. Most programs set Listener alone.
//
// The fields are in this order: values, the names and kind of the tables, invalidation and memory, loads, statements, the
// removal of rows, and what the program is told.
type Options struct {
	// Codec turns values into bytes. Defaults to codec.JSON. A typed view may have its own.
	Codec codec.Codec

	// DefaultTTL is how long an entry lives if a call says nothing else. 0 means five minutes, NoExpiry for ever.
	DefaultTTL time.Duration

	// Schema holds the tables. "" follows the search_path of the connection. Letters, digits and _; none of Postgres' own.
	Schema string

	// Prefix begins the name of every object that the cache creates. Caches with different prefixes share nothing.
	// Letters, digits and _, at most 41 bytes.
	Prefix string

	// Channel is where changes are published. Defaults to a name made of Schema and Prefix. All nodes of a cache must
	// have the same; Migrate writes it down, and a node that differs gets an error. Letters, digits and _, at most 63.
	Channel string

	// Durable makes Migrate create a logged table: entries then outlive a crash of the server and reach its standbys,
	// and every write costs WAL. By default the table is UNLOGGED, and a crash empties it.
	Durable bool

	// HideKeys makes Migrate have invalidations name keys by hashes, keyed with a secret that only roles with rights on the
	// cache's tables can read. Without it any role of the database may LISTEN on the channel and see the keys that change.
	// Once migrated it holds for all nodes, whatever their options say, and stays on until key_secret in cache_state is set to
	// NULL. It costs memory for each key that is held, a hash for each statement, and nothing for a hit.
	HideKeys bool

	// Listener receives the invalidations of other nodes: pgxdriver.Listener or pqdriver.Listener. Without one the local cache is
	// off, unless LocalTTL is set.
	Listener Listener

	// InvalidationWindow bounds how long a change waits to be published together with others, of all nodes. Defaults to
	// 25 ms, at most a minute; where nodes listen, their pulses publish what is older than a second (half a
	// minute where nobody has read for five minutes). In a quiet system a node whose Listener is live
	// publishes a change at once all the same. Immediate publishes each in the statement that makes it: no delay, and a
	// notification for every write, which every listener pays for.
	InvalidationWindow time.Duration

	// MaxWindow bounds how far the window stretches by itself. A flush wakes every session of the database that listens; the
	// node that flushes sees by how late its own notification comes back what that costs, flushes less often when it comes late,
	// and again more often when it comes in time. Defaults to 500 ms, or InvalidationWindow where that is longer;
	// InvalidationWindow itself makes the window fixed. Stats.Window is the present one.
	MaxWindow time.Duration

	// Local is what this node keeps in memory. Defaults to localcache.New with 4096 entries and 64 MiB;
	// localcache.None turns it off.
	Local localcache.Cache

	// LocalTTL bounds how long an entry is kept in memory, however long it lives in the database. 0 is no bound. Without a
	// Listener it bounds how old a value may be that memory hands out.
	LocalTTL time.Duration

	// Guard lets one process of the fleet run the loader of a key. Defaults to AdvisoryLock; Lease is for pooled sessions.
	Guard Guard

	// LockTimeout is how long GetOrSet waits for another process's load before it loads by itself. Defaults to 5 s.
	LockTimeout time.Duration

	// LoadTimeout ends a loader that runs too long. Defaults to 30 s, at most MaxLoadTimeout.
	LoadTimeout time.Duration

	// Refresh fetches keys again, all of one notification in one statement, when they change while they are being read
	// here. Hot keys that are written often then stay in memory. A key that was not read since is fetched for its next
	// eleven changes, and then no more.
	Refresh bool

	// PrepareStatements prepares each statement once a connection. It is for lib/pq, which else takes two round trips
	// for one; pgx does it by itself. Never set it behind a transaction pooler: a connection's statements are then not
	// its own. Set MaxIdleConns to MaxOpenConns with it: database/sql chooses the connection of a prepared statement, so the
	// cache can't keep one for the next statement, and a pool with two idle connections connects anew all the time.
	PrepareStatements bool

	// Timeout bounds every statement of a call, beside the context of the call, but for those in a transaction (WithTx), which
	// ctx alone bounds. Defaults to 5 s.
	Timeout time.Duration

	// MaxValueBytes is the largest encoded value. Defaults to 8 MiB. Larger ones that others have stored are not read: they
	// count as values that do not decode.
	MaxValueBytes int

	// CleanupInterval is how often one node of the fleet removes expired rows. Defaults to a minute; negative leaves it
	// to calls of Cleanup, and to other nodes. A role that may only read needs it negative, see Ready.
	CleanupInterval time.Duration

	// CleanupBatch is how many rows one statement removes at most. Defaults to 500.
	CleanupBatch int

	// MaxRows and MaxBytes bound the table: the janitor removes what was written longest ago, live or not, until it
	// keeps to them. Between two rounds of the janitor it may grow beyond. 0 means no bound.
	MaxRows  int64
	MaxBytes int64

	// OnInvalidate, if not nil, is called with the keys that are invalidated, for memory that the program has of its own beside the
	// cache's. It is called for every invalidation that this node receives, its own writes included, in their order; and
	// after this cache has applied it, so that a Get in the call returns nothing older. keys are those of the rows, with their
	// namespaces; several invalidations may come in one call, and a key more than once.
	//
	// nil keys say that anything may have changed: drop everything. That is so when the listener has come up, the first time
	// too, or was lost; when a pulse fails, until one succeeds; after a Clear, a TRUNCATE, a crash of the server or a message
	// that can't be understood; where a message hides a key (HideKeys) that this node holds nothing of, which is most of them
	// where it holds little; and where more than 4096 keys wait because a call takes long.
	//
	// What nobody publishes is not reported: that a row has expired, and that a key without a row was stored. So the program's
	// memory must not outlive the TTL, nor remember that there is nothing under a key.
	//
	// Calls come one after the other from a goroutine of their own and keep nobody waiting. A panic is logged. Close waits
	// for the call that runs, so that call must not call Close, and no other begins. It needs a Listener.
	OnInvalidate func(keys []string)

	// Observer is shown what the cache does, for metrics and traces: see telemetry/otel and telemetry/prometheus. nil costs nothing.
	Observer Observer

	// Logger gets what no call returns: listeners lost and found, values that do not decode. Defaults to
	// slog.Default.
	Logger *slog.Logger
}

// withDefaults returns the options with defaults in place of zero values.
func (o Options) withDefaults() Options {
	if o.Codec == nil {
		o.Codec = codec.JSON{}
	}
	if o.Local == nil {
		o.Local = localcache.New(localcache.Options{})
	}
	if o.Guard == nil {
		o.Guard = AdvisoryLock()
	}
	if o.Logger == nil {
		o.Logger = slog.Default()
	}
	for _, d := range []struct {
		option *time.Duration
		def    time.Duration
	}{
		{&o.DefaultTTL, DefaultTTL},
		{&o.InvalidationWindow, DefaultWindow},
		{&o.LockTimeout, DefaultLockTimeout},
		{&o.LoadTimeout, DefaultLoadTimeout},
		{&o.Timeout, DefaultTimeout},
		{&o.CleanupInterval, DefaultCleanupInterval},
	} {
		if *d.option == 0 {
			*d.option = d.def
		}
	}
	if o.MaxWindow == 0 {
		o.MaxWindow = max(DefaultMaxWindow, o.InvalidationWindow)
	}
	if o.CleanupBatch == 0 {
		o.CleanupBatch = DefaultCleanupBatch
	}
	if o.MaxValueBytes == 0 {
		o.MaxValueBytes = DefaultMaxValueBytes
	}
	return o
}

// minConns is what a pool needs for a listener, the session (flushes, pulses and locks share it), and two callers beside them: one
// that waits for a load and the loader itself.
const minConns = 4

// validate returns an error that names the option and the reason. o has its defaults.
func (o Options) validate(db *sql.DB) (store.Names, error) {
	if db == nil {
		return store.Names{}, errors.New("pgcache: db is nil")
	}
	names, err := store.Names{Schema: o.Schema, Prefix: o.Prefix, Channel: o.Channel, Durable: o.Durable, Hidden: o.HideKeys}.Resolve()
	if err != nil {
		return names, fmt.Errorf("pgcache: option %w", err)
	}
	if err := codec.Validate(o.Codec); err != nil {
		return names, fmt.Errorf("pgcache: option Codec: %w", err)
	}
	if l, ok := o.Local.(interface{ Err() error }); ok && l.Err() != nil {
		return names, fmt.Errorf("pgcache: option Local: %w", l.Err())
	}
	if _, err := ttl(o.DefaultTTL); err != nil {
		return names, fmt.Errorf("pgcache: option DefaultTTL: %w", err)
	}
	refuse := func(bad bool, option string, is any, reason string) {
		if bad && err == nil {
			err = fmt.Errorf("pgcache: option %s is %v: %s", option, is, reason)
		}
	}
	refuse(o.InvalidationWindow < 0 && o.InvalidationWindow != Immediate, "InvalidationWindow", o.InvalidationWindow, "must be positive, 0 for the default, or Immediate")
	refuse(o.InvalidationWindow > 0 && o.InvalidationWindow < time.Millisecond, "InvalidationWindow", o.InvalidationWindow, "must be at least a millisecond, or Immediate")
	refuse(o.InvalidationWindow > time.Minute, "InvalidationWindow", o.InvalidationWindow, "must be at most a minute")
	refuse(o.MaxWindow < o.InvalidationWindow, "MaxWindow", o.MaxWindow, "must not be shorter than InvalidationWindow")
	refuse(o.MaxWindow < 0 || o.MaxWindow > time.Minute, "MaxWindow", o.MaxWindow, "must be at most a minute")
	refuse(o.LocalTTL < 0, "LocalTTL", o.LocalTTL, "must not be negative")
	refuse(o.LockTimeout < 0, "LockTimeout", o.LockTimeout, "must not be negative")
	refuse(o.LoadTimeout < 0 || o.LoadTimeout > MaxLoadTimeout, "LoadTimeout", o.LoadTimeout, fmt.Sprint("must be at most ", MaxLoadTimeout))
	refuse(o.Timeout < 0, "Timeout", o.Timeout, "must not be negative")
	refuse(o.CleanupBatch < 0, "CleanupBatch", o.CleanupBatch, "must not be negative")
	refuse(o.MaxValueBytes < 0 || o.MaxValueBytes > 512<<20, "MaxValueBytes", o.MaxValueBytes, "must be at most 512 MiB")
	refuse(o.MaxRows < 0, "MaxRows", o.MaxRows, "must not be negative")
	refuse(o.MaxBytes < 0, "MaxBytes", o.MaxBytes, "must not be negative")
	refuse(o.CleanupInterval < 0 && (o.MaxRows > 0 || o.MaxBytes > 0), "CleanupInterval", o.CleanupInterval, "without the janitor nobody keeps to MaxRows and MaxBytes")
	refuse(o.LocalTTL > 0 && o.Local == localcache.None(), "LocalTTL", o.LocalTTL, "there is no local cache to bound: Local is localcache.None()")
	refuse(o.OnInvalidate != nil && o.Listener == nil, "OnInvalidate", "set", "without a Listener nothing would call it")
	_, session := o.Guard.(advisoryLock) // Guards of others have their own ways
	if limit := db.Stats().MaxOpenConnections; limit > 0 && limit < minConns && (o.Listener != nil || session) {
		err = fmt.Errorf("pgcache: the pool has MaxOpenConns %d, too few: the listener and the lock session keep one connection each, "+
			"and a caller and its loader need two; call SetMaxOpenConns(%d) or more, or do without (Listener nil, and Guard Lease() or NoGuard())", limit, minConns)
	}
	return names, err
}
