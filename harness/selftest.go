package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"
)

// plot is the key that a plant is put on. No worker uses it.
type plot struct {
	*fleet
	ctx            context.Context
	key            int
	writer, reader *worker
	asked          *worker // until it is noticed
	ask            func()  // how, if not by Get
}

func (p *plot) history() *history { return p.keys[p.key] }

// table is one of those of the server that has the key.
func (p *plot) table(name string) string {
	return p.schemas()[max(0, p.reader.shardOf(p.history().name))] + "." + name
}

func (p *plot) set(ttl time.Duration) { p.writer.setFor(p.ctx, p.key, ttl) }

// spoil changes the row. $2 is v.
func (p *plot) spoil(set string, v value) error {
	data, err := p.codec().Marshal(v)
	if err != nil {
		return err
	}
	return p.exec("UPDATE "+p.table("cache_entries")+" SET "+set+" WHERE key = $1", data)
}

// exec changes one row. $1 is its key.
func (p *plot) exec(query string, args ...any) error {
	res, err := p.db.ExecContext(p.ctx, query, append([]any{p.history().name}, args...)...)
	if err != nil {
		return err
	}
	if n, err := res.RowsAffected(); n != 1 {
		return errors.Join(err, fmt.Errorf("%d rows changed, not one", n))
	}
	return nil
}

// patience is how long a plant may go unnoticed.
const patience = 10 * time.Second

// selftest puts plants under a fleet at work, and returns an error unless each is noticed in time, and nothing else is.
func (f *fleet) selftest(ctx context.Context, plants []plant, patience time.Duration, out io.Writer) error {
	f.cfg.move = 0             // what was planted would go
	f.cfg.duration = time.Hour // until every plant was noticed, or was given up
	working, stop := context.WithCancel(ctx)
	defer stop()
	ran := make(chan error, 1)
	go func() {
		_, err := f.run(working, func(float64) {})
		ran <- err
	}()
	var missed error
	for i, plant := range plants {
		p := &plot{
			fleet: f, ctx: ctx, key: f.plantedAt + i,
			writer: &worker{fleet: f, node: f.writers[0]}, reader: &worker{fleet: f, node: f.readers[0]},
		}
		p.asked = p.reader
		err := plant.put(p)
		if err == nil {
			err = p.noticed(plant.promise, patience)
		}
		if err != nil {
			missed = errors.Join(missed, fmt.Errorf("planted that %s: %w", plant.name, err))
			continue
		}
		say(out, "%s noticed: %s\n", plant.promise, plant.name)
	}
	stop()
	err := <-ran
	for _, b := range f.book.breaches {
		if !f.planted(b.key) {
			err = errors.Join(err, fmt.Errorf("a violation that was not planted: %v", b))
		}
	}
	_, failed := f.book.total()
	if failed > 0 {
		err = errors.Join(err, fmt.Errorf("%d operations failed: %w", failed, errors.Join(f.book.first...)))
	}
	return errors.Join(missed, err)
}

// noticed reads the key until the checker says of it what it should.
func (p *plot) noticed(promise string, patience time.Duration) error {
	for deadline := clock() + patience; clock() < deadline && p.ctx.Err() == nil; time.Sleep(timeEvery) {
		if p.ask != nil {
			p.ask()
		} else {
			p.asked.get(p.ctx, p.key)
		}
		if p.book.has(p.history().name, promise) {
			return nil
		}
	}
	return fmt.Errorf("not noticed within %v: no breach of %s", patience, promise)
}

func (f *fleet) planted(key string) bool {
	for _, h := range f.keys[f.plantedAt:] {
		if h.name == key {
			return true
		}
	}
	return false
}
