package main

import (
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// print says how a scenario went.
func (r *result) print(w io.Writer, verbose bool) {
	switch {
	case r.skipped != "":
		fmt.Fprintf(w, "%-85s skipped: %s\n", r.scenario, r.skipped)
		return
	case r.book == nil:
		fmt.Fprintf(w, "%-85s could not be run: %v\n", r.scenario, r.err)
		return
	}
	b := r.book
	fmt.Fprintf(w, "%-85s %7d operations, %5d failed, %4d faults, %d violations, worst lag %v, longest %v (%s), %v\n", r.scenario, b.operations, b.failed, b.faults,
		b.violations, round(b.lag), round(b.longest), b.longestOp, r.took.Round(100*time.Millisecond))
	if r.err != nil {
		fmt.Fprintf(w, "    ERROR %v\n", r.err)
	}
	for i, line := range b.lines {
		if i < 5 || verbose {
			fmt.Fprintf(w, "    VIOLATION %s\n", line)
		}
	}
	if verbose {
		for _, text := range slices.Sorted(maps.Keys(b.failures)) {
			fmt.Fprintf(w, "    %d times: %s\n", b.failures[text], text)
		}
	}
}

func round(d time.Duration) time.Duration {
	if d < 10*time.Millisecond {
		return d.Round(100 * time.Microsecond)
	}
	return d.Round(time.Millisecond)
}

// summary is the last line.
func summary(w io.Writer, results []result) {
	var scenarios, operations, faults, violations, errors, skipped int
	for _, r := range results {
		switch {
		case r.skipped != "":
			skipped++
		case r.err != nil:
			errors++
		}
		if r.book != nil {
			scenarios++
			operations += r.book.operations
			faults += r.book.faults
			violations += r.book.violations
		}
	}
	fmt.Fprintf(w, "%d scenarios, %d operations, %d faults, %d violations, %d could not be run, %d skipped\n",
		scenarios, operations, faults, violations, errors, skipped)
}

// markdown is the report for docs/reliability.md.
func markdown(cfg config, version string, results []result) string {
	var b strings.Builder
	fmt.Fprintf(&b, `# Under faults

Small fleets of nodes work on one cache while faults are injected again and again. Every answer is held against what was
written: a node reads its own writes (P3), never goes back (P4), shows nothing that was replaced more than 4 s before the
read began, 10 s after a failover that leaves the old server alive (P2), nothing at all that was
replaced while its listener is down (P5), nothing that nobody wrote (P7) or that was rolled back (P8); the table
never holds what was replaced before a loader stored it (P6). When the faults are over, every node listens again by
itself, no operation fails, and all nodes read what the table has.

Worst lag is the longest time from an acknowledged write to the begin of a read that did not show it yet. Failed are
operations that returned an error to their caller: only those may that the fault concerns.

`+"`go run ./faults%s`"+`, %s, PostgreSQL %s, %v for each scenario.

| scenario | operations | failed | faults | violations | worst lag | longest operation |
|---|---:|---:|---:|---:|---:|---:|
`, joined(cfg.args), time.Now().Format("2006-01-02"), version, cfg.duration)
	for _, r := range results {
		switch {
		case r.skipped != "":
			fmt.Fprintf(&b, "| %s | skipped: %s | | | | | |\n", r.scenario, r.skipped)
		case r.err != nil:
			fmt.Fprintf(&b, "| %s | could not be run | | | | | |\n", r.scenario)
		default:
			k := r.book
			fmt.Fprintf(&b, "| %s | %d | %d | %d | %d | %v | %v |\n", r.scenario, k.operations, k.failed, k.faults, k.violations, round(k.lag), round(k.longest))
		}
	}
	return b.String()
}

func joined(args []string) string {
	if len(args) == 0 {
		return ""
	}
	return " " + strings.Join(args, " ")
}
