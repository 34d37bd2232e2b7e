package store_test

import (
	"context"
	"database/sql"
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
)

// exact are transactions that remove one tag and store entries that have it, and what each entry's statement has seen.
type exact struct {
	*watched
	t         *testing.T
	rng       *rand.Rand
	txs       []*exactTx
	removals  int
	committed map[int]bool
	saw       map[string]map[int]bool // by the committed entry
	steps     []string
}

// exactTx is a transaction that is open.
type exactTx struct {
	*sql.Tx
	id      int
	fixed   bool         // its snapshot is that of its beginning
	saw     map[int]bool // that snapshot
	own     []int        // its removals
	entries map[string]map[int]bool
}

// TestGroupsAreExact: whatever transactions of all kinds do beside each other, exactly those entries are dead whose statement has
// not seen a removal that has committed.
func TestGroupsAreExact(t *testing.T) {
	t.Parallel()
	for seed := range uint64(6) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			x := &exact{watched: watch(t), t: t, rng: rand.New(rand.NewPCG(seed, 1)), committed: map[int]bool{}, saw: map[string]map[int]bool{}}
			for range 300 {
				x.step()
				x.check()
			}
			for len(x.txs) > 0 {
				x.end(x.txs[0], true)
				x.check()
			}
		})
	}
}

func (x *exact) did(format string, args ...any) {
	x.steps = append(x.steps, fmt.Sprintf(format, args...))
}

type execer interface {
	ExecContext(ctx context.Context, query string, args ...any) (sql.Result, error)
}

// do does query, in which %s is the schema.
func (x *exact) do(on execer, query string, args ...any) {
	x.t.Helper()
	if _, err := on.ExecContext(x.t.Context(), fmt.Sprintf(query, x.Names.Schema), args...); err != nil {
		x.t.Fatal(err, x.steps)
	}
}

func (x *exact) step() {
	kind := x.rng.IntN(12)
	switch {
	case kind == 0 || kind < 3 && len(x.txs) == 0:
		if len(x.txs) == 4 {
			return
		}
		tx := &exactTx{id: len(x.steps), fixed: x.rng.IntN(3) == 0, entries: map[string]map[int]bool{}}
		level := sql.LevelReadCommitted
		if tx.fixed {
			level = sql.LevelRepeatableRead
		}
		var err error
		if tx.Tx, err = x.db.BeginTx(x.t.Context(), &sql.TxOptions{Isolation: level}); err != nil {
			x.t.Fatal(err)
		}
		x.do(tx, "SELECT 1 FROM %s.s_cache_entries LIMIT 1")
		tx.saw = x.seen(nil)
		if x.rng.IntN(2) == 0 {
			x.do(tx, "SELECT pg_current_xact_id() /* %s */")
		}
		x.did("begin %d fixed=%v", tx.id, tx.fixed)
		x.txs = append(x.txs, tx)
	case kind == 1:
		x.did("compact")
		x.do(x.db, "SELECT %s.s_cache_compact('{tg}')")
	case kind == 2 || kind < 10 && len(x.txs) == 0:
		x.removals++
		x.did("removal %d", x.removals)
		x.do(x.db, x.removal())
		x.committed[x.removals] = true
	case kind >= 10:
		x.set(x.db, nil, x.saw)
	case kind == 3:
		x.end(x.txs[x.rng.IntN(len(x.txs))], x.rng.IntN(3) > 0)
	case kind < 7:
		x.remove(x.txs[x.rng.IntN(len(x.txs))])
	default:
		tx := x.txs[x.rng.IntN(len(x.txs))]
		x.set(tx, tx, tx.entries)
	}
}

// removal is the statement of a removal, or that of a watched table, which replaces no record.
func (x *exact) removal() string {
	if x.rng.IntN(2) == 0 {
		return "INSERT INTO %s.s_cache_groups (kind, name) VALUES ('t', 'g')"
	}
	return "SELECT %s.s_cache_remove('t', '{g}', false)"
}

// seen is what a statement of tx sees.
func (x *exact) seen(tx *exactTx) map[int]bool {
	saw := map[int]bool{}
	from := x.committed
	if tx != nil && tx.fixed {
		from = tx.saw
	}
	for r := range from {
		saw[r] = true
	}
	if tx != nil {
		for _, r := range tx.own {
			saw[r] = true
		}
	}
	return saw
}

// remove is a removal in tx, sometimes in a subtransaction, and sometimes that is rolled back.
func (x *exact) remove(tx *exactTx) {
	x.removals++
	nested := x.rng.IntN(3)
	x.did("removal %d in %d, %d", x.removals, tx.id, nested)
	if nested > 0 {
		x.do(tx, "SAVEPOINT s /* %s */")
	}
	x.do(tx, x.removal())
	switch nested {
	case 1:
		x.do(tx, "RELEASE s /* %s */")
	case 2:
		x.do(tx, "ROLLBACK TO s /* %s */")
		return
	}
	tx.own = append(tx.own, x.removals)
}

// set stores an entry, and notes in entries what it has seen. tx is nil for a statement of its own.
func (x *exact) set(on execer, tx *exactTx, entries map[string]map[int]bool) {
	key := fmt.Sprint("k", len(x.steps))
	x.did("%s in %v", key, tx != nil)
	entries[key] = x.seen(tx)
	x.do(on, "SELECT %s.s_cache_set('"+key+"', '1', tags => '{g}')")
}

func (x *exact) end(tx *exactTx, commit bool) {
	x.did("end %d, %v", tx.id, commit)
	x.txs = slices.DeleteFunc(x.txs, func(o *exactTx) bool { return o == tx })
	end := tx.Rollback
	if commit {
		end = tx.Commit
		for _, r := range tx.own {
			x.committed[r] = true
		}
		for key, saw := range tx.entries {
			x.saw[key] = saw
		}
	}
	if err := end(); err != nil {
		x.t.Fatal(err, x.steps)
	}
}

func (x *exact) check() {
	x.t.Helper()
	keys := make([]string, 0, len(x.saw))
	for key := range x.saw {
		keys = append(keys, key)
	}
	if len(keys) == 0 {
		return
	}
	rows, err := x.GetMany(x.t.Context(), keys)
	if err != nil {
		x.t.Fatal(err)
	}
	for i, r := range rows {
		live := true
		for removal := range x.committed {
			live = live && x.saw[keys[i]][removal]
		}
		if r.Live() != live {
			x.t.Fatalf("%s, which has seen %v: live %v, want %v\n%q", keys[i], x.saw[keys[i]], r.Live(), live, x.steps)
		}
	}
}
