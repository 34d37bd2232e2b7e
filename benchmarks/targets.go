package main

import (
	"fmt"
	"io"
	"maps"
	"math"
	"slices"
	"strings"
)

// figures are the medians of all shapes that were measured.
type figures map[string]medians

// get returns one figure, or NaN.
func (f figures) get(shape, line, backend, metric string) float64 {
	if v, ok := f[shape][line][backend][metric]; ok {
		return v
	}
	return math.NaN()
}

// check is one comparison of a target.
type check struct {
	got    float64 // NaN: not measured
	text   string  // with one verb for got
	metIf  func(got float64) bool
	asides []aside // figures that go with it and decide nothing
}

type aside struct {
	got  float64
	text string
}

func atLeast(limit float64) func(float64) bool { return func(v float64) bool { return v >= limit } }
func atMost(limit float64) func(float64) bool  { return func(v float64) bool { return v <= limit } }

// target is one line of what the project has promised itself.
type target struct {
	measure, must string
	checks        func(f figures) []check
}

const times = "%.2fx "

var targets = []target{
	{
		"local hit, typed, namespaced, struct value",
		"at most 1.25x otter's own GetIfPresent with an expiry, 0 allocations, at least 4x faster than rueidis' client-side hit",
		func(f figures) (checks []check) {
			for _, line := range slices.Sorted(maps.Keys(f["hit"])) {
				hit := func(backend, metric string) float64 { return f.get("hit", line, backend, metric) }
				mine := hit(hitTyped, "hit.ns")
				checks = append(checks,
					check{got: mine / hit(hitExpiry, "hit.ns"), text: times + "otter (" + line + ")", metIf: atMost(1.25)},
					check{got: hit(hitTyped, "hit.allocs"), text: "%.0f allocations", metIf: atMost(0)},
					check{got: hit(rueidisCSC, "hit.ns") / mine, text: "%.1fx faster than rueidis", metIf: atLeast(4)})
			}
			return checks
		},
	},
	{
		"remote Get, 64 callers", "at least 1.0x rueidis GET and 1.7x go-redis GET in ops/s",
		func(f figures) []check {
			get := func(backend string) float64 { return f.get("read", callersLine(64), backend, "read.ops") }
			return []check{
				{got: get(pgNoLocal) / get(rueidisRaw), text: times + "rueidis", metIf: atLeast(1)},
				{got: get(pgNoLocal) / get(valkey), text: times + "go-redis", metIf: atLeast(1.7)},
			}
		},
	},
	{
		"remote Get, 1 caller", "at most 1.1x the time of a prepared SELECT through the same database/sql",
		func(f figures) []check { return []check{lone(f, getOne, pgNoLocal, "read", 1.1)} },
	},
	{
		"coherent Set, 4 nodes x 32 callers",
		"at least 1.0x go-redis SET with 4 listening nodes, 0.95x with 48; from 4 to 128 listeners it loses under 10 %",
		func(f figures) []check {
			set := func(backend string, n int) float64 { return f.get("write", listeningLine(n), backend, "write.ops") }
			return []check{
				{got: set(pgCache, 4) / set(valkey, 4), text: times + "with 4", metIf: atLeast(1)},
				{got: set(pgCache, 48) / set(valkey, 48), text: times + "with 48", metIf: atLeast(.95)},
				{
					got: 100 * (1 - set(pgCache, 128)/set(pgCache, 4)), text: "loses %.0f %% from 4 to 128",
					metIf: func(v float64) bool { return v < 10 },
				},
			}
		},
	},
	{
		"Set, 1 caller", "at most 1.25x the time of the bare upsert through the same database/sql",
		func(f figures) []check { return []check{lone(f, setOne, pgCache, "write", 1.25)} },
	},
	{
		"seed", "at least 0.9x go-redis in write ops/s and 1.0x in read ops/s, staleness p99 under 100 ms",
		func(f figures) []check {
			return append(beside(f, "seed", .9, 1), check{
				got: f.get("seed", "", pgCache, "stale.p99_ms"), text: "staleness p99 %.0f ms",
				metIf: func(v float64) bool { return v < 100 },
				asides: []aside{
					{f.get("seed", "", pgCache, "stale.behind_p99_ms"), "%.0f ms of the reads that were behind at all"},
					{f.get("seed", "", pgCache, "stale.max_ms"), "largest %.0f ms"},
				},
			})
		},
	},
	{
		"seed-network", "at least 1.0x go-redis in writes and 1.5x in reads",
		func(f figures) []check { return beside(f, "seed-network", 1, 1.5) },
	},
	{
		"service", "at least 10x go-redis and 2x rueidis with client-side caching in ops/s",
		func(f figures) []check {
			ops := func(backend string) float64 { return f.get("service", "", backend, "ops") }
			return []check{
				{got: ops(pgCache) / ops(valkey), text: "%.1fx go-redis", metIf: atLeast(10)},
				{got: ops(pgCache) / ops(rueidisCSC), text: times + "rueidis", metIf: atLeast(2)},
			}
		},
	},
	{
		"remote Get p50 at 10 million rows", "at most 1.3x the time at 10 thousand",
		func(f figures) []check {
			get := func(n int) float64 { return f.get("size", sizeLine(n), pgNoLocal, "read.p50_us") }
			return []check{{
				got: get(10_000_000) / get(10_000), text: "%.2fx", metIf: atMost(1.3),
				asides: []aside{{get(1_000_000) / get(10_000), "%.2fx at 1 million"}},
			}}
		},
	},
	{
		"overwrites that are HOT", "at least 90 %",
		func(f figures) []check {
			return []check{{
				got: 100 * f.get("hot", "", pgCache, "table.hot"), text: "%.1f %%", metIf: atLeast(90),
				asides: []aside{{100 * f.get("soak", soakLast, pgCache, "table.hot"), "%.1f %% in soak"}},
			}}
		},
	},
	{
		"memory per local entry beyond key and value", "at most 200 bytes",
		func(f figures) []check {
			return []check{{got: f.get("memory", "", pgCache, "memory.beyond"), text: "%.0f bytes", metIf: atMost(200)}}
		},
	},
	{
		"2 shards on one machine, 512 callers", "at least 0.8x one server in ops/s, at most 1.25x its CPU an operation",
		func(f figures) []check {
			ratio := func(line, metric string) float64 {
				return f.get("shards", line, pgShards, metric) / f.get("shards", serversLine(1), pgNoLocal, metric)
			}
			two, four := serversLine(2), serversLine(4)
			return []check{
				{got: ratio(two, "ops"), text: times + "in ops/s", metIf: atLeast(.8), asides: []aside{{ratio(four, "ops"), times + "with 4"}}},
				{got: ratio(two, "server.cpu_us"), text: times + "in CPU", metIf: atMost(1.25), asides: []aside{{ratio(four, "server.cpu_us"), times + "with 4"}}},
			}
		},
	},
	{
		"UPDATE of a row of a watched table, fsync on", "less than 1.3x the time unwatched, by p50",
		func(f figures) []check {
			ratio := func(fsync, backend, metric string) float64 {
				return f.get("watch", fsyncLine(fsync), backend, metric) / f.get("watch", fsyncLine(fsync), watchNone, metric)
			}
			return []check{{
				got: ratio("on", watchKey, "write.p50_us"), text: times + "with a key", metIf: func(v float64) bool { return v < 1.3 },
				asides: []aside{
					{ratio("on", watchTag, "write.p50_us"), times + "with a tag too"},
					{ratio("off", watchKey, "write.p50_us"), times + "with fsync off"},
					{ratio("off", watchKey, "server.cpu_us"), times + "in CPU with fsync off"},
				},
			}}
		},
	},
	{"lib/pq beside pgx, any line", "at least 0.8x", besidePgx},
}

