package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"maps"
	"reflect"
	"slices"

	"github.com/pgcache/go/internal/store"
)

// A Querier runs statements in a transaction of the caller's. *sql.Tx is one, *sql.Conn within a transaction too, and so are
// sqlx.Tx, the Tx field of bun.Tx, and the ConnPool of gorm's Statement. bun.Tx itself writes arguments into the SQL and does not
// work.
type Querier interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
	QueryContext(ctx context.Context, query string, args ...any) (*sql.Rows, error)
	QueryRowContext(ctx context.Context, query string, args ...any) *sql.Row
}

// Tx is a Cache within a transaction. What is written through it is committed or rolled back with everything else in the
// transaction (P8): nobody sees it before, and after a rollback no trace is left. The moment that Commit has returned, every
// Get on this node returns the new value or asks the database; the other nodes know a window and a notification later, as after
// a Set. A loader that began before the commit, on any node, can't store over it.
//
// The COMMIT leaves the changes in the change log and notifies nobody (with Immediate it notifies, and while the log takes more than
// 32 MiB), so it can also be prepared. For ten seconds after each write this node looks once a window whether the commit has come, and
// later once a second.
//
// From the first write of a key until this node knows that the transaction has ended, it asks the database for that key. After a
// rollback it learns within two seconds that it may keep the key in memory again. Until the transaction ends, others who write the
// very key wait for it, as for any row: Set and Delete elsewhere return an error after Options.Timeout. Nobody else waits.
//
// A Tx is as safe for concurrent use as its transaction: *sql.Tx is. Statements take as long as ctx allows. After an error of a
// write roll the transaction back: whether the write was done is unknown.
type Tx struct{ txView }

// TypedTx is a Typed view within a transaction, see [Tx].
type TypedTx[T any] struct {
	txView
	view *Typed[T]
}

// WithTx returns the cache within tx, which must be on the cache's database. It sends nothing. Where tx is nil, has ended, or is a
// pool (*sql.DB), each method of the Tx returns an error.
func (c *Cache) WithTx(tx Querier) *Tx { return &Tx{txView{view: c.base, tx: tx}} }

// WithTx returns the view within tx, see [Cache.WithTx].
func (t *Typed[T]) WithTx(tx Querier) *TypedTx[T] {
	return &TypedTx[T]{txView{view: t.view, tx: tx}, t}
}

// Set stores value under key when the transaction commits. The TTL counts from now.
func (x *Tx) Set(ctx context.Context, key string, value any, opts ...Option) error {
	return x.set(ctx, key, value, opts)
}

// Delete removes keys when the transaction commits; a key without an entry is no error.
func (x *Tx) Delete(ctx context.Context, keys ...string) error { return x.delete(ctx, keys) }

// Get reads the value under key into dst as the transaction sees it: its own writes included, and under REPEATABLE READ from
// its snapshot. It never looks into memory and leaves nothing there.
func (x *Tx) Get(ctx context.Context, key string, dst any) (found bool, err error) {
	if err := checkDst(dst); err != nil {
		return false, fail("get", key, err)
	}
	return x.get(ctx, key, dst)
}

// Set stores value under key when the transaction commits. The TTL counts from now.
func (x *TypedTx[T]) Set(ctx context.Context, key string, value T, opts ...Option) error {
	return x.set(ctx, key, value, opts)
}

// SetMany stores values when the transaction commits.
func (x *TypedTx[T]) SetMany(ctx context.Context, values map[string]T, opts ...Option) error {
	const op = "set many"
	if err := x.usable(op); err != nil {
		return err
	}
	with, err := x.apply(opts)
	if err != nil {
		return fail(op, "", err)
	}
	ws := make([]write, 0, len(values))
	for _, key := range slices.Sorted(maps.Keys(values)) {
		if err := x.begin(op, key); err != nil {
			return err
		}
		data, err := with.encode(x.key(key), values[key])
		if err != nil {
			return fail(op, x.key(key).Row(), err)
		}
		ws = append(ws, write{x.key(key), data})
	}
	err = x.with(with).write(ctx, ws)
	if err == nil && !x.c.null {
		x.stats.sets.Add(uint64(len(ws)))
	}
	return fail(op, "", err)
}

// Delete removes keys when the transaction commits; a key without an entry is no error.
func (x *TypedTx[T]) Delete(ctx context.Context, keys ...string) error { return x.delete(ctx, keys) }

// Get reads the value under key as the transaction sees it, see [Tx.Get].
func (x *TypedTx[T]) Get(ctx context.Context, key string) (v T, found bool, err error) {
	found, err = x.get(ctx, key, &v)
	return v, found, err
}

// txView is a view within a transaction.
type txView struct {
	view
	tx Querier
}

func (x txView) with(v view) txView { return txView{v, x.tx} }

