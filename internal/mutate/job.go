package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"
)

// job is what the flags ask for.
type job struct {
	dsn      string
	workers  int
	verbose  bool
	skipAny  bool
	only     *regexp.Regexp
	skip     *regexp.Regexp
	files    *regexp.Regexp
	harmless map[string]bool
}

// test is a test function, alone.
type test struct {
	name string
	took time.Duration
	hits map[int]bool
}

// listed is what go list says about a package.
type listed struct {
	Dir, ImportPath, Name, Export string
	GoFiles                       []string
	DepOnly                       bool
}

func (j *job) pkg(ctx context.Context, path string) (score, error) {
	dir, err := os.MkdirTemp("", "mutate")
	if err != nil {
		return score{}, err
	}
	defer os.RemoveAll(dir)
	pkg, mutants, overlay, err := j.rewrite(ctx, path, dir)
	if err != nil {
		return score{}, err
	}
	binary := filepath.Join(dir, "tests")
	if out, err := exec.CommandContext(ctx, "go", "test", "-c", "-o", binary, "-overlay", overlay, pkg.ImportPath).CombinedOutput(); err != nil {
		return score{}, fmt.Errorf("build: %w\n%s", err, out)
	}
	tests, err := j.tests(ctx, pkg, binary, dir)
	if err != nil {
		return score{}, err
	}
	s := score{pkg: path, total: len(mutants)}
	var mu sync.Mutex
	var wg sync.WaitGroup
	next := make(chan mutant)
	for range j.workers {
		wg.Go(func() {
			for m := range next {
				killer, reached := j.try(ctx, pkg, binary, tests, m)
				mu.Lock()
				name := pkg.Name + " " + m.name
				place := fmt.Sprintf("%s/%s:%d: `%s`", path, filepath.Base(m.at.Filename), m.at.Line, strings.ReplaceAll(name, "|", `\|`))
				switch {
				case killer != "":
					s.killed++
					if j.verbose {
						fmt.Println("killed", place, "by", killer)
					}
				case j.harmless[name]:
					s.harmless++
				case !reached:
					s.unreached++
					fmt.Println("unreached", place)
				default:
					fmt.Println("SURVIVED", place)
				}
				mu.Unlock()
			}
		})
	}
	for _, m := range mutants {
		if ctx.Err() != nil {
			break
		}
		next <- m
	}
	close(next)
	wg.Wait()
	return s, ctx.Err()
}

// rewrite writes the package with its switches to dir.
func (j *job) rewrite(ctx context.Context, path, dir string) (pkg listed, mutants []mutant, overlay string, err error) {
	out, err := exec.CommandContext(ctx, "go", "list", "-export", "-deps", "-json=Dir,ImportPath,Name,Export,GoFiles,DepOnly", path).Output()
	if err != nil {
		return pkg, nil, "", fmt.Errorf("go list: %w", err)
	}
	exports := map[string]string{}
	for dec := json.NewDecoder(bytes.NewReader(out)); ; {
		var p listed
		if err := dec.Decode(&p); errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return pkg, nil, "", err
		}
		exports[p.ImportPath] = p.Export
		if !p.DepOnly {
			pkg = p
		}
	}
	fset := token.NewFileSet()
	var files []*ast.File
	for _, name := range pkg.GoFiles {
		f, err := parser.ParseFile(fset, filepath.Join(pkg.Dir, name), nil, parser.ParseComments|parser.SkipObjectResolution)
		if err != nil {
			return pkg, nil, "", err
		}
		files = append(files, f)
	}
	info := &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}}
	conf := types.Config{Importer: importer.ForCompiler(fset, "gc", func(path string) (io.ReadCloser, error) { return os.Open(exports[path]) })}
	if _, err := conf.Check(pkg.ImportPath, fset, files, info); err != nil {
		return pkg, nil, "", err
	}
	replace := map[string]string{filepath.Join(pkg.Dir, "mutate_helpers.go"): filepath.Join(dir, "mutate_helpers.go")}
	if err := os.WriteFile(filepath.Join(dir, "mutate_helpers.go"), []byte(helpers(pkg.Name)), 0o600); err != nil {
		return pkg, nil, "", err
	}
	for i, f := range files {
		name := filepath.Join(pkg.Dir, pkg.GoFiles[i])
		if !j.files.MatchString(pkg.GoFiles[i]) {
			continue
		}
		text, err := os.ReadFile(name)
		if err != nil {
			return pkg, nil, "", err
		}
		r := rewriter{
			fset: fset, info: info, text: text, mutants: &mutants,
			wraps: map[ast.Node][]wrap{}, drops: map[ast.Stmt]bool{}, skip: map[ast.Node]bool{},
		}
		replace[name] = filepath.Join(dir, pkg.GoFiles[i])
		if err := os.WriteFile(replace[name], r.file(f), 0o600); err != nil {
			return pkg, nil, "", err
		}
	}
	overlay = filepath.Join(dir, "overlay.json")
	mapping, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return pkg, nil, "", err
	}
	return pkg, mutants, overlay, os.WriteFile(overlay, mapping, 0o600)
}

