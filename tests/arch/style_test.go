package arch

import (
	"fmt"
	"go/ast"
	"path"
	"slices"
	"strings"
	"testing"
)

// The limits of style.
const (
	functionLines    = 60
	fileLines        = 500
	interfaceMethods = 5
	parameters       = 4 // not counting a context that comes first
)

// functions calls visit for every function declared outside tests.
func functions(s *source, visit func(*ast.FuncDecl)) {
	for _, r := range s.rooms {
		for _, f := range r.files {
			if f.isTest() {
				continue
			}
			for _, d := range f.ast.Decls {
				if fn, ok := d.(*ast.FuncDecl); ok {
					visit(fn)
				}
			}
		}
	}
}

// checkInit finds functions that run by themselves.
func checkInit(s *source) (bad []string) {
	functions(s, func(fn *ast.FuncDecl) {
		if fn.Name.Name == "init" && fn.Recv == nil {
			bad = append(bad, fmt.Sprintf("%s: func init", s.at(fn)))
		}
	})
	return bad
}

// checkLengths finds functions and files that are too long to hold in mind.
func checkLengths(s *source) (bad []string) {
	functions(s, func(fn *ast.FuncDecl) {
		n := s.fset.Position(fn.End()).Line - s.fset.Position(fn.Pos()).Line + 1
		if n > functionLines {
			bad = append(bad, fmt.Sprintf("%s: %s has %d lines, at most %d", s.at(fn), fn.Name.Name, n, functionLines))
		}
	})
	for _, r := range s.rooms {
		for _, f := range r.files {
			if n := s.fset.File(f.ast.Pos()).LineCount(); n > fileLines && !f.isTest() {
				bad = append(bad, fmt.Sprintf("%s:1: the file has %d lines, at most %d", f.name, n, fileLines))
			}
		}
	}
	return bad
}

// checkParameters finds functions that want too much.
func checkParameters(s *source) (bad []string) {
	functions(s, func(fn *ast.FuncDecl) {
		n, most := fn.Type.Params.NumFields(), parameters
		if first := fn.Type.Params.List; len(first) > 0 && isContext(first[0].Type) {
			most++
		}
		if n > most {
			bad = append(bad, fmt.Sprintf("%s: %s has %d parameters, at most %d", s.at(fn), fn.Name.Name, n, most))
		}
	})
	return bad
}

func isContext(t ast.Expr) bool {
	sel, ok := t.(*ast.SelectorExpr)
	return ok && sel.Sel.Name == "Context"
}

// stdMethods counts the methods of the interfaces of the standard library
// that ours embed.
var stdMethods = map[string]int{
	"error": 1, "fmt.Stringer": 1, "sync.Locker": 2, "hash.Hash": 5, "fs.FileInfo": 6,
	"io.Reader": 1, "io.Writer": 1, "io.Closer": 1, "io.Seeker": 1, "io.ReaderAt": 1, "io.WriterAt": 1,
	"io.ReaderFrom": 1, "io.WriterTo": 1, "io.ByteReader": 1, "io.ReadCloser": 2, "io.WriteCloser": 2,
	"io.ReadWriter": 2, "io.ReadSeeker": 2, "io.ReadWriteCloser": 3, "io.ReadSeekCloser": 3,
}

// checkInterfaces finds ports with too many methods; embedded ones count.
func checkInterfaces(s *source) (bad []string) {
	all := map[string]*ast.InterfaceType{} // by "package.Name", the package by its last word
	var names []string
	for _, r := range s.rooms {
		for _, f := range r.files {
			ast.Inspect(f.ast, func(n ast.Node) bool {
				spec, ok := n.(*ast.TypeSpec)
				if !ok || f.isTest() {
					return true
				}
				if it, ok := spec.Type.(*ast.InterfaceType); ok {
					name := path.Base(r.dir) + "." + spec.Name.Name
					all[name] = it
					names = append(names, name)
				}
				return true
			})
		}
	}
	for _, name := range names {
		n, unknown := methods(all, name)
		if unknown != "" {
			bad = append(bad, fmt.Sprintf("%s: %s embeds %s, whose methods tests/arch cannot count", s.at(all[name]), name, unknown))
		}
		if n > interfaceMethods {
			bad = append(bad, fmt.Sprintf("%s: %s has %d methods, at most %d", s.at(all[name]), name, n, interfaceMethods))
		}
	}
	return bad
}

