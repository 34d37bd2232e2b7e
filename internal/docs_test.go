package internal_test

import (
	"bytes"
	"fmt"
	"go/ast"
	"go/format"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/pgcache/go/driver/pgxdriver"
	"github.com/pgcache/go/pgcache"
	"github.com/pgcache/go/pgcachetest"
)

// runElsewhere: pages whose Go is compiled with libraries that the root module does not have, and run there. Each block
// stands word for word in a file of the folder.
var runElsewhere = map[string]string{"docs/pools.md": "../examples/pools", "docs/observability.md": "../telemetry/*"}

// A block is a fenced piece of a page.
type block struct {
	page string // its path from the root
	line int
	lang string
	text string
}

func (b block) String() string { return fmt.Sprintf("%s:%d", b.page, b.line) }

var fenced = regexp.MustCompile("(?ms)^```([a-z]*)\n(.*?)^```")

// pages returns the text of every page of the repository, by its path.
func pages(t *testing.T) map[string]string {
	t.Helper()
	all := map[string]string{}
	err := fs.WalkDir(os.DirFS(".."), ".", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && (path != "." && strings.HasPrefix(d.Name(), ".") || d.Name() == "bin" || d.Name() == "testdata") {
			return fs.SkipDir
		}
		if filepath.Ext(path) == ".md" {
			text, err := os.ReadFile(filepath.Join("..", path))
			all[path] = string(text)
			return err
		}
		return nil
	})
	if err != nil || len(all) < 10 {
		t.Fatalf("%d pages, %v", len(all), err)
	}
	return all
}

// blocks returns the fenced pieces of all pages in a language.
func blocks(t *testing.T, lang string) (all []block) {
	t.Helper()
	for page, text := range pages(t) {
		for _, m := range fenced.FindAllStringSubmatchIndex(text, -1) {
			if b := (block{page, 1 + strings.Count(text[:m[0]], "\n"), text[m[2]:m[3]], text[m[4]:m[5]]}); b.lang == lang {
				all = append(all, b)
			}
		}
	}
	slices.SortFunc(all, func(a, b block) int { return strings.Compare(a.String(), b.String()) })
	return all
}

// TestReadmeProgram: who copies the first program of the README into an empty folder can run it.
func TestReadmeProgram(t *testing.T) {
	t.Parallel()
	var program string
	for _, b := range blocks(t, "go") {
		if b.page == "README.md" && strings.HasPrefix(b.text, "package main\n") {
			program = b.text
			break
		}
	}
	if program == "" {
		t.Fatal("the README has no program")
	}
	dir := copied(t)
	if err := os.WriteFile(filepath.Join(dir, "main.go"), []byte(program), 0o644); err != nil {
		t.Fatal(err)
	}
	out := goToolEnv(t, dir, []string{"DATABASE_URL=" + pgcachetest.DSN(t)}, "run", ".")
	if want := "loading user 42\nAnn\nAnn\nAnn\nBea\n"; out != want {
		t.Errorf("it prints\n%s\nwant\n%s", out, want)
	}
}

