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

// An early load replaces an entry before it has expired (RefreshAfter): a hit starts it in the background, and nobody waits for it.

// maxEarlyLoads bounds how many early loads a process runs at a time.
const maxEarlyLoads = 64

// maxPause bounds for how long a process begins no early load of a key after one that has ended without an error.
const maxPause = time.Second

// earlyLoads are the keys whose early load runs, or ran a moment ago. If recent has forgotten a key, a second early load of it may begin:
// it joins the first, or finds the entry no longer due.
type earlyLoads struct {
	recent[struct{}]
	running int
}

// begin says whether an early load of k may run now. If so, the caller calls end.
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

// end lets no other early load of k begin for pause, in nanoseconds.
func (s *earlyLoads) end(k localcache.Key, pause int64) {
	now := coherence.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	s.running--
	s.add(k, struct{}{}, now, now+pause)
}

// dueSeed is random, so that processes differ in when they find an entry due.
var dueSeed = rand.Uint64()

// isDue says whether an early load is to replace an entry of this version that has this much time left. That is so from up to a tenth of
// the TTL after the moment that RefreshAfter says; how long after differs by version and process, so that not all load at once.
func (v *view) isDue(version int64, left time.Duration) bool {
	if left >= v.due {
		return false
	}
	span := uint64(max(1, min(v.ttl/10, v.due/2)))
	return left < v.due-time.Duration((uint64(version)^dueSeed)*0x9E3779B97F4A7C15>>1%span)
}

// dueInMemory is isDue for a hit in memory. Where LocalTTL is shorter than the TTL, an entry does not show when its row expires: it is
// never due.
func (v *view) dueInMemory(h hit) bool {
	local := v.c.opts.LocalTTL
	return (local == 0 || local >= v.ttl) && v.isDue(h.e.Version, time.Duration(h.e.Deadline-h.now))
}

// loadEarly begins an early load of those keys of which this process has none that runs or has just ended. many says that load is a loader
// of many keys.
func (v *view) loadEarly(ctx context.Context, keys []localcache.Key, into reflect.Type, many bool, load loadFunc) {
	c := v.c
	if c.null {
		return
	}
	// ctx may be that of a loader, which does not wait for this load: a cycle through it is no deadlock.
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
		r.runEarly(loads)
	}) {
		end(loads, coherence.Loaded{All: true, Err: ErrClosed})
		ended()
	}
}

// earlyPause is for how long no other early load of a key begins after one that has ended without an error: the new value of another
// process is published by then; and SetTTL may have made the new entry due at once.
func (v *view) earlyPause() int64 { return int64(min(maxPause, v.due/10)) }

// runEarly locks the keys without waiting, looks at their rows, and loads those that are live and still due.
func (r *loadRun) runEarly(loads []*coherence.Load) {
	ctx, cancel := r.context()
	defer cancel()
	l := r.beginLookup(loads)
	defer l.release()
	locking, done := r.c.statement(ctx)
	l.lock(locking)
	done()
	// Callers that have joined because the entry has expired begin a load of their own.
	skipped := coherence.Loaded{Skipped: true}
	if l.locked == nil {
		end(loads, skipped)
		return
	}
	fence, err := l.fence(ctx)
	if err != nil || fence.unstorable() {
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