// methods counts the methods of the interface with that name, and names an
// embedded one that is not known. Constraints have none.
func methods(all map[string]*ast.InterfaceType, name string) (n int, unknown string) {
	pkg, _, _ := strings.Cut(name, ".")
	for _, f := range all[name].Methods.List {
		if _, ok := f.Type.(*ast.FuncType); ok {
			n += max(1, len(f.Names))
			continue
		}
		embedded := ""
		switch x := f.Type.(type) {
		case *ast.Ident:
			embedded = pkg + "." + x.Name
			if x.Name == "error" {
				embedded = "error"
			}
		case *ast.SelectorExpr:
			if p, ok := x.X.(*ast.Ident); ok {
				embedded = p.Name + "." + x.Sel.Name
			}
		default:
			continue
		}
		std, known := stdMethods[embedded]
		n += std
		if all[embedded] != nil {
			more, un := methods(all, embedded)
			n, unknown = n+more, unknown+un
		} else if !known {
			unknown = embedded
		}
	}
	return n, unknown
}

// constantCalls are calls whose result is as good as a constant.
var constantCalls = []string{
	"errors.New", "fmt.Errorf", "regexp.MustCompile", "crc32.MakeTable", "strings.NewReplacer", "big.NewInt",
	"hex.EncodeToString", "uint64", "int64", "byte", "string",
	// What it holds is worked out once, and the same for everybody.
	"sync.OnceFunc", "sync.OnceValue", "sync.OnceValues",
}

// checkVariables finds variables of packages that are no error, compiled
// pattern, embedded file or table, and tables that something changes.
func checkVariables(s *source) (bad []string) {
	for _, r := range s.rooms {
		tables := map[string]string{} // name -> place
		for _, f := range r.files {
			if f.isTest() {
				continue
			}
			for _, d := range f.ast.Decls {
				bad = append(bad, variables(s, d, tables)...)
			}
		}
		for _, f := range r.files {
			if !f.isTest() {
				bad = append(bad, changed(s, f, tables)...)
			}
		}
	}
	return bad
}

// variables checks one declaration, and notes the names it declares.
func variables(s *source, d ast.Decl, tables map[string]string) (bad []string) {
	gen, ok := d.(*ast.GenDecl)
	if !ok || gen.Tok.String() != "var" {
		return nil
	}
	for _, spec := range gen.Specs {
		v := spec.(*ast.ValueSpec)
		for i, name := range v.Names {
			if name.Name == "_" {
				continue
			}
			tables[name.Name] = s.at(name)
			constant := len(v.Values) == 0 && embeds(gen, v)
			if i < len(v.Values) {
				constant = isConstant(v.Values[i])
			}
			if !constant {
				bad = append(bad, fmt.Sprintf("%s: variable %s of the package is no error, pattern or table", s.at(name), name.Name))
			}
		}
	}
	return bad
}

// embeds is true for //go:embed.
func embeds(gen *ast.GenDecl, v *ast.ValueSpec) bool {
	for _, doc := range []*ast.CommentGroup{gen.Doc, v.Doc} {
		if doc == nil {
			continue
		}
		for _, c := range doc.List {
			if strings.HasPrefix(c.Text, "//go:embed ") {
				return true
			}
		}
	}
	return false
}

// isConstant is true for values that have no state to change.
func isConstant(e ast.Expr) bool {
	switch x := e.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.SelectorExpr: // another package's, such as binary.LittleEndian
		return true
	case *ast.CallExpr:
		if _, ok := x.Fun.(*ast.ArrayType); ok { // []byte("magic")
			return true
		}
		name := ""
		switch f := x.Fun.(type) {
		case *ast.Ident:
			name = f.Name
		case *ast.SelectorExpr:
			if p, ok := f.X.(*ast.Ident); ok {
				name = p.Name + "." + f.Sel.Name
			}
		}
		return slices.Contains(constantCalls, name)
	}
	return false
}

// changed finds assignments to the variables in tables and to their elements.
func changed(s *source, f file, tables map[string]string) (bad []string) {
	for _, d := range f.ast.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok || fn.Body == nil {
			continue
		}
		local := locals(fn)
		ast.Inspect(fn.Body, func(n ast.Node) bool {
			for _, target := range targets(n) {
				name := base(target)
				if where := tables[name]; where != "" && !local[name] {
					bad = append(bad, fmt.Sprintf("%s: changes variable %s of the package (%s)", s.at(n), name, where))
				}
			}
			return true
		})
	}
	return bad
}

// targets is what a statement changes.
func targets(n ast.Node) []ast.Expr {
	switch x := n.(type) {
	case *ast.AssignStmt:
		if x.Tok.String() != ":=" {
			return x.Lhs
		}
	case *ast.IncDecStmt:
		return []ast.Expr{x.X}
	case *ast.UnaryExpr:
		if x.Op.String() == "&" {
			return []ast.Expr{x.X}
		}
	case *ast.CallExpr:
		if f, ok := x.Fun.(*ast.Ident); ok && (f.Name == "delete" || f.Name == "clear") && len(x.Args) > 0 {
			return x.Args[:1]
		}
	}
	return nil
}

// base is the variable below indexes, fields and stars; "" if there is none.
func base(e ast.Expr) string {
	for {
		switch x := e.(type) {
		case *ast.Ident:
			return x.Name
		case *ast.IndexExpr:
			e = x.X
		case *ast.SelectorExpr:
			e = x.X
		case *ast.StarExpr:
			e = x.X
		case *ast.ParenExpr:
			e = x.X
		default:
			return ""
		}
	}
}

