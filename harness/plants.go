package main

import "github.com/pgcache/go/pgcache"

// more are plants that take out rules of groups, transactions, watched tables, negative values and SetIfAbsent.
var more = []plant{
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