// lone compares the times of a single caller by their medians.
func lone(f figures, line, backend, kind string, limit float64) check {
	ratio := func(metric string) float64 {
		return f.get("read", line, backend, kind+metric) / f.get("read", line, pgBare, kind+metric)
	}
	return check{
		got: ratio(".p50_us"), text: times + "by p50", metIf: atMost(limit), asides: []aside{{ratio(".mean_us"), times + "by mean"}},
	}
}

// beside compares a shape's ops/s with go-redis'.
func beside(f figures, shape string, writes, reads float64) []check {
	ratio := func(backend, metric string) float64 {
		return f.get(shape, "", backend, metric) / f.get(shape, "", valkey, metric)
	}
	const refreshing = times + "with Refresh"
	return []check{
		{
			got: ratio(pgCache, "write.ops"), text: times + "in writes", metIf: atLeast(writes),
			asides: []aside{{ratio(pgRefresh, "write.ops"), refreshing}},
		},
		{
			got: ratio(pgCache, "read.ops"), text: times + "in reads", metIf: atLeast(reads),
			asides: []aside{{ratio(pgRefresh, "read.ops"), refreshing}},
		},
	}
}

// besidePgx finds the line where lib/pq falls behind most.
func besidePgx(f figures) []check {
	worst := check{got: math.NaN(), metIf: atLeast(.8)}
	for line, backends := range f["pq"] {
		for pq, pgx := range map[string]string{pgCachePQ: pgCache, pgNoLocPQ: pgNoLocal} {
			for _, metric := range []string{"read.ops", "write.ops"} {
				ratio := f.get("pq", line, pq, metric) / f.get("pq", line, pgx, metric)
				if backends[pq] != nil && !math.IsNaN(ratio) && !(ratio >= worst.got) {
					worst.got, worst.text = ratio, times+"at worst ("+line+", "+strings.TrimSuffix(metric, ".ops")+"s)"
				}
			}
		}
	}
	return []check{worst}
}

// judge says what a target's checks found.
func (t target) judge(f figures) (found, verdict string) {
	var texts []string
	missed, open, met := false, false, false
	for _, c := range t.checks(f) {
		if math.IsNaN(c.got) || math.IsInf(c.got, 0) {
			open = true
			continue
		}
		text := fmt.Sprintf(c.text, c.got)
		for _, a := range c.asides {
			if !math.IsNaN(a.got) {
				text += " (" + fmt.Sprintf(a.text, a.got) + ")"
			}
		}
		if c.metIf(c.got) {
			met = true
		} else {
			missed = true
			text = "**" + text + "**"
		}
		texts = append(texts, text)
	}
	switch {
	case missed:
		verdict = "**missed**"
	case met && !open:
		verdict = "met"
	case met:
		verdict = "met as far as it was run"
	default:
		verdict = notRun
	}
	return strings.Join(texts, "; "), verdict
}

func writeTargets(out io.Writer, results []Result) {
	f := figures{}
	for _, r := range results {
		f[r.Shape] = r.medians()
	}
	var rows [][]string
	for _, t := range targets {
		found, verdict := t.judge(f)
		rows = append(rows, []string{t.measure, t.must, found, verdict})
	}
	fmt.Fprintf(out, "\n## targets\n\nRatios of the medians above.\n\n")
	table(out, []string{"measure", "must be", "is", ""}, rows)
}
