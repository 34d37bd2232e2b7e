package pgcache

import (
	"context"
	"math"
	"math/rand/v2"
	"reflect"
	"time"

	"github.com/pgcache/go/internal/coherence"
	"github.com/pgcache/go/localcache"
)

// maxEarlyLoads bounds how many background loads a process runs at a time.
const maxEarlyLoads = 64

// maxPause bounds for how long a key is left alone after a background load that was done, or that another process had.
const maxPause = time.Second

// earlyLoads are the keys whose background load runs, or ran a moment ago.
type earlyLoads struct {
	recent[struct{}]
	running int
}

func (s *earlyLoads) begin(k localcache.Key) bool {
	now := coherence.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.of[k].until > now || s.running >= maxEarlyLoads {
		return false
	}
	s.running++
	s.add(k, struct{}{}, now, math.MaxInt64)
	return true
}

func (s *earlyLoads) end(k localcache.Key, pause int64) {
	now := coherence.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.add(k, struct{}{}, now, now+pause)
}

// dueSeed makes nodes differ in when they find an entry due.
var dueSeed = rand.Uint64()

// isDue says whether an entry of this version, with this much time left, is to be loaded in the background: up to a tenth of the TTL
// after RefreshAfter says so, another moment for each version and process.
func (v *view) isDue(version int64, left time.Duration) bool {
	if left >= v.due {
		return false
	}
	span := uint64(max(1, min(v.ttl/10, v.due/2)))
	return left < v.due-time.Duration((uint64(version)^dueSeed)*0x9E3779B97F4A7C15>>1%span)
}

// dueInMemory is isDue for a hit in memory. An entry that LocalTTL ends says nothing of when its row expires.
func (v *view) dueInMemory(h hit) bool {
	local := v.c.opts.LocalTTL
	return (local == 0 || local >= v.ttl) && v.isDue(h.e.Version, time.Duration(h.e.Deadline-h.now))
}

// loadEarly loads the keys in the background, unless that is being done, or was done or failed a moment ago.
func (v *view) loadEarly(ctx context.Context, keys []localcache.Key, into reflect.Type, many bool, load loadFunc) {
	c := v.c
	if c.null {
		return
	}
	// Nobody waits for it: it is no part of the loader whose context this may be.
	ctx = context.WithValue(context.WithoutCancel(ctx), chainKey{}, (*loadChain)(nil))
	run := coherence.NewRun(ctx)
	var loads []*coherence.Load
	for _, k := range keys {
		if !c.earlyLoads.begin(k) {
			continue
		}
		l, part, _ := c.local.Join(k, run, coherence.Now())
		if part == coherence.Leads {
			loads = append(loads, l)
			continue
		}
		if part == coherence.Joins {
			l.Run.Leave()
		}
		c.earlyLoads.end(k, v.earlyPause())
	}
	if len(loads) == 0 {
		run.Leave()
		return
	}
	r := &loadRun{view: *v, run: run, load: load, into: into, many: many, early: true}
	ended := func() {
		pause := r.earlyPause()
		if r.earlyErr != nil || r.notStored {
			pause = throttleFor(r.due)
		}
		for _, l := range loads {
			c.earlyLoads.end(l.Key, pause)
		}
		run.Leave()
	}
	if !c.goDo(func() {
		defer ended()
		r.refresh(loads)
	}) {
		end(loads, coherence.Loaded{All: true, Err: ErrClosed})
		ended()
	}
}

// pause is for how long a key is left alone after a background load: another process that loads it publishes what it stores, and
// SetTTL may have made the new entry due already.
func (v *view) earlyPause() int64 { return int64(min(maxPause, v.due/10)) }

// refresh locks the keys without waiting, looks again, and loads those that are still there and still due.
func (r *loadRun) refresh(loads []*coherence.Load) {
	ctx, cancel := r.context()
	defer cancel()
	l := r.look(loads)
	defer l.release()
	locking, done := r.c.statement(ctx)
	l.lock(locking)
	done()
	// Who joined meanwhile, because the entry has expired, begins a load of its own.
	skipped := coherence.Loaded{Skipped: true}
	if l.locked == nil {
		end(loads, skipped)
		return
	}
	fence, err := l.fence(ctx)
	if err != nil {
		end(loads, skipped)
		return
	}
	var mine []*coherence.Load
	for i, load := range loads {
		row, ok := fence.found(load.Key)
		switch {
		case ok && !r.isDue(row.Version, row.Remaining): // another process has loaded it
			load.End(coherence.Loaded{Row: row, Found: true, Since: l.step, Until: coherence.Until(l.sent, row.Remaining)})
		case ok && l.locked[i] && row.Codec != codecNegative:
			r.old[load.Key] = row
			mine = append(mine, load)
		default:
			load.End(skipped)
		}
	}
	if len(mine) == 0 {
		return
	}
	r.c.stats.earlyLoads.Add(1)
	r.fill(ctx, mine, fence)
	if r.earlyErr != nil && ctx.Err() == nil {
		r.c.stats.earlyErrors.Add(1)
		r.c.warn("a load in the background failed, the value stays until it expires", "error", r.earlyErr)
	}
}