var (
	errNilTx  = errors.New("the transaction is nil")
	errPoolTx = errors.New("WithTx was given a pool, whose statements are committed one by one: give it the transaction")
)

// checkTx refuses what can't be a transaction. A pool has the methods of a Querier too; a deletion through it would be committed before
// the caller's data is.
func (x txView) checkTx() error {
	if x.tx == nil || reflect.ValueOf(x.tx).Kind() == reflect.Pointer && reflect.ValueOf(x.tx).IsNil() {
		return errNilTx
	}
	if _, pool := x.tx.(interface{ SetMaxOpenConns(n int) }); pool {
		return errPoolTx
	}
	return nil
}

// usable checks what does not depend on a key: the transaction, the view and the cache.
func (x txView) usable(op string) error {
	if err := x.checkTx(); err != nil {
		return fail(op, "", err)
	}
	return errors.Join(fail(op, "", x.err), x.c.closedErr(op))
}

// begin begins an operation of one key.
func (x txView) begin(op, key string) error {
	if err := x.checkTx(); err != nil {
		return fail(op, key, err)
	}
	return x.enter(op, key)
}

func (x txView) set(ctx context.Context, key string, value any, opts []Option) error {
	const op = "set"
	if err := x.begin(op, key); err != nil {
		return err
	}
	k := x.key(key)
	with, err := x.apply(opts)
	if err != nil {
		return fail(op, k.Row(), err)
	}
	data, err := with.encode(k, value)
	if err != nil {
		return fail(op, k.Row(), err)
	}
	if err := x.with(with).write(ctx, []write{{k, data}}); err != nil {
		return fail(op, k.Row(), err)
	}
	if !x.c.null {
		x.stats.sets.Add(1)
	}
	return nil
}

func (x txView) delete(ctx context.Context, keys []string) error {
	const op = "delete"
	if len(keys) == 0 {
		return x.usable(op)
	}
	var ws []write
	for _, key := range slices.Compact(slices.Sorted(slices.Values(keys))) {
		if err := x.begin(op, key); err != nil {
			return err
		}
		ws = append(ws, write{key: x.key(key)})
	}
	name := ""
	if len(ws) == 1 {
		name = ws[0].key.Row()
	}
	if err := x.write(ctx, ws); err != nil {
		return fail(op, name, err)
	}
	if !x.c.null {
		x.stats.deletes.Add(uint64(len(ws)))
	}
	return nil
}

func (x txView) get(ctx context.Context, key string, dst any) (found bool, err error) {
	const op = "get"
	if err := x.begin(op, key); err != nil {
		return false, err
	}
	c, k := x.c, x.key(key)
	if c.null {
		return false, nil
	}
	if err := c.check(ctx); err != nil {
		return false, fail(op, k.Row(), err)
	}
	row, err := c.store.GetTx(ctx, x.tx, k.Row())
	if err != nil {
		return false, fail(op, k.Row(), c.explainTx(err))
	}
	c.checkTxServer(row.Server)
	if row.Live() && x.decode(k, row.Codec, row.Value, dst) {
		x.stats.remoteHits.Add(1)
		return true, nil
	}
	x.stats.misses.Add(1)
	return false, nil
}

// write writes rows in the transaction; one without data is a tombstone. What memory holds of their keys goes, and nothing of them
// is kept until the outcome of the transaction is known.
func (x txView) write(ctx context.Context, ws []write) error {
	c := x.c
	if len(ws) == 0 || c.null {
		return nil
	}
	if err := c.check(ctx); err != nil {
		return err
	}
	rows := make([]store.Write, len(ws))
	writes := make([]txPart, len(ws))
	_, over := x.life() // ExpiresAt has passed: a tombstone is written
	for i, w := range ws {
		if rows[i] = x.newWrite(w.key, w.data); w.data == nil || over {
			makeTombstone(&rows[i])
		}
		writes[i] = c.local.BeginTxWrite(w.key, rows[i].Version)
	}
	written := false
	defer func() {
		if !written { // also if a driver panics
			for _, w := range writes {
				w.End()
			}
		}
	}()
	o := x.observe(&ctx, "write in a transaction", len(ws))
	inline := c.window.InlineTx()
	out, err := c.store.PutTx(ctx, x.tx, rows, inline)
	o.end(nil, &err)
	if err != nil {
		return c.explainTx(err)
	}
	written = true
	c.checkTxServer(out.Server)
	c.txs.add(c, out.XID, writes, inline)
	return nil
}

// explainTx turns what came of a statement in the caller's transaction into what it means to the caller.
func (c *Cache) explainTx(err error) error {
	if errors.Is(err, sql.ErrTxDone) {
		return errTxDone
	}
	return c.explainDenied(err)
}

// errTxDone says whose mistake it was.
var errTxDone = fmt.Errorf("the caller's transaction: %w", sql.ErrTxDone)