// TestDocsCompile: every Go block of the documentation compiles. Fragments may use what testdata/prelude.go declares.
func TestDocsCompile(t *testing.T) {
	t.Parallel()
	dir := copied(t)
	prelude, err := os.ReadFile("testdata/prelude.go")
	if err != nil {
		t.Fatal(err)
	}
	n := 0
	for i, b := range blocks(t, "go") {
		if folder, ok := runElsewhere[b.page]; ok {
			containedIn(t, b, folder)
			continue
		}
		files, err := compilable(b.text, string(prelude))
		if err != nil {
			t.Errorf("%v: %v", b, err)
			continue
		}
		to := filepath.Join(dir, fmt.Sprintf("block%03d", i))
		if err := os.Mkdir(to, 0o755); err != nil {
			t.Fatal(err)
		}
		for name, text := range files {
			// Errors name the page and the line.
			text = strings.Replace(text, marker, fmt.Sprintf("//line %s:%d", b.page, b.line+1), 1)
			if err := os.WriteFile(filepath.Join(to, name), []byte(text), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		n++
	}
	if n < 10 {
		t.Errorf("only %d blocks found", n)
	}
	goTool(t, dir, "vet", "./...")
}

// containedIn fails the test unless b stands word for word, but for the indent, in a Go file of folder.
func containedIn(t *testing.T, b block, folder string) {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(folder, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		text, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(flush(string(text)), flush(b.text)) {
			return
		}
	}
	t.Errorf("%v: this block is in no file of %s, where it would be run", b, folder)
}

func flush(text string) string {
	lines := strings.Split(strings.Trim(text, "\n"), "\n")
	for i := range lines {
		lines[i] = strings.TrimSpace(lines[i])
	}
	return strings.Join(lines, "\n") + "\n"
}

// importPaths are the packages that fragments use without an import of their own.
var importPaths = map[string]string{
	"context": "context", "sql": "database/sql", "errors": "errors", "fmt": "fmt", "log": "log", "slog": "log/slog",
	"http": "net/http", "json": "encoding/json", "os": "os", "rand": "crypto/rand", "strings": "strings", "testing": "testing",
	"time": "time", "strconv": "strconv", "sync": "sync", "expvar": "expvar",
	"pgxpool": "github.com/jackc/pgx/v5/pgxpool", "stdlib": "github.com/jackc/pgx/v5/stdlib", "goleak": "go.uber.org/goleak",
	"pgcache": "github.com/pgcache/go/pgcache", "pgcachetest": "github.com/pgcache/go/pgcachetest",
	"pgxdriver": "github.com/pgcache/go/driver/pgxdriver", "pqdriver": "github.com/pgcache/go/driver/pqdriver",
	"listener": "github.com/pgcache/go/listener", "localcache": "github.com/pgcache/go/localcache",
	"codec": "github.com/pgcache/go/codec", "compress": "github.com/pgcache/go/codec/compress",
	"pgcacheui": "github.com/pgcache/go/pgcache/pgcacheui",
	"encrypt":   "github.com/pgcache/go/codec/encrypt", "msgpack": "github.com/pgcache/go/codec/msgpack",
}

// marker stands where the lines of the block begin.
const marker = "// the block"

// compilable returns the files of a package with the block in it.
func compilable(text, prelude string) (map[string]string, error) {
	if strings.HasPrefix(text, "package ") {
		return map[string]string{"block.go": marker + "\n" + text}, nil
	}
	source := "package docs\n" + marker + "\n" + text
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "block.go", source, 0)
	if err != nil { // no declarations: statements
		if source, err = body(text); err != nil {
			return nil, err
		}
		fset = token.NewFileSet()
		if file, err = parser.ParseFile(fset, "block.go", source, 0); err != nil {
			return nil, err
		}
	}
	before, err := without(prelude, declared(file))
	if err != nil {
		return nil, err
	}
	return map[string]string{"block.go": imported(source, file), "prelude.go": before}, nil
}

// body makes a function of statements. Variables that they declare count as used.
func body(text string) (string, error) {
	const head = "package docs\nfunc _() error {\n"
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "block.go", head+text+"\n}\n", 0)
	if err != nil {
		return "", err
	}
	statements := file.Decls[0].(*ast.FuncDecl).Body.List
	var used strings.Builder
	at := 0
	for _, s := range statements {
		a, ok := s.(*ast.AssignStmt)
		if !ok || a.Tok != token.DEFINE {
			continue
		}
		end := fset.Position(a.End()).Offset - len(head)
		used.WriteString(text[at:end])
		at = end
		for _, l := range a.Lhs {
			if id, ok := l.(*ast.Ident); ok && id.Name != "_" {
				used.WriteString("; _ = " + id.Name)
			}
		}
	}
	used.WriteString(text[at:])
	end := "\nreturn nil\n}\n"
	if n := len(statements); n > 0 {
		if _, returns := statements[n-1].(*ast.ReturnStmt); returns {
			end = "}\n"
		}
	}
	return "package docs\nfunc _() error {\n" + marker + "\n" + used.String() + end, nil
}

// declared are the names of the file's own declarations.
func declared(file *ast.File) map[string]bool {
	names := map[string]bool{}
	for _, d := range file.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				names[d.Name.Name] = true
			}
		case *ast.GenDecl:
			for _, s := range d.Specs {
				switch s := s.(type) {
				case *ast.TypeSpec:
					names[s.Name.Name] = true
				case *ast.ValueSpec:
					for _, n := range s.Names {
						names[n.Name] = true
					}
				}
			}
		}
	}
	return names
}

// without is the prelude but for some names, and for methods of types with such a name.
func without(prelude string, names map[string]bool) (string, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, "prelude.go", prelude, parser.ParseComments)
	if err != nil {
		return "", err
	}
	file.Decls = slices.DeleteFunc(file.Decls, func(d ast.Decl) bool {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Recv == nil {
				return names[d.Name.Name]
			}
			of := d.Recv.List[0].Type
			if star, ok := of.(*ast.StarExpr); ok {
				of = star.X
			}
			return names[of.(*ast.Ident).Name]
		case *ast.GenDecl:
			d.Specs = slices.DeleteFunc(d.Specs, func(s ast.Spec) bool {
				switch s := s.(type) {
				case *ast.TypeSpec:
					return names[s.Name.Name]
				case *ast.ValueSpec:
					return names[s.Names[0].Name]
				}
				return false
			})
			return len(d.Specs) == 0
		}
		return false
	})
	file.Comments = nil
	var out bytes.Buffer
	if err := format.Node(&out, fset, file); err != nil {
		return "", err
	}
	if file, err = parser.ParseFile(token.NewFileSet(), "prelude.go", out.String(), 0); err != nil {
		return "", err
	}
	return imported(out.String(), file), nil
}