// locals are the names that a function declares for itself.
func locals(fn *ast.FuncDecl) map[string]bool {
	names := map[string]bool{}
	note := func(list *ast.FieldList) {
		if list == nil {
			return
		}
		for _, f := range list.List {
			for _, n := range f.Names {
				names[n.Name] = true
			}
		}
	}
	note(fn.Recv)
	ast.Inspect(fn, func(n ast.Node) bool {
		switch x := n.(type) {
		case *ast.FuncType:
			note(x.Params)
			note(x.Results)
		case *ast.AssignStmt:
			if x.Tok.String() == ":=" {
				for _, e := range x.Lhs {
					names[base(e)] = true
				}
			}
		case *ast.RangeStmt:
			if x.Tok.String() == ":=" {
				for _, e := range []ast.Expr{x.Key, x.Value} {
					names[base(e)] = true
				}
			}
		case *ast.ValueSpec:
			for _, id := range x.Names {
				names[id.Name] = true
			}
		}
		return true
	})
	return names
}

func TestInit(t *testing.T)       { report(t, checkInit(load(t))) }
func TestLengths(t *testing.T)    { report(t, checkLengths(load(t))) }
func TestParameters(t *testing.T) { report(t, checkParameters(load(t))) }
func TestInterfaces(t *testing.T) { report(t, checkInterfaces(load(t))) }
func TestVariables(t *testing.T)  { report(t, checkVariables(load(t))) }

func TestCheckInit(t *testing.T) {
	s := parse(t, map[string]string{
		"a/a.go":      "package a\nfunc init() {}\ntype T int\nfunc (T) init() {}\n",
		"a/a_test.go": "package a\nfunc init() {}\n",
	})
	compare(t, checkInit(s), []string{"a/a.go:2: func init"})
}

func TestCheckLengths(t *testing.T) {
	s := parse(t, map[string]string{
		"a/a.go": "package a\n\nfunc fits() {\n" + strings.Repeat("\n", functionLines-2) + "}\n" +
			"func long() {\n" + strings.Repeat("\n", functionLines-1) + "}\n",
		"b/b.go":      "package b\n" + strings.Repeat("\n", fileLines),
		"b/b_test.go": "package b\n" + strings.Repeat("\n", fileLines),
	})
	compare(t, checkLengths(s), []string{"a/a.go:63: long has 61 lines", "b/b.go:1: the file has 501 lines"})
}

func TestCheckParameters(t *testing.T) {
	s := parse(t, map[string]string{"a/a.go": `package a

func four(a, b, c, d int) {}
func five(a, b, c, d, e int) {}
func waits(ctx context.Context, a, b, c, d int) {}
func wants(ctx context.Context, a, b, c, d, e int) {}
`})
	compare(t, checkParameters(s), []string{"a/a.go:4: five has 5 parameters, at most 4", "a/a.go:6: wants has 6 parameters, at most 5"})
}

func TestCheckInterfaces(t *testing.T) {
	s := parse(t, map[string]string{
		"a/a.go": "package a\ntype Three interface {\n\tA()\n\tB()\n\tio.Closer\n}\ntype Seven interface {\n\tThree\n\tC()\n\tD()\n\tE()\n\tF()\n}\n",
		"b/b.go": "package b\ntype Five interface {\n\ta.Three\n\tC()\n\tD()\n}\ntype Six interface {\n\tFive\n\terror\n}\ntype Odd interface{ foreign.Thing }\ntype Number interface{ ~int | ~uint }\n",
	})
	compare(t, checkInterfaces(s), []string{"a/a.go:7: a.Seven has 7", "b/b.go:7: b.Six has 6", "b/b.go:11: b.Odd embeds foreign.Thing"})
}

func TestCheckVariables(t *testing.T) {
	s := parse(t, map[string]string{"a/a.go": `package a

var ErrGood = errors.New("good")
var pattern = regexp.MustCompile("x")
var table = map[string]int{"a": 1}
var magic = [4]byte{1, 2, 3, 4}
var le = binary.LittleEndian
var _ io.Reader = (*T)(nil)

//go:embed page.html
var page string

var counter int
var cache = make(map[string]int)
var once sync.Once
var names = []string{"a"}
var hidden = []int{1}

func change() {
	table["b"] = 2
	names = append(names, "b")
	p := &magic[0]
	hidden := 1
	hidden++
	_ = p
	for pattern := range cache {
		pattern = ""
	}
}
`})
	compare(t, checkVariables(s), []string{
		"a/a.go:13: variable counter", "a/a.go:14: variable cache", "a/a.go:15: variable once",
		"a/a.go:20: changes variable table", "a/a.go:21: changes variable names", "a/a.go:22: changes variable magic",
	})
}
