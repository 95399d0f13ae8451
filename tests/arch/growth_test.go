package arch

import (
	"fmt"
	"go/ast"
	"maps"
	"slices"
	"strings"
	"testing"
)

// The limits of growth.
const (
	typeMethods = 25
	roomLines   = 3000
)

// What is larger than it should be. A number is an upper bound: it may fall, and whoever
// makes it fall puts it here, and it never rises. What has come below the limit goes.
var (
	// manyMethods are types, by name, wherever they stand, in fives.
	manyMethods = map[string]int{
		"Client": 50, "Registry": 30, "Server": 55, "Session": 45, "Store": 215, "backup": 35, "call": 70, "config": 30,
	}
	// manyLines are rooms, with room for what a mended fault adds.
	manyLines = map[string]int{
		"chunkstore/pack": 6300, "client": 4600, "datastore": 7500, "datastore/server": 7600,
	}
	// tangled is how many files below a folder are tangled with others of their package:
	// each can be reached from the other by names that one declares and the other
	// uses. Methods do not count as names.
	tangled = map[string]int{"chunkstore": 20, "client": 45, "command": 10, "datastore": 100}
)

// over compares numbers with the bounds for them, which is limit where there is none, and
// names bounds that are of no use any more.
func over(what string, numbers, bounds map[string]int, limit int) (bad []string) {
	for _, name := range slices.Sorted(maps.Keys(numbers)) {
		if n, most := numbers[name], max(bounds[name], limit); n > most {
			bad = append(bad, fmt.Sprintf("%s has %d %s, at most %d", name, n, what, most))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(bounds)) {
		if numbers[name] <= limit {
			bad = append(bad, fmt.Sprintf("%s has %d %s, and no longer needs a bound of its own", name, numbers[name], what))
		}
	}
	return bad
}

// countMethods counts the methods of types by name; of two types with one name it is the
// larger number.
func countMethods(s *source) map[string]int {
	most := map[string]int{}
	for _, r := range s.rooms {
		counts := map[string]int{}
		functions(&source{s.fset, []room{r}}, func(fn *ast.FuncDecl) {
			if fn.Recv != nil && !forTests(r.dir) {
				counts[receiver(fn)]++
			}
		})
		for name, n := range counts {
			most[name] = max(most[name], n)
		}
	}
	return most
}

// receiver is the name of the type that a method is of.
func receiver(fn *ast.FuncDecl) string {
	t := fn.Recv.List[0].Type
	if star, ok := t.(*ast.StarExpr); ok {
		t = star.X
	}
	if x, ok := t.(*ast.IndexExpr); ok {
		t = x.X
	}
	return base(t)
}

// countLines counts the lines of rooms outside their tests.
func countLines(s *source) map[string]int {
	lines := map[string]int{}
	for _, r := range s.rooms {
		for _, f := range r.files {
			if !f.isTest() && !forTests(r.dir) {
				lines[r.dir] += s.fset.File(f.ast.Pos()).LineCount()
			}
		}
	}
	return lines
}

// countTangled counts the tangled files of all packages by the first folder of their path.
func countTangled(s *source) map[string]int {
	counts := map[string]int{}
	for _, r := range s.rooms {
		if !forTests(r.dir) {
			top, _, _ := strings.Cut(r.dir, "/")
			counts[top] += len(tangledFiles(r))
		}
	}
	return counts
}

// tangledFiles are the files of a room that can be reached from themselves through another.
func tangledFiles(r room) (names []string) {
	uses := fileUses(r)
	for from := range uses {
		seen, queue := map[string]bool{}, slices.Collect(maps.Keys(uses[from]))
		for ; len(queue) > 0; queue = queue[1:] {
			if !seen[queue[0]] {
				seen[queue[0]] = true
				queue = slices.AppendSeq(queue, maps.Keys(uses[queue[0]]))
			}
		}
		if seen[from] {
			names = append(names, from)
		}
	}
	slices.Sort(names)
	return names
}

// fileUses tells for each file of a room which others declare what it uses.
func fileUses(r room) map[string]map[string]bool {
	home := map[string]string{} // the file that declares a name
	for _, f := range r.files {
		for _, d := range f.ast.Decls {
			for _, name := range declared(d) {
				if !f.isTest() {
					home[name] = f.name
				}
			}
		}
	}
	uses := map[string]map[string]bool{}
	for _, f := range r.files {
		if f.isTest() {
			continue
		}
		uses[f.name] = map[string]bool{}
		for _, d := range f.ast.Decls {
			for _, name := range used(d) {
				if to := home[name]; to != "" && to != f.name {
					uses[f.name][to] = true
				}
			}
		}
	}
	return uses
}

// declared are the names that a declaration gives to the package.
func declared(d ast.Decl) (names []string) {
	switch d := d.(type) {
	case *ast.FuncDecl:
		if d.Recv == nil {
			names = append(names, d.Name.Name)
		}
	case *ast.GenDecl:
		for _, spec := range d.Specs {
			for _, id := range specNames(spec) {
				names = append(names, id.Name)
			}
		}
	}
	return names
}

// used are the names in a declaration that may be the package's: no fields, methods, keys of
// literals or local names.
func used(d ast.Decl) (names []string) {
	local := map[string]bool{}
	if fn, ok := d.(*ast.FuncDecl); ok {
		local = locals(fn)
	}
	ast.Inspect(d, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.SelectorExpr:
			names = append(names, base(n.X))
			_, plain := n.X.(*ast.Ident)
			return !plain
		case *ast.Field:
			names = append(names, usedIn(n.Type)...)
			return false
		case *ast.KeyValueExpr:
			if _, plain := n.Key.(*ast.Ident); plain {
				names = append(names, usedIn(n.Value)...)
				return false
			}
		case *ast.Ident:
			names = append(names, n.Name)
		}
		return true
	})
	return slices.DeleteFunc(names, func(name string) bool { return local[name] })
}

