package pgcache

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/pgcache/go/internal/migrate"
	"github.com/pgcache/go/internal/redact"
	"github.com/pgcache/go/internal/sqlerr"
	"github.com/pgcache/go/internal/store"
)

// Errors that say what went wrong, to be found with errors.Is. Those that carry more, such as SchemaError, RightsError,
// ShardMapError and PanicError, are types, to be found with errors.As.
var (
	// ErrNotFound is for loaders to say that there is nothing under the key. GetOrSet returns it as it is.
	ErrNotFound = errors.New("not found")

	// ErrClosed is returned by every method after Close.
	ErrClosed = errors.New("cache is closed")

	// ErrInvalidKey is returned for a key that is empty, longer than MaxKeyBytes with its namespace, not valid UTF-8, or
	// has a NUL, and for a Namespace that is no valid key, has a ':' or is longer than half of MaxKeyBytes; before any SQL.
	ErrInvalidKey = errors.New("invalid key")

	// ErrInvalidTag is returned for a tag that is empty, longer than MaxTagBytes, not valid UTF-8, or has a NUL, and for more than
	// MaxTags of an entry; before any SQL.
	ErrInvalidTag = errors.New("invalid tag")

	// ErrInvalidTTL is returned for a negative TTL other than NoExpiry, and for ExpiresAt of the zero time.
	ErrInvalidTTL = errors.New("invalid TTL")

	// ErrInvalidOption is returned by calls whose options, or whose view's, can't work.
	ErrInvalidOption = errors.New("invalid option")

	// ErrValueTooLarge is returned for a value that is longer than MaxValueBytes when encoded; before any SQL.
	ErrValueTooLarge = errors.New("value too large")

	// ErrNotMigrated says that the cache's tables are not there: run Migrate.
	ErrNotMigrated = errors.New("the cache's tables are not in this database: run Migrate once, and look at Schema, Prefix and search_path")

	// ErrPoolExhausted says that no connection of the pool became free within Timeout: nothing was sent. MaxOpenConns (or
	// pgxpool's MaxConns) is too small, or connections are held for long.
	ErrPoolExhausted = errors.New("no free connection in the pool: MaxOpenConns (or pgxpool's MaxConns) is too small, or connections are held")

	// ErrRecursiveLoad is returned by GetOrSet and GetOrSetMany from within a loader, where the load would wait for itself,
	// directly or through other loaders.
	ErrRecursiveLoad = errors.New("the loader asks for the key that it is loading")

	// ErrLoadTimeout says that the loader took longer than LoadTimeout, or that the caller has waited for HardTimeout, or, in
	// Result.Err, for SoftTimeout.
	ErrLoadTimeout = errors.New("the loader took longer than LoadTimeout")

	// ErrLoaderExited says that the loader ended its goroutine with runtime.Goexit.
	ErrLoaderExited = errors.New("the loader ended its goroutine")
)

// SchemaError says that the database's schema is of another version than this release works with, or was migrated for
// another channel.
type SchemaError struct {
	Have, Want               int
	HaveChannel, WantChannel string // they differ if the versions are equal
}

// Error says what to do about it.
func (e *SchemaError) Error() string {
	switch {
	case e.Have < e.Want:
		return fmt.Sprintf("the schema in the database has version %d, this release needs %d: run Migrate", e.Have, e.Want)
	case e.Have > e.Want:
		return fmt.Sprintf("the schema in the database has version %d, this release knows only %d: use a newer release", e.Have, e.Want)
	}
	return fmt.Sprintf("the schema in the database publishes on channel %q, this cache listens on %q: all nodes need the same Channel", e.HaveChannel, e.WantChannel)
}

// PanicError is what every caller gets whose loader panicked.
type PanicError struct {
	Value any    // what it panicked with
	Stack []byte // where
}

// Error shows the value and the stack.
func (e *PanicError) Error() string {
	return fmt.Sprintf("the loader panicked: %v\n\n%s", e.Value, e.Stack)
}

// Unwrap returns the value, if it was an error.
func (e *PanicError) Unwrap() error {
	err, _ := e.Value.(error)
	return err
}

