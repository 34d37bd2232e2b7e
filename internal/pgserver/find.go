package pgserver

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// oldest is the oldest major version that a throw-away cluster is started from.
const oldest = 14

var errNoFolder = errors.New("neither the PATH, nor pg_config --bindir, nor the usual folders have any")

// usual are the folders in which packages leave the server's binaries without putting them on the PATH.
var usual = []string{
	"/usr/lib/postgresql/*/bin",                          // Debian, Ubuntu
	"/usr/pgsql-*/bin",                                   // RPMs of the PostgreSQL project
	"/usr/libexec/postgresql*",                           // Alpine
	"/usr/lib64/postgresql-*/bin",                        // Gentoo
	"/opt/homebrew/opt/postgresql*/bin",                  // Homebrew
	"/usr/local/opt/postgresql*/bin",                     // Homebrew on Intel
	"/opt/local/lib/postgresql*/bin",                     // MacPorts
	"/Applications/Postgres.app/Contents/Versions/*/bin", // Postgres.app
	"/Library/PostgreSQL/*/bin",                          // EDB's installer
	"/usr/local/pgsql/bin",                               // make install
}

func thisMachine() machine {
	return machine{getenv: os.Getenv, folders: binaryFolders, fetch: repository{url: mavenCentral, cache: cacheFolder}.fetch}
}

// binaryFolders returns the folders of this machine that hold an initdb, best first.
func binaryFolders(ctx context.Context) []string {
	var dirs []string
	add := func(dir string) {
		if _, err := os.Stat(filepath.Join(dir, "initdb")); err == nil && !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	for _, name := range []string{"postgres", "initdb"} {
		path, err := exec.LookPath(name)
		if err != nil {
			continue
		}
		add(filepath.Dir(path))
		// /usr/local/bin/postgres may be no more than a link to where its companions are.
		if path, err = filepath.EvalSymlinks(path); err == nil {
			add(filepath.Dir(path))
		}
	}
	if out, err := exec.CommandContext(ctx, "pg_config", "--bindir").Output(); err == nil {
		add(strings.TrimSpace(string(out)))
	}
	for _, pattern := range usual {
		found, _ := filepath.Glob(pattern) // fails on a bad pattern only
		slices.SortFunc(found, newestFirst)
		for _, dir := range found {
			add(dir)
		}
	}
	return dirs
}

var number = regexp.MustCompile(`\d+`)

// newestFirst orders folders by the last version number in their name, numerically: 17, 9.6, none at all.
func newestFirst(a, b string) int {
	version := func(dir string) []int {
		var v []int
		for _, digits := range number.FindAllString(dir, -1) {
			n, _ := strconv.Atoi(digits)
			v = append(v, n)
		}
		return v
	}
	return cmp.Or(slices.Compare(version(b), version(a)), cmp.Compare(a, b))
}

var postgresVersion = regexp.MustCompile(`PostgreSQL\) (\d+)`)

// usable says why a throw-away cluster cannot be started from dir. It runs what it finds, so that a broken installation
// does not hide a good one that comes after it.
func usable(ctx context.Context, dir string) error {
	for _, name := range []string{"initdb", "postgres"} {
		path := filepath.Join(dir, name)
		if _, err := os.Stat(path); err != nil {
			return fmt.Errorf("%s: %w", dir, err)
		}
		out, err := output(ctx, path, "--version")
		if err != nil {
			return fmt.Errorf("%s --version: %w %s", path, err, out)
		}
		match := postgresVersion.FindSubmatch(out)
		if match == nil {
			return fmt.Errorf("%s --version: %q is not how PostgreSQL answers", path, out)
		}
		if major, _ := strconv.Atoi(string(match[1])); major < oldest {
			return fmt.Errorf("%s is PostgreSQL %s, and %d is the oldest that will do", path, match[1], oldest)
		}
	}
	return nil
}
