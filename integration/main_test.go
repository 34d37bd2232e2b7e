package integration

import (
	"flag"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"go.uber.org/goleak"
)

// supported are the major versions that the library promises to work with.
var supported = []int{14, 15, 16, 17, 18}

func TestMain(m *testing.M) {
	flag.Parse()
	chosen := false
	flag.Visit(func(f *flag.Flag) { chosen = chosen || f.Name == "test.parallel" })
	if !chosen {
		_ = flag.Set("test.parallel", "8") // the cases wait more than they work
	}
	code := m.Run()
	if code == 0 {
		if err := goleak.Find(); err != nil {
			fmt.Fprintln(os.Stderr, "the tests pass but leak:", err)
			code = 1
		}
	}
	fmt.Println(ran.summary())
	os.Exit(code)
}

// report is what was tested, for the last line of the output.
type report struct {
	mu      sync.Mutex
	lines   []string
	missing []string
}

var ran report

func (r *report) add(what string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.lines, what) {
		r.lines = append(r.lines, what)
	}
}

func (r *report) miss(major int) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.missing = append(r.missing, fmt.Sprint(major))
}

func (r *report) summary() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.lines) == 0 {
		return "integration: ran against nothing"
	}
	s := "integration: ran against " + strings.Join(r.lines, ", ")
	if len(r.missing) > 0 {
		s += "; not on this machine: PostgreSQL " + strings.Join(r.missing, ", ")
	}
	return s
}
