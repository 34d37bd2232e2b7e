package pgcache

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"slices"

	"github.com/pgcache/go/internal/shardmap"
	"github.com/pgcache/go/internal/store"
)

// This file records maps on the servers: Migrate the first, Move all later ones.

// Migrate creates or updates the tables of every shard, like [Cache.Migrate], and records the map of all given shards where none is
// recorded yet. A shard that was added since gets the map that the others have: it is in none until a Move. It needs the
// rights of the migrating role where there is something to do, and all shards.
func (s *Shards) Migrate(ctx context.Context) error {
	if err := s.each(s.all(), func(i int) error { return s.named(i, s.shards[i].c.Migrate(ctx)) }); err != nil || s.allNull {
		return err
	}
	states, last, err := s.states(ctx, s.all())
	if err != nil {
		return fail("migrate", "", err)
	}
	if last.Name == "" {
		last = store.Shard{Epoch: 2, Map: s.given()}
	}
	for _, i := range s.byName(last.Map) {
		if states[i].Name != "" {
			continue
		}
		to := last
		to.Name = s.shards[i].name
		if _, err := s.shards[i].c.store.StepShard(ctx, to, 0, 0); err != nil {
			return fail("migrate", "", s.named(i, err))
		}
	}
	// Another process may have recorded another map at the same time: ask returns an error then.
	return fail("migrate", "", s.each(s.all(), func(i int) error {
		s.shards[i].failed.Store(nil)
		return s.named(i, s.ask(ctx, s.shards[i]))
	}))
}

// states reads what the servers have recorded, and returns the latest of it as last.
func (s *Shards) states(ctx context.Context, list []int) (states map[int]store.Shard, last store.Shard, err error) {
	read := make([]store.Shard, len(s.shards))
	err = s.each(list, func(i int) (err error) {
		sh := s.shards[i]
		ctx, cancel := sh.c.statement(ctx)
		defer cancel()
		read[i], err = sh.c.store.Shard(ctx, sh.c.db)
		if errors.Is(err, sql.ErrNoRows) {
			err = ErrNotMigrated
		}
		if err == nil && read[i].Name != "" && read[i].Name != sh.name {
			err = &ShardMapError{Shard: sh.name, Recorded: read[i].Map, Given: s.given(), Reason: fmt.Sprintf("the server of shard %q is recorded as %q", sh.name, read[i].Name)}
		}
		return s.named(i, err)
	})
	states = map[int]store.Shard{}
	for _, i := range list {
		if states[i] = read[i]; read[i].Epoch > last.Epoch {
			last = read[i]
		}
	}
	return states, last, err
}

// byName returns all shards sorted by name, those of a map first. Maps are recorded in this order, so that of two processes that record at
// the same time one fails at the first server.
func (s *Shards) byName(text string) []int {
	first, _ := shardmap.Parse(text)
	list := s.all()
	slices.SortFunc(list, func(a, b int) int {
		na, nb := s.shards[a].name, s.shards[b].name
		if in := slices.Contains(first, na); in != slices.Contains(first, nb) {
			if in {
				return -1
			}
			return 1
		}
		if na < nb {
			return -1
		}
		return 1
	})
	return list
}

// Move makes the shards with these names the map, while the fleet runs: others that the map has now give their keys away, new ones
// take their share, and no other key moves. Every node must have been given all shards of both maps before; a node that was not fails
// the keys that are concerned. It needs the rights of the migrating role, and that all shards that were given can be reached.
//
// For some seconds the keys that move are held nowhere, see Shards. Move itself takes longer where servers have many rows to look through:
// before those seconds it deletes rows of keys that a server once had and now gets back, and afterwards those of keys that a server has
// given away; and it waits for the transactions that have written to the cache of a server that takes keys over. After an error, or
// where the process dies, keys may be left moving until Move is called again: with the same names it goes on, with those of the map that
// was in force it goes back. Two Moves at the same time with the same names do one move together; with other names one of them gets an
// error.
func (s *Shards) Move(ctx context.Context, names ...string) error {
	return fail("move", "", s.move(ctx, names))
}

