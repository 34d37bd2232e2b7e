package main

import (
	"slices"
	"time"

	"github.com/pgcache/go/pgcache"
)

// A plant is something wrong that plain SQL puts under a fleet at work. The checker must notice it and call it by the
// promise that it breaks.
//
// A row that is changed but keeps its version, or that goes, is noticed by the triggers on the table, and published: every
// node comes and reads it. A row with a new version and a stamp passes for a write of the library: nothing is published.
type plant struct {
	name    string
	kind    kind // of its key; "": one that no worker uses
	promise string
	put     func(p *plot) error
}

func (c config) plants() []plant {
	if !c.more {
		return basicPlants
	}
	return slices.DeleteFunc(append(slices.Clone(basicPlants), morePlants...), func(p plant) bool {
		return c.shards > 0 && (p.kind == fromTable || p.kind == "counter") // kinds that shards do not have
	})
}

// basicPlants are of single keys.
var basicPlants = []plant{
	{"a node keeps what was overwritten", "", "P1", func(p *plot) error {
		p.set(0)
		p.ask = func() {
			p.reader.get(p.ctx, p.key) // and keeps it, unless an invalidation was under way
			n := p.history().begin(p.writer.id, false, 0)
			if err := p.spoil("value = $2, version = version + 1, stamp = version + 1", p.history().valueOf(n)); err != nil {
				p.book.fail(err)
			}
			p.history().done(n)
		}
		return nil
	}},
	{"a node does not find its own write", "", "P3", func(p *plot) error {
		p.set(0)
		p.set(0)
		err := p.spoil("value = $2", p.history().valueOf(0))
		p.asked = p.writer
		return err
	}},
	{"a node goes back", "", "P4", func(p *plot) error {
		p.set(0)
		p.set(0)
		p.reader.get(p.ctx, p.key)
		return p.spoil("value = $2", p.history().valueOf(0))
	}},
	{"a value is lost", "", "P4", func(p *plot) error {
		p.set(0)
		p.reader.get(p.ctx, p.key)
		return p.exec("DELETE FROM " + p.table("cache_entries") + " WHERE key = $1")
	}},
	{"an old value is stored over a newer one", "", "P6", func(p *plot) error {
		p.set(0)
		p.set(0)
		return p.spoil("value = $2, version = version + 1, stamp = version + 1", p.history().valueOf(0))
	}},
	{"a value that nobody wrote", "", "P7", func(p *plot) error {
		p.set(0)
		v := p.history().valueOf(0)
		v.N++
		return p.spoil("value = $2", v)
	}},
	{"a value outlives its expiry", "", "P7", func(p *plot) error {
		p.set(time.Second)
		err := p.spoil("value = $2, expires_at = NULL", p.history().valueOf(0))
		time.Sleep(time.Second + 2*drift)
		return err
	}},
}

// morePlants are plants that take out rules of groups, transactions, watched tables, negative values and SetIfAbsent.
var morePlants = []plant{
	{"what was removed with its team lives on", "", "P3", func(p *plot) error {
		p.set(0)
		p.reader.get(p.ctx, p.key)
		n := p.history().begin(p.writer.id, true, 0)
		p.asked = p.writer
		p.writer.write([]int{p.key}, []int{n}, func() error { return p.writer.cache.DeleteTags(p.ctx, "nobody has it") })
		return nil
	}},
	{"a record of a removal is lost", "", "P6", func(p *plot) error {
		n := p.history().begin(p.writer.id, false, 0)
		p.writer.write([]int{p.key}, []int{n}, func() error {
			return p.writer.cache.Set(p.ctx, p.history().name, p.history().valueOf(n), pgcache.Tags("planted"), pgcache.TTL(pgcache.NoExpiry))
		})
		n = p.history().begin(p.writer.id, true, 0)
		p.writer.write([]int{p.key}, []int{n}, func() error { return p.writer.cache.DeleteTags(p.ctx, "planted") })
		_, err := p.db.ExecContext(p.ctx, "DELETE FROM "+p.table("cache_groups")+" WHERE name = 'planted'")
		return err
	}},
	{"a rollback leaves a trace", "", "P8", func(p *plot) error {
		p.set(0)
		n := p.history().prepare(p.writer.id, false, clock())
		return p.spoil("value = $2", p.history().valueOf(n))
	}},
	{"a change of a watched table is not seen", fromTable, "P1", func(p *plot) error {
		h := p.history()
		p.reader.loadWatched(p.ctx, p.key)
		h.done(h.begin(somebody, false, 0)) // the table stays as it is, as the cache sees it
		return nil
	}},
	{"a loader says that there is nothing, long after there is something", resilient, "P1", func(p *plot) error {
		h := p.history()
		n := h.begin(p.writer.id, true, 0)
		h.source.current.Store(int64(n))
		gone := func() error { return p.writer.cache.Delete(p.ctx, h.name) }
		p.writer.write([]int{p.key}, []int{n}, gone)
		p.writer.write([]int{p.key}, []int{h.begin(p.writer.id, false, 0)}, gone) // and the source stays as it is
		p.ask = func() { p.reader.fetch(p.ctx, p.key) }
		return nil
	}},
	{"SetIfAbsent stores over a value", "", "absent", func(p *plot) error {
		p.writer.setIfAbsent(p.ctx, p.key)
		if err := p.exec("UPDATE " + p.table("cache_entries") + " SET value = NULL, version = version + 1, stamp = version + 1 WHERE key = $1"); err != nil {
			return err
		}
		p.writer.setIfAbsent(p.ctx, p.key)
		return nil
	}},
	{"an increment is lost", "counter", "count", func(p *plot) error {
		c := newCounter(p.history().name, len(p.nodes()))
		p.ask = func() { p.writer.count(p.ctx, c, true) }
		for range 9 {
			p.ask()
		}
		return p.exec("UPDATE " + p.table("cache_entries") + " SET value = '1' WHERE key = $1")
	}},
}