// Error says which operation failed, for which key, and why.
type Error struct {
	Op  string // "get", "set", ...
	Key string // the key of the row, with its namespace; "" for operations of several keys or none
	Err error
}

// Error reads: pgcache: get "user:42": cause.
func (e *Error) Error() string {
	if e.Key == "" {
		return "pgcache: " + e.Op + ": " + e.Err.Error()
	}
	return fmt.Sprintf("pgcache: %s %.200q: %v", e.Op, e.Key, e.Err)
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Err }

// errEncoding is the error of every call where the server would take a key for another text than this node does. Nodes with another
// encoding, watched tables and the hashes of HideKeys would then mean other keys, and what one removes another would go on serving.
var errEncoding = errors.New("text is not passed as UTF-8: set client_encoding to UTF8")

// errOtherServer is why the listener is restarted after a failover.
var errOtherServer = errors.New("rows come from another server than notifications")

// fail wraps err for the caller, without the values that it may quote; nil stays nil.
func fail(op string, k string, err error) error { return failLoad(op, k, redact.Database(err)) }

// failLoad is fail for the error of a loader, or of another function of the caller's, whose text is shown as it is. An *Error of a cache
// that it used is not wrapped again.
func failLoad(op string, k string, err error) error {
	if err == nil {
		return nil
	}
	var already *Error
	if errors.As(err, &already) {
		return err
	}
	return &Error{op, k, err}
}

// explain says what the error of a statement means to the caller. ctx is the caller's, not that of the statement, which Timeout ends.
func (c *Cache) explain(ctx context.Context, err error) error {
	return c.explainWithin(ctx, err, "Timeout", c.opts.Timeout)
}

// explainWithin is explain for a statement that ends after d. The error calls that bound timeout.
func (c *Cache) explainWithin(ctx context.Context, err error, timeout string, d time.Duration) error {
	err = redact.Database(err)
	var none *store.NoConnectionError
	var writers *store.WritersError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &none):
		return fmt.Errorf("%w (waited up to %s, %v): %w", ErrPoolExhausted, timeout, d, none.Err)
	case ended(ctx) != nil && !errors.Is(err, ended(ctx)):
		return fmt.Errorf("%w (%w)", ended(ctx), err)
	case ended(ctx) == nil && errors.As(err, &writers):
		return fmt.Errorf("not done within %s (%v): %w", timeout, d, err)
	case ended(ctx) == nil && (errors.Is(err, context.DeadlineExceeded) || sqlerr.Canceled(err)):
		return fmt.Errorf("no answer from the database within %s (%v), or it cut the statement off: %w", timeout, d, err)
	case sqlerr.NoObject(err):
		c.schema.unknown() // the tables were dropped: the next call looks again
		return fmt.Errorf("%w (%w)", ErrNotMigrated, err)
	}
	return c.explainDenied(err)
}

// explainDenied says where to look for the rights that a statement was refused for.
func (c *Cache) explainDenied(err error) error {
	if sqlerr.Denied(err) {
		c.schema.proven.Store(false)
		return fmt.Errorf("%w: Ready names every right that this role lacks, docs/rights.md says what it is for", err)
	}
	return err
}

// ended is why ctx has ended. A socket's timer may go off a moment before the context's own.
func ended(ctx context.Context) error {
	if deadline, ok := ctx.Deadline(); ok && ctx.Err() == nil && !time.Now().Before(deadline) {
		return context.DeadlineExceeded
	}
	return ctx.Err()
}

// isPermanent says that err won't go away by trying again: GetOrSet returns it, where after other errors of the database it loads
// and returns the value without storing it.
func isPermanent(err error) bool {
	var schema *SchemaError
	var persistence *migrate.PersistenceError
	var shards *ShardMapError
	return errors.Is(err, errEncoding) || errors.As(err, &shards) || errors.Is(err, ErrClosed) || errors.Is(err, ErrNotMigrated) || errors.As(err, &schema) || errors.As(err, &persistence) || sqlerr.Config(err)
}
