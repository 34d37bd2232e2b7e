package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

func TestMain(m *testing.M) {
	if given := os.Getenv(childEnv); given != "" { // a node that a scenario started
		if err := serve(given); err != nil {
			panic(err)
		}
		return
	}
	os.Exit(m.Run())
}

// TestFaults runs a few scenarios, and what must be noticed.
func TestFaults(t *testing.T) {
	t.Parallel()
	for _, args := range [][]string{
		{"-duration", "2s", "-parallel", "2", "-pause", "10ms", "-run", "^(listeners killed|two caches .*|a node stopped .*|a crash, mixed transports|Clear)$", "-v"},
		{"-selftest", "-duration", "2s", "-pause", "8ms", "-run", "^P[347]", "-parallel", "2"},
	} {
		var out bytes.Buffer
		if code := faults(t.Context(), args, &out, &out); code != fine {
			t.Errorf("%v: exit code %d", args, code)
		}
		t.Log(out.String())
	}
}

// A checker that would pass anything must not pass the self-test.
func TestSelftestNeedsNoticing(t *testing.T) {
	t.Parallel()
	for _, r := range []result{
		{scenario: "P4: something", book: &book{}},
		{scenario: "P4: something", book: &book{violations: 1, lines: []string{"P2: another"}}},
		{scenario: "P4: something", book: &book{violations: 1, lines: []string{"P4: it"}}, err: errors.New("stopped early")},
	} {
		if r.noticed() {
			t.Errorf("%+v counts as noticed", r)
		}
	}
	if r := (result{scenario: "P4: something", book: &book{violations: 1, lines: []string{"P4: it"}}}); !r.noticed() {
		t.Error("it was noticed")
	}
}

func TestParse(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"-quick", "-duration", "3s"}, io.Discard)
	if err != nil || c.duration != 3*time.Second || c.parallel != 8 || !c.run.MatchString("anything") {
		t.Errorf("%+v, %v", c, err)
	}
	for _, args := range []string{"-duration 0s", "-parallel 0", "-pause -1s", "-run (", "more", "-nonsense"} {
		var says bytes.Buffer
		if _, err := parse(strings.Fields(args), &says); err == nil || !strings.Contains(says.String(), "Usage") {
			t.Errorf("%s: %v, and it says %q", args, err, says.String())
		}
	}
	if _, err := parse([]string{"-help"}, io.Discard); !errors.Is(err, flag.ErrHelp) {
		t.Errorf("-help: %v", err)
	}
	if code := faults(t.Context(), []string{"-run", "no such name"}, io.Discard, io.Discard); code != unused {
		t.Errorf("exit code %d", code)
	}
}

// TestTable: names are unique, since they choose, and each row says how its faults come.
func TestTable(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, s := range append(scenarios[:len(scenarios):len(scenarios)], planted...) {
		if seen[s.name] || strings.ContainsAny(s.name, "|\n") {
			t.Errorf("%q is there twice, or can't stand in a table", s.name)
		}
		seen[s.name] = true
		if s.inject != nil && s.pause == 0 {
			t.Errorf("%q: no pause between faults", s.name)
		}
	}
}

func TestMarkdown(t *testing.T) {
	t.Parallel()
	got := markdown(config{args: []string{"-quick"}, duration: time.Second, run: regexp.MustCompile("")}, "17.5", []result{
		{scenario: "one", book: &book{operations: 10, failed: 1, faults: 2, lag: 25 * time.Millisecond, longest: time.Second}},
		{scenario: "two", skipped: "why"},
		{scenario: "three", err: errors.New("no")},
	})
	for _, want := range []string{
		"`go run ./faults -quick`", "PostgreSQL 17.5", "| one | 10 | 1 | 2 | 0 | 25ms | 1s |", "| two | skipped: why |", "| three | could not be run |",
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no %q in:\n%s", want, got)
		}
	}
}
