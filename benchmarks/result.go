package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Result is what was measured of one shape: one file of JSON.
type Result struct {
	Shape   string
	Run     Run
	Took    string   `json:",omitempty"`
	NotRun  []string `json:",omitempty"` // backends that could not be had
	Samples []Sample
}

// Sample is one measurement of one backend.
type Sample struct {
	Line    string // what varies within the shape: "64 callers"; empty where nothing does
	Backend string
	Rep     int
	Metrics metrics
}

// metrics are figures by name: "read.p99_us", "write.ops". The names say the unit; ops are per second.
type metrics map[string]float64

func (m metrics) add(o metrics) metrics {
	for name, v := range o {
		m[name] = v
	}
	return m
}

// medians are the medians of all repetitions, by line, backend and metric.
type medians map[string]map[string]metrics

func (r Result) medians() medians {
	all := map[string]map[string]map[string][]float64{}
	for _, s := range r.Samples {
		if all[s.Line] == nil {
			all[s.Line] = map[string]map[string][]float64{}
		}
		if all[s.Line][s.Backend] == nil {
			all[s.Line][s.Backend] = map[string][]float64{}
		}
		for name, v := range s.Metrics {
			all[s.Line][s.Backend][name] = append(all[s.Line][s.Backend][name], v)
		}
	}
	out := medians{}
	for line, backends := range all {
		out[line] = map[string]metrics{}
		for backend, values := range backends {
			out[line][backend] = metrics{}
			for name, vs := range values {
				out[line][backend][name] = median(vs)
			}
		}
	}
	return out
}

// lines are the lines of the table and the backends of each, in the order of their first measurement.
func (r Result) lines() (lines []string, backends map[string][]string) {
	backends = map[string][]string{}
	for _, s := range r.Samples {
		if !slices.Contains(lines, s.Line) {
			lines = append(lines, s.Line)
		}
		if !slices.Contains(backends[s.Line], s.Backend) {
			backends[s.Line] = append(backends[s.Line], s.Backend)
		}
	}
	return lines, backends
}

// median returns the middle value, or the mean of the two in the middle. 0 for none.
func median(vs []float64) float64 {
	if len(vs) == 0 {
		return 0
	}
	vs = slices.Sorted(slices.Values(vs))
	mid := len(vs) / 2
	if len(vs)%2 == 1 {
		return vs[mid]
	}
	return (vs[mid-1] + vs[mid]) / 2
}

func (r Result) save(folder string) error {
	if folder == "" {
		return nil
	}
	if err := os.MkdirAll(folder, 0o755); err != nil {
		return err
	}
	data, err := json.MarshalIndent(r, "", " ")
	if err != nil {
		return err
	}
	// Renamed into place: a run that is stopped leaves the old file or the new one.
	path := filepath.Join(folder, r.Shape+".json")
	if err := os.WriteFile(path+".new", append(data, '\n'), 0o644); err != nil {
		return err
	}
	return os.Rename(path+".new", path)
}

// spoils says whose figures a run would replace by less: those of all backends by those of some, or real ones by a smoke run's.
func (c config) spoils() error {
	if c.out == "" || len(c.backends) == 0 && !c.quick {
		return nil
	}
	for _, name := range shapeNames() {
		data, err := os.ReadFile(filepath.Join(c.out, name+".json"))
		if err != nil || len(c.shapes) > 0 && !slices.Contains(c.shapes, name) {
			continue
		}
		var r Result
		if err := json.Unmarshal(data, &r); err != nil || len(c.backends) > 0 || !r.Run.Quick {
			return fmt.Errorf("%s holds figures of %s, which -quick or -backends would replace by less: give another -out, or none", c.out, name)
		}
	}
	return nil
}

// load reads what runs have saved in folder, in the order of the shapes.
func load(folder string) (results []Result, err error) {
	for _, name := range shapeNames() {
		path := filepath.Join(folder, name+".json")
		data, err := os.ReadFile(path)
		if errors.Is(err, os.ErrNotExist) {
			continue
		}
		if err != nil {
			return nil, err
		}
		var r Result
		if err := json.Unmarshal(data, &r); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		if r.Shape != name {
			return nil, fmt.Errorf("%s: holds the shape %q", path, r.Shape)
		}
		results = append(results, r)
	}
	if len(results) == 0 {
		return nil, fmt.Errorf("no figures in %s: want %s.json or any of the others", folder, strings.Join(shapeNames()[:1], ""))
	}
	return results, nil
}
