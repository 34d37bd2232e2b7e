package internal_test

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// copied makes a module outside of the repository that uses it as a program of a user's does, with copies of files, and
// returns its folder.
func copied(t *testing.T, files ...string) string {
	t.Helper()
	repo, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	write := func(name string, content []byte) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	read := func(path string) []byte {
		t.Helper()
		content, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		return content
	}
	// The same versions, so that all is in the module cache.
	mod := strings.Replace(string(read(filepath.Join(repo, "go.mod"))), "module github.com/pgcache/go\n", "module example.com/copied\n", 1)
	mod += "\nrequire github.com/pgcache/go v0.0.0\n\nreplace github.com/pgcache/go => " + repo + "\n"
	write("go.mod", []byte(mod))
	write("go.sum", read(filepath.Join(repo, "go.sum")))
	for _, file := range files {
		write(filepath.Base(file), read(file))
	}
	return dir
}

// goTool runs the go command in dir, without a network.
func goTool(t *testing.T, dir string, args ...string) string {
	t.Helper()
	return goToolEnv(t, dir, nil, args...)
}

func goToolEnv(t *testing.T, dir string, env []string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "GOPROXY=off", "GOFLAGS=-mod=mod", "GOWORK=off")
	cmd.Env = append(cmd.Env, env...)
	out, err := cmd.CombinedOutput()
	if strings.Contains(string(out), "GOPROXY=off") {
		t.Skipf("the module cache lacks something that the copy needs:\n%s", out)
	}
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}

// TestExamplesCompileCopied: whoever copies an example out of the repository has a program.
func TestExamplesCompileCopied(t *testing.T) {
	t.Parallel()
	examples, err := filepath.Glob("../examples/*")
	if err != nil || len(examples) < 2 {
		t.Fatalf("examples: %v, %v", examples, err)
	}
	for _, example := range examples {
		if _, err := os.Stat(filepath.Join(example, "go.mod")); err == nil {
			continue // a module of its own, with more than the library needs
		}
		t.Run(filepath.Base(example), func(t *testing.T) {
			t.Parallel()
			files, err := filepath.Glob(filepath.Join(example, "*.go"))
			if err != nil || len(files) == 0 {
				t.Fatalf("files: %v, %v", files, err)
			}
			dir := copied(t, files...)
			goTool(t, dir, "build", "-o", os.DevNull, ".")
			goTool(t, dir, "vet", ".") // compiles its tests too
		})
	}
}

// TestPgcachetestOutside: the examples of pgcachetest run in somebody's module, with nothing of the repository at hand.
func TestPgcachetestOutside(t *testing.T) {
	t.Parallel()
	dir := copied(t, "../pgcachetest/example_test.go")
	out := goTool(t, dir, "test", "-count=1", "-v", "./...")
	for _, want := range []string{"PASS: Example ", "PASS: Example_nodes", "PASS: Example_faults"} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in:\n%s", want, out)
		}
	}
}