func (s *Shards) move(ctx context.Context, names []string) error {
	if err := shardmap.Check(names); err != nil {
		return err
	}
	for _, name := range names {
		if s.index(name) < 0 {
			return fmt.Errorf("there is no shard %q among those that NewShards was given", name)
		}
	}
	if s.allNull {
		s.install(&routes{epoch: s.routes.Load().epoch + 1, now: s.table(names), members: s.indexes(names), names: slices.Sorted(slices.Values(names))})
		return nil
	}
	_, last, err := s.states(ctx, s.all())
	if err != nil {
		return err
	}
	r, err := s.routesOf(last)
	switch {
	case last.Name == "":
		return &ShardMapError{Shard: s.shards[0].name, Given: s.given(), Reason: "no map of shards is recorded, run Shards.Migrate"}
	case err != nil:
		return err
	case r.err != nil:
		return &ShardMapError{Shard: last.Name, Recorded: last.Map, Given: s.given(), Reason: r.err.Error()}
	}
	// A step that this node has seen and the servers have lost is passed over: others may have seen it, too.
	if own := s.routes.Load(); own != nil && own.epoch > last.Epoch {
		last.Epoch += (own.epoch - last.Epoch + 1) / 2 * 2
	}
	m := move{s: s, old: r.now, from: last.Map, to: shardmap.Text(names), table: s.table(names), epoch: last.Epoch, list: s.byName(last.Map)}
	return m.run(ctx, last)
}

// move is a Move that is under way.
type move struct {
	s          *Shards
	list       []int           // all shards that were given, in the order in which they are recorded
	from, to   string          // the map in force and the new one, as they are recorded
	old, table *shardmap.Table // the same two maps
	epoch      int64           // odd once keys move
}

func (m *move) run(ctx context.Context, last store.Shard) error {
	switch {
	case last.Next == "" && last.Map == m.to:
		// It was done. The process that did it may have died before all servers had it recorded, or before sweep.
		if err := m.record(ctx, store.Shard{Epoch: m.epoch, Map: m.to}); err != nil {
			return err
		}
		return m.sweep(ctx)
	case last.Next == "":
		// Servers that had the keys once delete what they have left of them, while nobody uses the new places.
		if err := m.prepare(ctx); err != nil {
			return err
		}
		m.epoch++
	case last.Next == m.to: // an earlier Move has begun it
		if err := m.prepare(ctx); err != nil {
			return err
		}
	case last.Map == m.to:
		// Back to the map in force. Nothing is to be prepared: writes of moving keys have deleted them on their old shards, too.
	default:
		return fmt.Errorf("keys are moving from %s to %s: go on with that, or back, first", last.Map, last.Next)
	}
	moving := store.Shard{Epoch: m.epoch, Map: m.from, Next: m.to}
	if last.Next != "" {
		moving.Next = last.Next
	}
	if err := m.record(ctx, moving); err != nil {
		return err
	}
	// By now no server grants a lease by the epoch before. Those that were granted end.
	pauseFor(ctx, shardWait, nil)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A server that has failed over meanwhile may have lost the step.
	states, _, err := m.s.states(ctx, m.list)
	if err != nil {
		return err
	}
	for _, i := range m.list {
		if states[i].Epoch < m.epoch {
			return fmt.Errorf("shard %q has lost what was recorded, as by a failover: move again", m.s.shards[i].name)
		}
	}
	m.epoch++
	if err := m.record(ctx, store.Shard{Epoch: m.epoch, Map: m.to}); err != nil {
		return err
	}
	return m.sweep(ctx)
}

// record records a state on all servers, in their order.
func (m *move) record(ctx context.Context, to store.Shard) error {
	for _, i := range m.list {
		sh := m.s.shards[i]
		to.Name = sh.name
		statement, cancel := sh.c.statement(ctx)
		// Any earlier epoch may be recorded: a server that is not in the old map may have missed steps.
		_, err := sh.c.store.StepShard(statement, to, 0, to.Epoch-1)
		var have store.Shard
		if err == nil {
			have, err = sh.c.store.Shard(statement, sh.c.db)
		}
		cancel()
		if err != nil {
			return m.s.named(i, sh.c.explain(ctx, err))
		}
		if have != to {
			return fmt.Errorf("shard %q: another move is under way: it has epoch %d, %s to %s", sh.name, have.Epoch, have.Map, have.Next)
		}
		if err := m.s.ask(ctx, sh); err != nil {
			return m.s.named(i, err)
		}
	}
	return nil
}

