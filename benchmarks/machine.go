package main

import (
	"context"
	"fmt"
	"maps"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Run says where, with what and how figures were measured.
type Run struct {
	Started    time.Time
	Command    string
	Reps       int
	Duration   string // of one measurement
	ValueBytes int
	Quick      bool `json:",omitempty"`

	OS, CPU  string
	Cores    int
	MemoryMB int64
	Load     string `json:",omitempty"` // of the machine in the minutes before

	Versions map[string]string
	Postgres map[string]string // settings
	Redis    map[string]string `json:",omitempty"`
	Sources  map[string]string // where the servers came from
}

func describe(ctx context.Context, cfg config, s *servers) (Run, error) {
	r := Run{
		Started: time.Now().Truncate(time.Second), Command: strings.TrimSpace("go run . " + strings.Join(cfg.args, " ")),
		Reps: cfg.reps, Duration: cfg.duration.String(), ValueBytes: cfg.valueBytes, Quick: cfg.quick,
		OS: runtime.GOOS + "/" + runtime.GOARCH, CPU: cpuModel(), Cores: runtime.GOMAXPROCS(0), MemoryMB: memoryMB(), Load: loadAverage(),
		Versions: map[string]string{"Go": strings.TrimPrefix(runtime.Version(), "go"), "PostgreSQL": s.pg.Version},
		Sources:  map[string]string{"PostgreSQL": s.pg.Source},
	}
	var err error
	if r.Postgres, err = s.postgresSettings(ctx); err != nil {
		return r, err
	}
	if s.redis != nil {
		name, version, _ := strings.Cut(s.redis.version, " ")
		r.Versions[name], r.Sources[name] = version, s.redis.source
		r.Redis = s.redisSettings(ctx)
	}
	libraries := []string{
		"github.com/jackc/pgx/v5", "github.com/lib/pq", "github.com/maypok86/otter/v2", "github.com/redis/go-redis/v9", "github.com/redis/rueidis",
	}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, dep := range info.Deps {
			if slices.Contains(libraries, dep.Path) {
				r.Versions[strings.TrimPrefix(dep.Path, "github.com/")] = dep.Version
			}
		}
	}
	return r, nil
}

// String is the head of the tables.
func (r Run) String() string {
	var b strings.Builder
	line := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "- **%s** %s\n", name, fmt.Sprintf(format, args...))
	}
	line("machine", "%s, %d cores, %.1f GB of memory, %s%s", r.CPU, r.Cores, float64(r.MemoryMB)/1024, r.OS, r.busy())
	line("versions", "%s", pairs(r.Versions, " "))
	line("PostgreSQL", "from %s, %s; the cache's tables are UNLOGGED", r.Sources["PostgreSQL"], pairs(r.Postgres, " = "))
	for _, name := range []string{"redis", "valkey"} {
		if source, ok := r.Sources[name]; ok {
			line(name, "from %s, in memory only unless this says otherwise: %s", source, pairs(r.Redis, " = "))
		}
	}
	line("run", "`%s`, %s; %d repetitions with the backends interleaved, the tables show medians; %d-byte values",
		r.Command, r.Started.Format("2006-01-02 15:04"), r.Reps, r.ValueBytes)
	if r.Quick {
		b.WriteString("\n**A smoke run: these figures mean nothing.**\n")
	}
	return b.String()
}

// busy warns of a machine that had other things to do.
func (r Run) busy() string {
	first, _, _ := strings.Cut(r.Load, " ")
	if load, err := strconv.ParseFloat(first, 64); err == nil && load > float64(r.Cores) {
		return fmt.Sprintf(" (**busy with other things**: load %s before the run)", r.Load)
	}
	return ""
}

func pairs(m map[string]string, between string) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(m)) {
		parts = append(parts, name+between+m[name])
	}
	return strings.Join(parts, ", ")
}

func cpuModel() string {
	if model := field("/proc/cpuinfo", "model name"); model != "" {
		return model
	}
	return "a " + runtime.GOARCH + " processor"
}

func memoryMB() int64 {
	kb, _ := strconv.ParseInt(strings.TrimSuffix(field("/proc/meminfo", "MemTotal"), " kB"), 10, 64)
	return kb / 1024
}

// loadAverage is the load average over 1, 5 and 15 minutes, where the system tells.
func loadAverage() string {
	data, err := os.ReadFile("/proc/loadavg")
	if fields := strings.Fields(string(data)); err == nil && len(fields) > 2 {
		return strings.Join(fields[:3], " ")
	}
	return ""
}

// field is the value of the first line "name : value" of a file, or "".
func field(path, name string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(data)) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return ""
}
