package main

import (
	"fmt"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// mutant is one change of the code.
type mutant struct {
	id   int
	name string // function, code and change: it stays when lines move
	at   token.Position
}

// rewriter puts switches into one file. It edits the text and not the tree, so that everything else stays as it is.
type rewriter struct {
	fset *token.FileSet
	info *types.Info
	text []byte
	base token.Pos

	edits   []edit
	mutants *[]mutant
	wraps   map[ast.Node][]wrap // what a parent wants around its child
	fun     string
	drops   map[ast.Stmt]bool // statements of lists: only these may become blocks
	skip    map[ast.Node]bool // must stay constant, or not worth it
}

type wrap struct{ before, after string }

// edit replaces text[from:to]. Of edits at one place, those that end something come first.
type edit struct {
	from, to int
	rank     int // 0 the end of a node, 1 an operator, 2 the beginning of a node
	text     string
}

const prefix = "mutateʹ" // no name of ours has it

func (r *rewriter) file(f *ast.File) []byte {
	r.base = r.fset.File(f.Pos()).Pos(0)
	for _, decl := range f.Decls {
		switch d := decl.(type) {
		case *ast.FuncDecl:
			r.fun = d.Name.Name
			if d.Recv != nil && len(d.Recv.List) > 0 {
				r.fun = strings.TrimLeft(strings.SplitN(r.src(d.Recv.List[0].Type), "[", 2)[0], "*") + "." + r.fun
			}
			if d.Body != nil {
				r.walk(d.Body)
			}
		case *ast.GenDecl:
			if d.Tok == token.VAR {
				r.fun = "var"
				r.walk(d)
			}
		}
	}
	slices.SortStableFunc(r.edits, func(a, b edit) int {
		if a.from != b.from {
			return a.from - b.from
		}
		return a.rank - b.rank
	})
	var out []byte
	last := 0
	for _, e := range r.edits {
		out = append(append(out, r.text[last:e.from]...), e.text...)
		last = e.to
	}
	return append(out, r.text[last:]...)
}

func (r *rewriter) src(n ast.Node) string {
	return string(r.text[n.Pos()-r.base : n.End()-r.base])
}

// add makes a mutant and returns its number.
func (r *rewriter) add(n ast.Node, change string) int {
	id := len(*r.mutants) + 1
	code := strings.Join(strings.Fields(r.src(n)), " ")
	if len(code) > 70 {
		code = code[:70] + "…"
	}
	*r.mutants = append(*r.mutants, mutant{id, r.fun + ": " + code + " → " + change, r.fset.Position(n.Pos())})
	return id
}

func on(id int) string { return fmt.Sprintf("%sOn(%d)", prefix, id) }

func (r *rewriter) walk(root ast.Node) {
	var after []func()
	ast.Inspect(root, func(n ast.Node) bool {
		if n == nil {
			after[len(after)-1]()
			after = after[:len(after)-1]
			return true
		}
		if d, ok := n.(*ast.GenDecl); ok && d.Tok != token.VAR {
			return false
		}
		if _, ok := n.(*ast.ArrayType); ok {
			return false
		}
		ws := append(r.wraps[n], r.mutate(n)...)
		for _, w := range ws {
			r.edits = append(r.edits, edit{int(n.Pos() - r.base), int(n.Pos() - r.base), 2, w.before})
		}
		after = append(after, func() {
			for _, w := range slices.Backward(ws) {
				r.edits = append(r.edits, edit{int(n.End() - r.base), int(n.End() - r.base), 0, w.after})
			}
		})
		return true
	})
}

func (r *rewriter) operator(pos token.Pos, length int, text string) {
	r.edits = append(r.edits, edit{int(pos - r.base), int(pos-r.base) + length, 1, text})
}

func (r *rewriter) negate(n ast.Node, change string) wrap {
	return wrap{"((", ") != " + on(r.add(n, change)) + ")"}
}

// mutate returns what is to be put around n.
func (r *rewriter) mutate(n ast.Node) []wrap {
	var ws []wrap
	switch n := n.(type) {
	case *ast.BlockStmt:
		r.list(n.List)
	case *ast.CaseClause:
		r.list(n.Body)
	case *ast.CommClause:
		r.list(n.Body)
	case *ast.IfStmt:
		ws = nil
		r.condition(n.Cond)
	case *ast.CallExpr:
		if f, ok := n.Fun.(*ast.Ident); ok && f.Name == "make" && len(n.Args) == 3 {
			r.skip[n.Args[2]] = true // a capacity changes nothing
		}
	case *ast.CompositeLit:
		for _, e := range n.Elts {
			if kv, ok := e.(*ast.KeyValueExpr); ok {
				r.skip[kv.Key] = true
			}
		}
	case *ast.SelectorExpr:
		r.skip[n.Sel] = true
	}
	if s, ok := n.(ast.Stmt); ok && r.drops[s] {
		ws = append(ws, r.statement(s)...)
	}
	if e, ok := n.(ast.Expr); ok && !r.skip[n] {
		ws = append(ws, r.expr(e)...)
	}
	return ws
}

func (r *rewriter) list(stmts []ast.Stmt) {
	for _, s := range stmts {
		r.drops[s] = true
	}
}

// condition negates conditions that expr leaves alone.
func (r *rewriter) condition(e ast.Expr) {
	switch e.(type) {
	case *ast.BinaryExpr, *ast.UnaryExpr:
	default:
		r.wraps[e] = append(r.wraps[e], r.negate(e, "negated"))
	}
}

var opposite = map[token.Token]string{
	token.ADD: "-", token.SUB: "+", token.MUL: "/", token.QUO: "*", token.REM: "*",
	token.ADD_ASSIGN: "-=", token.SUB_ASSIGN: "+=", token.INC: "--", token.DEC: "++",
}

var function = map[token.Token]string{
	token.LSS: "Less", token.LEQ: "LessEqual", token.GTR: "Greater", token.GEQ: "GreaterEqual",
	token.ADD: "Add", token.SUB: "Sub", token.MUL: "Mul", token.QUO: "Quo", token.REM: "Rem",
	token.ADD_ASSIGN: "Add", token.SUB_ASSIGN: "Sub", token.INC: "Add", token.DEC: "Sub",
}

// statement drops a statement, and turns += and ++ round.
func (r *rewriter) statement(s ast.Stmt) []wrap {
	switch s := s.(type) {
	case *ast.ExprStmt:
		if strings.HasPrefix(r.src(s), "panic(") {
			return nil
		}
	case *ast.SendStmt, *ast.GoStmt, *ast.DeferStmt:
	case *ast.IncDecStmt:
		r.operator(s.TokPos, 2, fmt.Sprintf(" = %s%s(%d, %s, 1)", prefix, function[s.Tok], r.add(s, opposite[s.Tok]), r.src(s.X)))
	case *ast.AssignStmt:
		if s.Tok == token.DEFINE || r.src(s.Lhs[0]) == "_" {
			return nil
		}
		if opposite[s.Tok] != "" && r.numeric(s.Lhs[0]) {
			r.operator(s.TokPos, 2, fmt.Sprintf("= %s%s(%d, %s, ", prefix, function[s.Tok], r.add(s, opposite[s.Tok]), r.src(s.Lhs[0])))
			return []wrap{{"if !" + on(r.add(s, "dropped")) + " { ", ") }"}}
		}
	default:
		return nil
	}
	return []wrap{{"if !" + on(r.add(s, "dropped")) + " { ", " }"}}
}

func (r *rewriter) numeric(e ast.Expr) bool {
	b, ok := r.info.TypeOf(e).Underlying().(*types.Basic)
	return ok && b.Info()&(types.IsInteger|types.IsFloat) != 0
}

func (r *rewriter) expr(e ast.Expr) []wrap {
	tv, ok := r.info.Types[e]
	if id, isIdent := e.(*ast.Ident); isIdent && !ok {
		if obj, used := r.info.Uses[id].(*types.Const); used {
			tv, ok = types.TypeAndValue{Type: obj.Type(), Value: obj.Val()}, true
		}
	}
	if !ok || tv.IsType() {
		return nil
	}
	if tv.Value != nil {
		return r.constant(e, tv)
	}
	switch e := e.(type) {
	case *ast.UnaryExpr:
		if e.Op == token.NOT {
			return []wrap{r.negate(e, "negated")}
		}
	case *ast.BinaryExpr:
		switch e.Op {
		case token.EQL, token.NEQ:
			return []wrap{r.negate(e, "negated")}
		case token.LAND:
			r.operand(e, e.X, "(%s || (", "left side dropped")
			r.operand(e, e.Y, "(%s || (", "right side dropped")
		case token.LOR:
			r.operand(e, e.X, "(!%s && (", "left side dropped")
			r.operand(e, e.Y, "(!%s && (", "right side dropped")
		case token.LSS, token.LEQ, token.GTR, token.GEQ:
			id := r.add(e, "bound moved")
			r.add(e, "negated")
			r.operator(e.OpPos, len(e.Op.String()), ",")
			return []wrap{{fmt.Sprintf("%s%s(%d, ", prefix, function[e.Op], id), ")"}}
		case token.ADD, token.SUB, token.MUL, token.QUO, token.REM:
			if r.numeric(e) {
				r.operator(e.OpPos, 1, ",")
				return []wrap{{fmt.Sprintf("%s%s(%d, ", prefix, function[e.Op], r.add(e, opposite[e.Op])), ")"}}
			}
		}
	}
	return nil
}

func (r *rewriter) operand(parent, child ast.Expr, before, change string) {
	id := r.add(parent, change)
	r.wraps[child] = append(r.wraps[child], wrap{fmt.Sprintf(before, on(id)), "))"})
}

// constant adds one to an integer, and turns true and false round. Nothing inside of e is changed.
func (r *rewriter) constant(e ast.Expr, tv types.TypeAndValue) []wrap {
	ast.Inspect(e, func(n ast.Node) bool {
		r.skip[n] = true
		return true
	})
	b, ok := tv.Type.(*types.Basic)
	if !ok {
		return nil
	}
	switch {
	case b.Info()&types.IsBoolean != 0:
		return []wrap{r.negate(e, "negated")}
	case b.Info()&types.IsInteger != 0 && b.Info()&types.IsUntyped == 0:
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind != token.INT {
			return nil
		}
		return []wrap{{fmt.Sprintf("%sPlus[%s](%d, ", prefix, b.Name(), r.add(e, "plus one")), ")"}}
	}
	return nil
}

// helpers is the file that is added to the package.
func helpers(pkg string) string {
	return strings.ReplaceAll(`package `+pkg+`

import (
	"cmp"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
)

var (
	M_number, _ = strconv.Atoi(os.Getenv("PGCACHE_MUTANT"))
	M_record = os.Getenv("PGCACHE_MUTANT_RECORD")
	M_reached [100000]atomic.Bool
)

func M_On(id int) bool {
	if M_record != "" {
		M_Reach(id)
	}
	return M_number == id
}

func M_Reach(id int) {
	if M_reached[id].Swap(true) {
		return
	}
	f, err := os.OpenFile(M_record, os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o600)
	if err != nil {
		panic(err)
	}
	fmt.Fprintln(f, id)
	f.Close()
}

type M_Number interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr | ~float32 | ~float64
}

type M_Integer interface {
	~int | ~int8 | ~int16 | ~int32 | ~int64 | ~uint | ~uint8 | ~uint16 | ~uint32 | ~uint64 | ~uintptr
}

func M_Two(id int, is, moved bool) bool {
	if M_On(id) {
		return moved
	}
	return is != M_On(id+1)
}

func M_Less[T cmp.Ordered](id int, a, b T) bool         { return M_Two(id, a < b, a <= b) }
func M_LessEqual[T cmp.Ordered](id int, a, b T) bool    { return M_Two(id, a <= b, a < b) }
func M_Greater[T cmp.Ordered](id int, a, b T) bool      { return M_Two(id, a > b, a >= b) }
func M_GreaterEqual[T cmp.Ordered](id int, a, b T) bool { return M_Two(id, a >= b, a > b) }

func M_Add[T M_Number](id int, a, b T) T { if M_On(id) { return a - b }; return a + b }
func M_Sub[T M_Number](id int, a, b T) T { if M_On(id) { return a + b }; return a - b }
func M_Mul[T M_Number](id int, a, b T) T { if M_On(id) { return a / b }; return a * b }
func M_Quo[T M_Number](id int, a, b T) T { if M_On(id) { return a * b }; return a / b }
func M_Rem[T M_Integer](id int, a, b T) T { if M_On(id) { return a * b }; return a % b }
func M_Plus[T M_Number](id int, a T) T { if M_On(id) { return a + 1 }; return a }
`, "M_", prefix)
}
