package main

import (
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestMedian(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		in   []float64
		want float64
	}{{nil, 0}, {[]float64{3}, 3}, {[]float64{9, 1, 5}, 5}, {[]float64{4, 1, 3, 2}, 2.5}} {
		if got := median(test.in); got != test.want {
			t.Errorf("median of %v is %v, want %v", test.in, got, test.want)
		}
	}
	in := []float64{2, 1}
	if median(in); in[0] != 2 {
		t.Error("the input was sorted")
	}
}

func readResult() Result {
	r := Result{Shape: "read", Run: Run{Reps: 3, Versions: map[string]string{"Go": "1.25"}}, NotRun: []string{valkey}}
	for rep, v := range []float64{1000, 53_400, 2000} {
		r.Samples = append(r.Samples,
			Sample{Line: getOne, Backend: pgBare, Rep: rep + 1, Metrics: metrics{"read.ops": v, "read.p50_us": 100}},
			Sample{Line: getOne, Backend: pgNoLocal, Rep: rep + 1, Metrics: metrics{"read.ops": v / 2, "read.p50_us": 123.456}})
	}
	return r
}

func TestTable(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	readResult().write(&out)
	_, table, _ := strings.Cut(out.String(), "\n\n")
	_, table, _ = strings.Cut(table, "\n\n")
	want := `|               | backend                 | reads/s | p50 (ms) |
|---------------|-------------------------|--------:|---------:|
| Get, 1 caller | bare statement          |   2,000 |    0.100 |
| Get, 1 caller | postgres-no-local-cache |   1,000 |    0.123 |
|               | valkey                  | not run |          |
`
	if diff := cmp.Diff(want, table); diff != "" {
		t.Error(diff)
	}
}

func TestFormats(t *testing.T) {
	t.Parallel()
	for _, test := range []struct{ got, want string }{
		{thousands(0), "0"},
		{thousands(999.6), "1,000"},
		{thousands(1234567), "1,234,567"},
		{thousands(-123), "-123"},
		{digits(0), "0"},
		{digits(.00123), "0.00123"},
		{digits(1.236), "1.24"},
		{digits(45.67), "45.7"},
		{digits(12345.6), "12346"},
		{small(3), "3"},
		{small(3.14159), "3.14"},
		{megabytes(3 << 19), "1.50 MB"},
		{brief(53_420), "53.4k"},
		{brief(2_000_000), "2M"},
		{brief(464.93), "464.9"},
	} {
		if test.got != test.want {
			t.Errorf("got %q, want %q", test.got, test.want)
		}
	}
}

func TestSavedResultsComeBack(t *testing.T) {
	t.Parallel()
	folder := filepath.Join(t.TempDir(), "new")
	want := readResult()
	if err := want.save(folder); err != nil {
		t.Fatal(err)
	}
	got, err := load(folder)
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]Result{want}, got); diff != "" {
		t.Error(diff)
	}
	if err := os.WriteFile(filepath.Join(folder, "seed.json"), []byte(`{"Shape":"read"}`), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := load(folder); err == nil || !strings.Contains(err.Error(), "seed.json") {
		t.Errorf("a file of another shape: got %v", err)
	}
	if _, err := load(t.TempDir()); err == nil {
		t.Error("an empty folder has figures")
	}
}

func TestTargets(t *testing.T) {
	t.Parallel()
	set := func(line, backend string, v float64) figures {
		return figures{"write": {line: {backend: metrics{"write.ops": v}}}}
	}
	join := func(fs ...figures) figures {
		out := figures{}
		for _, f := range fs {
			for shape, lines := range f {
				for line, backends := range lines {
					for backend, m := range backends {
						if out[shape] == nil {
							out[shape] = medians{}
						}
						if out[shape][line] == nil {
							out[shape][line] = map[string]metrics{}
						}
						out[shape][line][backend] = m
					}
				}
			}
		}
		return out
	}
	var write target
	for _, target := range targets {
		if strings.HasPrefix(target.measure, "coherent Set") {
			write = target
		}
	}
	four := join(set("4 listening", pgCache, 56), set("4 listening", valkey, 53))
	more := join(four, set("48 listening", pgCache, 51), set("48 listening", valkey, 53))
	for _, test := range []struct {
		f              figures
		found, verdict string
	}{
		{nil, "", "not run"},
		{set("4 listening", pgCache, 56), "", "not run"},
		{four, "1.06x with 4", "met as far as it was run"},
		{join(more, set("128 listening", pgCache, 51)), "1.06x with 4; 0.96x with 48; loses 9 % from 4 to 128", "met"},
		{join(more, set("128 listening", pgCache, 49)), "1.06x with 4; 0.96x with 48; **loses 12 % from 4 to 128**", "**missed**"},
	} {
		found, verdict := write.judge(test.f)
		if diff := cmp.Diff([]string{test.found, test.verdict}, []string{found, verdict}); diff != "" {
			t.Error(diff)
		}
	}

	pq := figures{"pq": {
		getOne: {pgNoLocal: metrics{"read.ops": 10}, pgNoLocPQ: metrics{"read.ops": 9}},
		"seed": {pgCache: metrics{"read.ops": 10, "write.ops": 4}, pgCachePQ: metrics{"read.ops": 10, "write.ops": 3}},
	}}
	if got := besidePgx(pq); got[0].got != .75 || !strings.Contains(got[0].text, "seed, writes") {
		t.Errorf("lib/pq's worst line is %v %q", got[0].got, got[0].text)
	}
	if got := besidePgx(nil); !math.IsNaN(got[0].got) {
		t.Errorf("without figures it is %v", got[0].got)
	}
}

