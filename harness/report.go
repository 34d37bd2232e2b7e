package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/pgcache/go/pgcache"
)

// progress shows how far a run is: a bar on a terminal, a line every few seconds elsewhere.
type progress struct {
	out      io.Writer
	fleet    *fleet
	terminal bool
	began    time.Duration
	last     time.Duration
	lastOps  int64
}

func newProgress(out io.Writer, f *fleet) *progress {
	p := &progress{out: out, fleet: f, began: clock()}
	if file, ok := out.(*os.File); ok {
		info, err := file.Stat()
		p.terminal = err == nil && info.Mode()&os.ModeCharDevice != 0
	}
	return p
}

func (p *progress) update(share float64) {
	every := 5 * time.Second
	if p.terminal {
		every = 200 * time.Millisecond
	}
	now := clock()
	since := now - max(p.last, p.began)
	if since < every {
		return
	}
	ops := p.fleet.ops.Load()
	rate := float64(ops-p.lastOps) / since.Seconds()
	p.last, p.lastOps = now, ops
	breaches, errors := p.fleet.book.total()
	line := fmt.Sprintf("%3.0f %%  %8d operations  %6.0f/s  %d violations  %d errors", share*100, ops, rate, breaches, errors)
	if p.terminal {
		const cells = 24
		full := int(share * cells)
		say(p.out, "\r[%s%s] %s\x1b[K", strings.Repeat("#", full), strings.Repeat(".", cells-full), line)
	} else {
		say(p.out, "%s\n", line)
	}
}

func (p *progress) end() {
	if p.terminal {
		say(p.out, "\r\x1b[K")
	}
}

const showBreaches = 5

// report prints what a run has found.
func (f *fleet) report(out io.Writer, version string, r result) {
	var all pgcache.Stats
	var gaps int64
	for _, n := range f.nodes() {
		add(&all, n.cache.Stats())
		for _, p := range n.parts {
			gaps += p.recorder.gaps.Load()
		}
	}
	kill := ""
	if f.cfg.kill > 0 {
		kill = fmt.Sprintf(", a listener ended every %v", f.cfg.kill)
	}
	say(out, "%s, driver %s, codec %s, transport %s: %d writing and %d reading nodes, %d keys, %v%s\n\n",
		version, f.cfg.driver, f.cfg.codec, f.cfg.transport, len(f.writers), len(f.readers), len(f.keys), r.took.Round(100*time.Millisecond), kill)

	table := tabwriter.NewWriter(out, 0, 0, 3, ' ', tabwriter.AlignRight)
	say(table, "\tcount\tops/s\tmean\tp50\tp95\tp99\tlargest\t\n")
	for _, row := range []struct {
		name string
		h    *histogram
	}{{"writes", &r.tally.writes}, {"reads", &r.tally.reads}} {
		h := row.h
		say(table, "%s\t%d\t%.0f\t%v\t%v\t%v\t%v\t%v\t\n", row.name, h.n, float64(h.n)/r.took.Seconds(),
			short(h.mean()), short(h.quantile(.5)), short(h.quantile(.95)), short(h.quantile(.99)), short(h.max))
	}
	_ = table.Flush()

	b := &r.tally.behind
	asked := float64(max(1, all.LocalHits+all.RemoteHits+all.Misses))
	say(out, `
hits         local %.1f %%, remote %.1f %%, miss %.1f %%
loads        %d loader runs, %d callers shared another's, %d not stored because of a newer write
staleness    p99 %v, largest %v; %.2f %% of the answers were behind at all, p99 of those %v
listeners    %d sessions ended, %d gaps survived, live %.1f %% of the time
checked      %d answers of nodes, %d rows
`,
		100*float64(all.LocalHits)/asked, 100*float64(all.RemoteHits)/asked, 100*float64(all.Misses)/asked,
		all.Loads, all.Coalesced, all.Fenced,
		short(b.quantile(.99)), short(b.max), 100*float64(b.over())/float64(max(1, b.n)), short(b.quantileOver(.99)),
		f.kills.Load(), gaps, 100*r.live,
		b.n, r.rows)

	if d := &f.activity; f.cfg.more {
		say(out, "groups       %d removals; transactions %d committed, %d rolled back; a watched table changed %d times\n", d.removals.Load(), d.commits.Load(), d.rollbacks.Load(), d.updates.Load())
		say(out, "resilience   %d stale answers, %d that there is nothing; %d counted, %d touched\n", d.stale.Load(), d.nones.Load(), d.counted.Load(), d.touched.Load())
	}
	if f.cfg.shards > 0 {
		say(out, "shards       %d, %d moves of %d keys, %d operations refused because of them\n", f.cfg.shards, f.activity.moves.Load(), f.activity.keysMoved.Load(), f.book.moving)
	}
	breaches, errors := f.book.total()
	say(out, "errors       %d\nviolations   %d", errors, breaches)
	if breaches > 0 {
		say(out, " (%s)", f.book.summary())
	}
	say(out, "\n")
	for _, err := range f.book.first {
		say(out, "  error: %v\n", err)
	}
	for i, v := range f.book.breaches {
		if i == showBreaches {
			say(out, "  ... and %d more\n", breaches-showBreaches)
			break
		}
		say(out, "  %v\n", v)
	}
}

func add(sum *pgcache.Stats, s pgcache.Stats) {
	sum.LocalHits += s.LocalHits
	sum.RemoteHits += s.RemoteHits
	sum.Misses += s.Misses
	sum.Loads += s.Loads
	sum.Coalesced += s.Coalesced
	sum.Fenced += s.Fenced
}

// short rounds to three digits or so.
func short(d time.Duration) time.Duration {
	for unit := time.Second; unit >= 100*time.Nanosecond; unit /= 10 {
		if d >= unit*10 {
			return d.Round(unit / 10)
		}
	}
	return d
}

// say prints for a person. Whether it arrives is not for us to judge.
func say(out io.Writer, format string, args ...any) { _, _ = fmt.Fprintf(out, format, args...) }