// prepare removes from the servers that get keys what they have left of these keys. They may have had them before:
//
//	epoch 2: B has k, a load of it begins on B
//	epoch 4: A has k, a Delete of it is done on A
//	epoch 6: B has k again: what is left of it on B, or what the load stores now, is from before the Delete
//
// So loads that have begun there are fenced, and then the rows of such keys are deleted.
func (m *move) prepare(ctx context.Context) error {
	return m.s.each(m.list, func(i int) error {
		takes := func(slot uint64) bool { return int(m.table[slot]) == i && int(m.old[slot]) != i }
		if !m.anySlot(takes) {
			return nil
		}
		if err := m.fence(ctx, i); err != nil {
			return m.s.named(i, err)
		}
		// Another Move may have done all of it meanwhile, and has recorded a later epoch then. A new server may have an earlier one.
		return m.s.named(i, m.purge(ctx, i, takes, func(epoch int64) bool { return epoch <= m.epoch }))
	})
}

// fence keeps the loads that have begun on shard i from storing. It waits for the transactions that have written there as long as ctx lasts,
// and says so.
func (m *move) fence(ctx context.Context, i int) error {
	c := m.s.shards[i].c
	for {
		waited, cancel := c.statement(ctx)
		err := c.store.FenceLoads(waited)
		cancel()
		var writers *store.WritersError
		if !errors.As(err, &writers) || ctx.Err() != nil {
			return c.explain(ctx, err)
		}
		c.warn("keys move to a server when the transactions that have written to its cache have ended", "shard", m.s.shards[i].name, "virtualtransaction", writers.IDs)
	}
}

// sweep removes from the servers the keys that they have given away. Nobody reads them there any more; they only take space.
func (m *move) sweep(ctx context.Context) error {
	err := m.s.each(m.list, func(i int) error {
		gave := func(slot uint64) bool { return int(m.table[slot]) != i }
		return m.s.named(i, m.purge(ctx, i, gave, func(epoch int64) bool { return epoch == m.epoch }))
	})
	if err != nil {
		return fmt.Errorf("the keys have moved; what is left of them on their old shards goes when Move is called again, or when it expires: %w", err)
	}
	return nil
}

// anySlot says whether there is a slot that of picks.
func (m *move) anySlot(of func(slot uint64) bool) bool {
	for slot := range uint64(shardmap.Slots) {
		if of(slot) {
			return true
		}
	}
	return false
}

// purgePage is how many rows one statement looks at.
const purgePage = 1000

// purge deletes the rows of shard i whose slots of picks, as Delete does. Before each page it asks whether the epoch that the server has
// recorded still allows that: purge can take minutes, and another Move may bring keys to the shard meanwhile. That Move waits for longer
// than a page takes before these keys are used there.
func (m *move) purge(ctx context.Context, i int, of func(slot uint64) bool, may func(epoch int64) bool) error {
	c := m.s.shards[i].c
	for after := ""; ; {
		page, err := bounded(ctx, c, func(ctx context.Context) ([]string, error) { return c.store.ShardKeys(ctx, after, purgePage) })
		if err != nil {
			return c.explain(ctx, err)
		}
		gone := make([]write, 0, len(page))
		for _, row := range page {
			if k := keyOf(row); of(shardmap.Slot(hashOf(k))) {
				gone = append(gone, write{key: k})
			}
		}
		if len(gone) > 0 {
			have, err := bounded(ctx, c, func(ctx context.Context) (store.Shard, error) { return c.store.Shard(ctx, c.db) })
			if err != nil {
				return c.explain(ctx, err)
			}
			if !may(have.Epoch) {
				return fmt.Errorf("another move has begun meanwhile: it has epoch %d, %s to %s", have.Epoch, have.Map, have.Next)
			}
			if err := c.base.write(ctx, gone); err != nil {
				return err
			}
		}
		if len(page) < purgePage {
			return nil
		}
		after = page[len(page)-1]
	}
}
