package pgcache_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// TestEveryFunctionHasAnExample: what a program calls of this package is shown. Methods that an interface of the standard
// library asks for are not called by name.
func TestEveryFunctionHasAnExample(t *testing.T) {
	t.Parallel()
	asked := []string{"Error", "Unwrap", "Is", "SQLState", "String"}
	fset := token.NewFileSet()
	names, err := filepath.Glob("*.go")
	if err != nil {
		t.Fatal(err)
	}
	wanted, examples := []string{}, map[string]bool{}
	for _, name := range names {
		file, err := parser.ParseFile(fset, name, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range file.Decls {
			f, ok := d.(*ast.FuncDecl)
			switch {
			case !ok:
			case file.Name.Name == "pgcache_test":
				if of, ok := strings.CutPrefix(f.Name.Name, "Example"); ok {
					examples[of] = true
				}
			case !f.Name.IsExported():
			case f.Recv == nil:
				if !strings.HasPrefix(f.Name.Name, "Test") { // of tests within the package
					wanted = append(wanted, f.Name.Name)
				}
			case ast.IsExported(receiver(f)) && !slices.Contains(asked, f.Name.Name):
				wanted = append(wanted, receiver(f)+"_"+f.Name.Name)
			}
		}
	}
	if len(wanted) < 30 {
		t.Fatalf("only %d functions found", len(wanted))
	}
	for _, w := range wanted {
		if !examples[w] {
			t.Errorf("no Example%s", w)
		}
	}
}

func receiver(f *ast.FuncDecl) string {
	of := f.Recv.List[0].Type
	if star, ok := of.(*ast.StarExpr); ok {
		of = star.X
	}
	if generic, ok := of.(*ast.IndexExpr); ok {
		of = generic.X
	}
	if id, ok := of.(*ast.Ident); ok {
		return id.Name
	}
	return ""
}
