package arch

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// module is the name that go.mod gives.
const module = "holdfast"

// file is one parsed source file. Its name is relative to the module's root,
// with slashes.
type file struct {
	name string
	ast  *ast.File
}

func (f file) isTest() bool { return strings.HasSuffix(f.name, "_test.go") }

// room is one package folder, named by its path below the root.
type room struct {
	dir   string
	files []file
}

// source is what a checker looks at.
type source struct {
	fset  *token.FileSet
	rooms []room
}

// at is where a node begins, as file:line.
func (s *source) at(n ast.Node) string {
	p := s.fset.Position(n.Pos())
	return fmt.Sprintf("%s:%d", p.Filename, p.Line)
}

// add parses one file into its room. Rooms come in order of first mention.
func (s *source) add(name string, text []byte) error {
	f, err := parser.ParseFile(s.fset, name, text, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		return err
	}
	dir := path.Dir(name)
	for i := range s.rooms {
		if s.rooms[i].dir == dir {
			s.rooms[i].files = append(s.rooms[i].files, file{name, f})
			return nil
		}
	}
	s.rooms = append(s.rooms, room{dir, []file{{name, f}}})
	return nil
}

// root finds the folder of go.mod.
func root(t *testing.T) string {
	t.Helper()
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for dir != filepath.Dir(dir) {
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			return dir
		}
		dir = filepath.Dir(dir)
	}
	t.Fatal("no go.mod above the test")
	return ""
}

// load gives every Go file of the module, whatever its build tags. It is
// parsed once for all tests, which only read it.
func load(t *testing.T) *source {
	t.Helper()
	s, err := parsed(root(t))
	if err != nil {
		t.Fatal(err)
	}
	if len(s.rooms) < 10 {
		t.Fatalf("found %d packages only", len(s.rooms))
	}
	return s
}

// parsed is the module below top, which is the same for every caller.
func parsed(top string) (*source, error) {
	once.Do(func() { once.source, once.err = parseModule(top) })
	return once.source, once.err
}

var once struct {
	sync.Once
	source *source
	err    error
}

func parseModule(top string) (*source, error) {
	s := &source{fset: token.NewFileSet()}
	err := filepath.WalkDir(top, func(p string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && p != top && ignoredDir(d.Name()) {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(d.Name(), ".go") {
			return nil
		}
		text, err := os.ReadFile(p)
		if err != nil {
			return err
		}
		name, err := filepath.Rel(top, p)
		if err != nil {
			return err
		}
		return s.add(filepath.ToSlash(name), text)
	})
	sort.Slice(s.rooms, func(i, j int) bool { return s.rooms[i].dir < s.rooms[j].dir })
	return s, err
}

// ignoredDir tells the folders that the go command does not look into, and
// those that .gitignore names.
func ignoredDir(name string) bool {
	return name == "testdata" || name == "bin" || name == "tmp" ||
		strings.HasPrefix(name, ".") || strings.HasPrefix(name, "_")
}

// parse makes a source from texts, for the tests of the checkers themselves.
// Keys are file names.
func parse(t *testing.T, texts map[string]string) *source {
	t.Helper()
	s := &source{fset: token.NewFileSet()}
	names := make([]string, 0, len(texts))
	for name := range texts {
		names = append(names, name)
	}
	sort.Strings(names)
	for _, name := range names {
		if err := s.add(name, []byte(texts[name])); err != nil {
			t.Fatal(err)
		}
	}
	return s
}

// importPath is the path that an import names.
func importPath(spec *ast.ImportSpec) string {
	p, err := strconv.Unquote(spec.Path.Value)
	if err != nil {
		return spec.Path.Value
	}
	return p
}

// report fails the test with every offender.
func report(t *testing.T, offenders []string) {
	t.Helper()
	for _, o := range offenders {
		t.Error(o)
	}
}

// compare checks what a checker found in a text made for it.
func compare(t *testing.T, got, want []string) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("got %d offenders, want %d:\n%s", len(got), len(want), strings.Join(got, "\n"))
	}
	for i := range want {
		if !strings.Contains(got[i], want[i]) {
			t.Errorf("offender %d is %q, want it to contain %q", i, got[i], want[i])
		}
	}
}
