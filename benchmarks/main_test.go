package main

import (
	"encoding/xml"
	"errors"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// TestSmoke runs every shape for a moment, and prints the same from its JSON.
func TestSmoke(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var out, errs, again strings.Builder
	if err := run(t.Context(), []string{"-quick", "-out", folder}, &out, &errs); err != nil {
		t.Fatalf("%v\n%s", err, errs.String())
	}
	if strings.Contains(errs.String(), "level=WARN") || strings.Contains(errs.String(), "level=ERROR") {
		t.Errorf("the library complained:\n%s", errs.String())
	}
	results, err := load(folder)
	if err != nil {
		t.Fatal(err)
	}
	var measured []string
	for _, r := range results {
		measured = append(measured, r.Shape)
		wantSamples(t, r)
	}
	if diff := cmp.Diff(shapeNames(), measured); diff != "" {
		t.Errorf("shapes:\n%s", diff)
	}
	if err := run(t.Context(), []string{"-report", "-out", folder}, &again, io.Discard); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(out.String(), again.String()); diff != "" {
		t.Errorf("-report prints something else:\n%s", diff)
	}
	for _, want := range []string{"| postgres-cache ", "## targets", "A smoke run", "PostgreSQL", "fsync = on"} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("the output lacks %q", want)
		}
	}
	for _, chart := range []string{"beside-redis.svg", "listeners.svg"} {
		wantXML(t, filepath.Join(folder, chart))
	}
}

// wantSamples looks for figures of every backend of a shape, one for each line it is in, and for nothing impossible.
func wantSamples(t *testing.T, r Result) {
	i := slices.IndexFunc(shapes, func(s shape) bool { return s.name == r.Shape })
	for _, backend := range shapes[i].backends {
		if slices.Contains(r.NotRun, backend) {
			t.Logf("%s: no figures of %s on this machine", r.Shape, backend)
			continue
		}
		if !slices.ContainsFunc(r.Samples, func(s Sample) bool { return s.Backend == backend && len(s.Metrics) > 0 }) {
			t.Errorf("%s: no figures of %s", r.Shape, backend)
		}
	}
	for _, s := range r.Samples {
		for name, v := range s.Metrics {
			share := strings.HasPrefix(name, "hit.") && name != "hit.ns" || name == "stale.share" || name == "table.hot"
			if v < 0 || share && v > 1 && !strings.HasPrefix(r.Shape, "hit") {
				t.Errorf("%s, %s: %s is %v", r.Shape, s.Backend, name, v)
			}
		}
	}
}

func wantXML(t *testing.T, path string) {
	t.Helper()
	file, err := os.Open(path)
	if err != nil {
		t.Error(err)
		return
	}
	defer file.Close()
	for d := xml.NewDecoder(file); ; {
		if _, err := d.Token(); errors.Is(err, io.EOF) {
			return
		} else if err != nil {
			t.Errorf("%s: %v", path, err)
			return
		}
	}
}

func TestParseRefusesNonsense(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ args, want string }{
		{"-shapes seed,sead", `no "sead"`},
		{"-backends memcached", `no "memcached"`},
		{"-rows 10,ten", `"ten"`},
		{"-rows 0", `"0"`},
		{"-rows 1000000000", `1000000000`},
		{"-reps 0", "-reps"},
		{"-duration 0s", "-duration"},
		{"-value 8", "16 bytes"},
		{"-report", "-out"},
		{"seed", `"seed"`},
	} {
		if _, err := parse(strings.Fields(test.args), io.Discard); err == nil || !strings.Contains(err.Error(), test.want) {
			t.Errorf("%s: got %v, want %q", test.args, err, test.want)
		}
	}
}

// A smoke run is small, but what is set by hand counts.
func TestQuickIsADefault(t *testing.T) {
	t.Parallel()
	c, err := parse([]string{"-quick", "-reps", "3", "-rows", "7"}, io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if c.reps != 3 || !slices.Equal(c.rows, []int{7}) || c.sizes.keys != quickSizes().keys {
		t.Errorf("got %d repetitions, rows %v, %d keys", c.reps, c.rows, c.sizes.keys)
	}
}
