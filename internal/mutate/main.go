// Command mutate changes the code of a package in small ways, one at a time, and looks whether a test of that package
// fails. A change that no test notices is a survivor: a test is missing, or the change is harmless and docs/mutants.md
// says why.
//
//	go run ./internal/mutate [-min 90] [-run regexp] [-skip regexp] [-files regexp] package...
//
// All changes of a package are compiled into one test binary, each behind a switch, because building a binary for each
// change would take most of the time. Each test is first run alone to find the switches that it reaches; a change is then
// tried with these tests only. The tree is never written to. See docs/decisions/0016-mutants-in-one-binary.md.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"regexp"
	"strings"

	"github.com/pgcache/go/internal/pgserver"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	err := run(ctx, os.Args[1:])
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "mutate:", err)
		os.Exit(1)
	}
}

func run(ctx context.Context, args []string) error {
	set := flag.NewFlagSet("mutate", flag.ContinueOnError)
	least := set.Int("min", 0, "fail when less than this percentage of a package's mutants is killed")
	workers := set.Int("workers", 2, "mutants tried at a time")
	only := set.String("run", "", "tests that are run: a regular expression")
	skip := set.String("skip", "", "tests that are not run: a regular expression")
	files := set.String("files", "", "files that are changed: a regular expression; \"\" is all")
	reasons := set.String("harmless", "docs/mutants.md", "the page that lists harmless mutants")
	verbose := set.Bool("v", false, "print every mutant, and which test killed it")
	if err := set.Parse(args); err != nil {
		return err
	}
	page, err := os.ReadFile(*reasons)
	if err != nil && !os.IsNotExist(err) {
		return err
	}
	server, err := pgserver.Start(ctx, func(string, ...any) {})
	if err != nil {
		return err
	}
	defer server.Close()
	job := job{dsn: server.DSN, workers: *workers, verbose: *verbose, harmless: harmless(string(page))}
	if job.skip, err = regexp.Compile(*skip); err != nil {
		return err
	}
	if job.files, err = regexp.Compile(*files); err != nil {
		return err
	}
	if job.only, err = regexp.Compile(*only); err != nil {
		return err
	}
	job.skipAny = *skip != ""
	var low []string
	for _, pkg := range set.Args() {
		score, err := job.pkg(ctx, pkg)
		if err != nil {
			return fmt.Errorf("%s: %w", pkg, err)
		}
		fmt.Println(score)
		if score.percent() < float64(*least) {
			low = append(low, pkg)
		}
	}
	if len(low) > 0 {
		return fmt.Errorf("under %d %% of the mutants are killed in %s", *least, strings.Join(low, ", "))
	}
	return nil
}

// harmless reads the names of mutants from the first column of the page's tables.
func harmless(page string) map[string]bool {
	names := map[string]bool{}
	for _, m := range regexp.MustCompile("(?m)^\\| `(.*?)` \\|").FindAllStringSubmatch(page, -1) {
		names[strings.ReplaceAll(m[1], `\|`, `|`)] = true
	}
	return names
}

// score is what came of one package.
type score struct {
	pkg                                string
	total, killed, harmless, unreached int
}

func (s score) percent() float64 {
	return 100 * float64(s.killed) / float64(max(1, s.total-s.harmless))
}

func (s score) String() string {
	return fmt.Sprintf("%s: %d of %d mutants killed, %d harmless, %d reached by no test: %.1f %%",
		s.pkg, s.killed, s.total, s.harmless, s.unreached, s.percent())
}