// usedIn is used for an expression.
func usedIn(e ast.Expr) []string {
	return used(&ast.GenDecl{Specs: []ast.Spec{&ast.ValueSpec{Values: []ast.Expr{e}}}})
}

func TestMethods(t *testing.T) {
	report(t, over("methods", countMethods(load(t)), manyMethods, typeMethods))
}

func TestRoomLines(t *testing.T) {
	report(t, over("lines", countLines(load(t)), manyLines, roomLines))
}

// TestTangles names the files too: untangling begins with one of them.
func TestTangles(t *testing.T) {
	s := load(t)
	for _, r := range s.rooms {
		if names := tangledFiles(r); len(names) > 0 && !forTests(r.dir) {
			t.Logf("tangled: %s", strings.Join(names, " "))
		}
	}
	report(t, over("tangled files", countTangled(s), tangled, 0))
}

func TestOver(t *testing.T) {
	got := over("legs", map[string]int{"ant": 6, "bee": 7, "cat": 4, "dog": 5}, map[string]int{"ant": 8, "bee": 6, "cat": 9}, 4)
	compare(t, got, []string{"bee has 7 legs, at most 6", "dog has 5 legs, at most 4", "cat has 4 legs, and no longer"})
}

func TestCountMethods(t *testing.T) {
	s := parse(t, map[string]string{
		"a/a.go":      "package a\ntype T struct{}\nfunc (T) A() {}\nfunc (t *T) B() {}\ntype G[X any] struct{}\nfunc (g *G[X]) A() {}\nfunc f() {}\n",
		"a/a_test.go": "package a\nfunc (T) C() {}\n",
		"b/b.go":      "package b\ntype T struct{}\nfunc (T) A() {}\n",
	})
	if got := countMethods(s); !maps.Equal(got, map[string]int{"T": 2, "G": 1}) {
		t.Errorf("got %v", got)
	}
}

func TestTangledFiles(t *testing.T) {
	s := parse(t, map[string]string{
		// a and b use each other; c uses a; d uses a name of c as a field, a key and a local only, and c uses d.
		"p/a.go":      "package p\ntype A struct{ b B }\n",
		"p/b.go":      "package p\ntype B struct{ a *A }\n",
		"p/c.go":      "package p\nfunc c(A) D { return D{} }\n",
		"p/d.go":      "package p\ntype D struct{ c int }\nfunc d() int { c := 1; return c + D{c: 2}.c }\n",
		"p/p_test.go": "package p\nvar e = c\n",
	})
	if got := tangledFiles(s.rooms[0]); !slices.Equal(got, []string{"p/a.go", "p/b.go"}) {
		t.Errorf("got %v", got)
	}
}