// tests runs each test alone, and leaves out those that fail without any change: they depend on how busy the machine is.
func (j *job) tests(ctx context.Context, pkg listed, binary, dir string) ([]test, error) {
	list := exec.CommandContext(ctx, binary, "-test.list", "^(Test|Fuzz)")
	list.Dir = pkg.Dir
	out, err := list.Output()
	if err != nil {
		return nil, fmt.Errorf("list the tests: %w", err)
	}
	var tests []test
	for _, name := range strings.Fields(string(out)) {
		if !j.only.MatchString(name) || j.skipAny && j.skip.MatchString(name) {
			continue
		}
		record := filepath.Join(dir, "record")
		os.Remove(record)
		began := time.Now()
		killer := j.exec(ctx, pkg, binary, []string{name}, 5*time.Minute, "PGCACHE_MUTANT_RECORD="+record)
		t := test{name, time.Since(began), map[int]bool{}}
		if killer != "" {
			fmt.Printf("left out: %s fails without any change (%s)\n", name, killer)
			continue
		}
		reached, _ := os.ReadFile(record)
		for _, id := range strings.Fields(string(reached)) {
			n, _ := strconv.Atoi(id)
			t.hits[n] = true
		}
		tests = append(tests, t)
	}
	slices.SortFunc(tests, func(a, b test) int { return int(a.took - b.took) })
	return tests, nil
}

// quick is the time of all tests that are run first: most mutants end there.
const quick = 2 * time.Second

// try runs the tests that reach m. It returns the test that failed.
func (j *job) try(ctx context.Context, pkg listed, binary string, tests []test, m mutant) (killer string, reached bool) {
	var names []string
	var total time.Duration
	run := func() string {
		if len(names) == 0 {
			return ""
		}
		killer := j.exec(ctx, pkg, binary, names, 5*time.Second+4*total, fmt.Sprint("PGCACHE_MUTANT=", m.id))
		names, total = nil, 0
		return killer
	}
	for _, t := range tests {
		// The second mutant of a comparison is asked for only behind the first, and is always reached with it.
		if !t.hits[m.id] {
			continue
		}
		reached = true
		if total > 0 && total+t.took > quick {
			if killer := run(); killer != "" {
				return killer, true
			}
		}
		names, total = append(names, t.name), total+t.took
	}
	return run(), reached
}

// exec runs tests until the first failure, and returns what failed.
func (j *job) exec(ctx context.Context, pkg listed, binary string, names []string, limit time.Duration, env string) string {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	cmd := exec.CommandContext(ctx, binary, "-test.v", "-test.failfast", "-test.run", "^("+strings.Join(names, "|")+")$")
	cmd.Dir = pkg.Dir
	cmd.Env = append(os.Environ(), env, "PGCACHE_DSN="+j.dsn)
	cmd.WaitDelay = time.Second
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err.Error()
	}
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	if err := cmd.Start(); err != nil {
		return err.Error()
	}
	failed := ""
	lines := bufio.NewScanner(out)
	lines.Buffer(nil, 16<<20)
	for lines.Scan() {
		line := strings.TrimSpace(lines.Text())
		if name, ok := strings.CutPrefix(line, "--- FAIL: "); ok && failed == "" {
			failed = strings.Fields(name)[0]
			cancel()
		}
	}
	err = cmd.Wait()
	switch {
	case failed != "":
		return failed
	case errors.Is(ctx.Err(), context.DeadlineExceeded):
		return "the time limit"
	case err != nil:
		first, _, _ := strings.Cut(strings.TrimSpace(stderr.String()), "\n")
		return err.Error() + ": " + first
	}
	return ""
}