// imported adds the imports that the file takes for granted.
func imported(source string, file *ast.File) string {
	has := map[string]bool{}
	for _, i := range file.Imports {
		has[strings.Trim(i.Path.Value, `"`)] = true
	}
	var add []string
	for _, id := range file.Unresolved {
		if path := importPaths[id.Name]; path != "" && !has[path] {
			has[path] = true
			add = append(add, fmt.Sprintf("import %q", path))
		}
	}
	return strings.Replace(source, "package docs\n", "package docs\n"+strings.Join(add, "\n")+"\n", 1)
}

// TestDocsSQL: every SQL block runs as it stands, in a database that was migrated. Those of rights.md have a test of
// their own, which also lets each role do its work.
func TestDocsSQL(t *testing.T) {
	t.Parallel()
	db := pgcachetest.DB(t)
	c, err := pgcache.New(db, pgcache.Options{Listener: pgxdriver.Listener(db)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	if err := c.Migrate(t.Context()); err != nil {
		t.Fatal(err)
	}
	for _, b := range blocks(t, "sql") {
		if b.page == "docs/rights.md" {
			continue
		}
		tx, err := db.BeginTx(t.Context(), nil)
		if err != nil {
			t.Fatal(err)
		}
		if strings.Contains(b.text, " TO other_service") {
			if _, err := tx.ExecContext(t.Context(), "CREATE ROLE other_service"); err != nil {
				t.Fatal(err)
			}
		}
		if _, err := tx.ExecContext(t.Context(), b.text); err != nil {
			t.Errorf("%v: %v", b, err)
		}
		tx.Rollback()
	}
}

// TestDocsCommands: the make targets, the programs and the packages that pages name exist.
func TestDocsCommands(t *testing.T) {
	t.Parallel()
	makefile, err := os.ReadFile("../Makefile")
	if err != nil {
		t.Fatal(err)
	}
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):`).FindAllStringSubmatch(string(makefile), -1) {
		targets[m[1]] = true
	}
	there := func(page, folder string) {
		if info, err := os.Stat(filepath.Join("..", folder)); err != nil || !info.IsDir() {
			t.Errorf("%s names %s, which is no folder", page, folder)
		}
	}
	runs := func(page, folder string) {
		there(page, folder)
		if _, err := os.Stat(filepath.Join("..", folder, "go.mod")); err == nil {
			t.Errorf("%s runs %s from the root, but it is a module of its own", page, folder)
		}
	}
	inline := regexp.MustCompile("`make ([a-z-]+)`")
	goInline := regexp.MustCompile("`go (?:run|test) [^`]*?\\./([a-z/]+)[^`]*`")
	for page, text := range pages(t) {
		for _, m := range inline.FindAllStringSubmatch(text, -1) {
			if !targets[m[1]] {
				t.Errorf("%s: no make target %s", page, m[1])
			}
		}
		for _, m := range goInline.FindAllStringSubmatch(text, -1) {
			runs(page, m[1])
		}
	}
	run := regexp.MustCompile(`^go run \./(\S+)`)
	for _, b := range blocks(t, "sh") {
		for line := range strings.Lines(b.text) {
			command, _, _ := strings.Cut(line, "#")
			words := strings.Fields(command)
			switch {
			case len(words) > 1 && words[0] == "make":
				if !targets[words[1]] {
					t.Errorf("%v: no make target %s", b, words[1])
				}
			case run.MatchString(command):
				runs(b.String(), run.FindStringSubmatch(command)[1])
			case len(words) > 2 && words[0] == "go" && words[1] == "get":
				for _, path := range words[2:] {
					if of, ok := strings.CutPrefix(path, module); ok {
						there(b.String(), of)
					}
				}
			}
		}
	}
}

// TestDocsLinks: what pages of the repository link to in it is there.
func TestDocsLinks(t *testing.T) {
	t.Parallel()
	link := regexp.MustCompile(`\]\(([^)#\s]+)(?:#[^)]*)?\)`)
	for page, text := range pages(t) {
		for _, m := range link.FindAllStringSubmatch(fenced.ReplaceAllString(text, ""), -1) {
			if strings.Contains(m[1], "://") {
				continue
			}
			if _, err := os.Stat(filepath.Join("..", filepath.Dir(page), m[1])); err != nil {
				t.Errorf("%s links to %s: %v", page, m[1], err)
			}
		}
	}
}