// Every target finds its figures in what the shapes measure: with all figures equal, nothing is "not run".
func TestTargetsNameWhatIsMeasured(t *testing.T) {
	t.Parallel()
	f := figures{}
	lines := map[string][]string{
		"seed": {""}, "seed-network": {""}, "service": {""}, "hot": {""}, "memory": {""}, "pq": {getOne}, "hit": {"1024 of 4096"},
		"read":   {getOne, setOne, callersLine(fullSizes().readCallers[2])},
		"write":  {listeningLine(4), listeningLine(48), listeningLine(128)},
		"size":   {sizeLine(10_000), sizeLine(10_000_000)},
		"shards": {serversLine(1), serversLine(2)}, "watch": {fsyncLine("on"), fsyncLine("off")},
	}
	for _, s := range shapes {
		f[s.name] = medians{}
		for _, line := range lines[s.name] {
			f[s.name][line] = map[string]metrics{}
			for _, backend := range s.backends {
				m := metrics{}
				for _, c := range s.columns {
					m[c.metric] = 1
				}
				f[s.name][line][backend] = m
			}
		}
	}
	for _, target := range targets {
		if _, verdict := target.judge(f); verdict == notRun || strings.Contains(verdict, "as far as") {
			t.Errorf("%s: %s", target.measure, verdict)
		}
	}
}

func TestCharts(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := writeCharts([]Result{{Shape: "hit"}}, folder); err != nil {
		t.Fatal(err)
	}
	if files, _ := os.ReadDir(folder); len(files) > 0 {
		t.Errorf("without figures it drew %v", files)
	}
	var samples []Sample
	for _, n := range fullSizes().listening {
		for i, backend := range writeBackends {
			samples = append(samples, Sample{Line: listeningLine(n), Backend: backend, Metrics: metrics{"write.ops": float64(10_000 * (i + 1))}})
		}
	}
	if err := writeCharts([]Result{{Shape: "write", Samples: samples}}, folder); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string][]string{"listeners.svg": {"128", "go-redis (publishes nothing)"}, "beside-redis.svg": {"48 nodes listen", "40k"}} {
		wantXML(t, filepath.Join(folder, name))
		svg, err := os.ReadFile(filepath.Join(folder, name))
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range want {
			if !strings.Contains(string(svg), text) {
				t.Errorf("%s lacks %q", name, text)
			}
		}
	}
}

func TestRunSaysWhere(t *testing.T) {
	t.Parallel()
	head := Run{
		CPU: "Some CPU", Cores: 2, Load: "7.00 1 1", Command: "go run . -reps 7", Reps: 7, Quick: true,
		Versions: map[string]string{"Go": "1.25", "redis": "7.0"}, Sources: map[string]string{"PostgreSQL": "PGCACHE_DSN", "redis": "/usr/bin/redis-server"},
		Postgres: map[string]string{"fsync": "on"}, Redis: map[string]string{"appendonly": `"no"`},
	}.String()
	for _, want := range []string{"Some CPU", "busy", "Go 1.25", "redis 7.0", "fsync = on", `appendonly = "no"`, "go run . -reps 7", "7 repetitions", "smoke run"} {
		if !strings.Contains(head, want) {
			t.Errorf("the head lacks %q:\n%s", want, head)
		}
	}
}

// TestOneShapeLeavesTheOthers: a run of some shapes changes nothing that the folder holds of others.
func TestOneShapeLeavesTheOthers(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	var out strings.Builder
	other := Result{Shape: "hot", Samples: []Sample{{Backend: pgCache, Metrics: metrics{"write.ops": 77_080, "table.hot": 1}}}}
	for _, r := range []Result{readResult(), other} {
		if err := r.save(folder); err != nil {
			t.Fatal(err)
		}
		out.Reset()
		if err := publish([]Result{r}, folder, &out); err != nil {
			t.Fatal(err)
		}
	}
	text, err := os.ReadFile(filepath.Join(folder, "results.md"))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(text), "\n## read\n") || !strings.Contains(string(text), "77,080") {
		t.Errorf("results.md lacks a shape:\n%s", text)
	}
	if strings.Contains(out.String(), "\n## read\n") {
		t.Error("what was not measured is printed")
	}
}

// TestNothingIsReplacedByLess: a run of some backends, or a smoke run, does not replace the figures of a whole one.
func TestNothingIsReplacedByLess(t *testing.T) {
	t.Parallel()
	folder := t.TempDir()
	if err := readResult().save(folder); err != nil {
		t.Fatal(err)
	}
	for _, test := range []struct {
		c      config
		spoils bool
	}{
		{config{out: folder}, false},
		{config{out: folder, backends: []string{valkey}}, true},
		{config{out: folder, quick: true}, true},
		{config{out: folder, quick: true, shapes: []string{"read"}}, true},
		{config{out: folder, quick: true, shapes: []string{"hot"}}, false},
		{config{out: t.TempDir(), quick: true}, false},
		{config{quick: true, backends: []string{valkey}}, false},
	} {
		if err := test.c.spoils(); (err != nil) != test.spoils {
			t.Errorf("%+v: %v", test.c, err)
		}
	}
	smoke := readResult()
	smoke.Run.Quick = true
	if err := smoke.save(folder); err != nil {
		t.Fatal(err)
	}
	if err := (config{out: folder, quick: true}).spoils(); err != nil {
		t.Errorf("one smoke run after another: %v", err)
	}
}
