// Package upstream runs the tests of another project against our implementation of its interface: the test files of the
// version in go.mod, with a few lines replaced, as files of the package under test. So no test of theirs is copied into this
// repository, and a new version brings its new tests.
package upstream

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// inside is set in the process that runs the other project's tests.
const inside = "PGCACHE_UPSTREAM_TESTS"

// Suite says which tests are run, and what is replaced in them.
type Suite struct {
	Module  string      // "github.com/viccon/sturdyc"
	Files   []string    // in the module's root
	Replace []string    // pairs of old and new text; each old one must be there in at least one file
	Cut     [][2]string // pairs of texts: from the first on up to the second, which stays, all is left out; where they are not there, nothing
	Run     string      // what -run of go test gets
	Min     int         // how many tests must pass at least, so that none is lost in silence
}

// Run runs the suite in the package of the calling test, in a go test of its own of three minutes at most, and logs which tests passed.
func Run(t *testing.T, s Suite) {
	t.Helper()
	if os.Getenv(inside) != "" {
		t.Skip("runs the others' tests, and is not one of them")
	}
	from := strings.TrimSpace(goTool(t, "list", "-m", "-f", "{{.Dir}}", s.Module))
	dir := t.TempDir()
	here, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{}
	used := make([]bool, len(s.Replace))
	for i, name := range s.Files {
		content, err := os.ReadFile(filepath.Join(from, name))
		if err != nil {
			t.Fatal(err)
		}
		text := string(content)
		for _, cut := range s.Cut {
			before, rest, found := strings.Cut(text, cut[0])
			_, after, closed := strings.Cut(rest, cut[1])
			if found && closed {
				text = before + cut[1] + after
			}
		}
		for r := 0; r < len(s.Replace); r += 2 {
			used[r] = used[r] || strings.Contains(text, s.Replace[r])
			text = strings.ReplaceAll(text, s.Replace[r], s.Replace[r+1])
		}
		copied := filepath.Join(dir, fmt.Sprintf("upstream%d_test.go", i))
		if err := os.WriteFile(copied, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		files[filepath.Join(here, fmt.Sprintf("zz_upstream%d_test.go", i))] = copied
	}
	for r := 0; r < len(s.Replace); r += 2 {
		if !used[r] {
			t.Fatalf("%q is not in %v of %s any more", s.Replace[r], s.Files, s.Module)
		}
	}
	overlay, err := json.Marshal(map[string]any{"Replace": files})
	if err != nil {
		t.Fatal(err)
	}
	overlayFile := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlayFile, overlay, 0o600); err != nil {
		t.Fatal(err)
	}
	out := goTool(t, "test", "-vet=off", "-count=1", "-v", "-timeout", "3m", "-overlay", overlayFile, "-run", s.Run, ".")
	passed := regexp.MustCompile(`(?m)^--- PASS: (\S+)`).FindAllStringSubmatch(out, -1)
	for _, p := range passed {
		t.Logf("passed: %s of %s", p[1], s.Module)
	}
	if len(passed) < s.Min {
		t.Errorf("%d tests of %s passed, there were %d:\n%s", len(passed), s.Module, s.Min, out)
	}
}

func goTool(t *testing.T, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "go", args...)
	cmd.Env = append(os.Environ(), inside+"=1")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("go %s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return string(out)
}
