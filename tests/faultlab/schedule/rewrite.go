package schedule

import (
	"cmp"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"path"
	"slices"
	"strconv"
	"strings"
)

// source is the text of one package.
type source struct {
	stands stand
	text   map[string]string // by the name of the file

	fset  *token.FileSet
	types map[ast.Expr]types.TypeAndValue
	edits map[string][]textEdit
	sim   map[string]bool // files that call package sim
}

// textEdit replaces what lies between two offsets.
type textEdit struct {
	from, to int
	text     string
}

// rewrite replaces imports, go statements, and loops over maps.
func (s *source) rewrite() (map[string]string, error) {
	s.fset = token.NewFileSet()
	s.edits, s.sim = make(map[string][]textEdit), make(map[string]bool)
	var files []*ast.File
	for name, text := range s.text {
		f, err := parser.ParseFile(s.fset, name, text, parser.SkipObjectResolution)
		if err != nil {
			return nil, err
		}
		files = append(files, f)
	}
	s.check(files)
	for _, f := range files {
		if err := s.file(f); err != nil {
			return nil, err
		}
	}
	done := make(map[string]string, len(s.text))
	for name, text := range s.text {
		done[name] = s.apply(name, text)
	}
	return done, nil
}

// check finds the types of expressions. Imports stay unknown: what is declared
// in the package itself is all that counts here.
func (s *source) check(files []*ast.File) {
	info := &types.Info{Types: make(map[ast.Expr]types.TypeAndValue)}
	conf := types.Config{Importer: nothing{importer.Default()}, Error: func(error) {}}
	// It cannot succeed without the imports; what it has found stands in info.
	_, _ = conf.Check("room", s.fset, files, info)
	s.types = info.Types
}

// nothing imports only what has types that are needed.
type nothing struct{ types.Importer }

func (n nothing) Import(name string) (*types.Package, error) {
	return nil, errors.New("not needed")
}

func (s *source) file(f *ast.File) (err error) {
	for _, spec := range f.Imports {
		s.importSpec(spec)
	}
	ast.Inspect(f, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.GoStmt:
			if e := s.goStmt(n); e != nil {
				err = e
			}
		case *ast.RangeStmt:
			s.rangeStmt(n)
		}
		return true
	})
	name := s.fset.Position(f.Pos()).Filename
	if s.sim[name] || strings.Contains(s.text[name], "sim.Mutant(") {
		s.edit(f.Name.End(), f.Name.End(), "; import sim "+strconv.Quote(simPath))
	}
	return err
}

func (s *source) importSpec(spec *ast.ImportSpec) {
	old, err := strconv.Unquote(spec.Path.Value)
	if err != nil || s.stands[old] == "" {
		return
	}
	text := strconv.Quote(s.stands[old])
	if spec.Name == nil {
		text = path.Base(old) + " " + text
	}
	s.edit(spec.Path.Pos(), spec.Path.End(), text)
}

func (s *source) goStmt(n *ast.GoStmt) error {
	if len(n.Call.Args) > 0 {
		return fmt.Errorf("%s: a go statement with arguments", s.fset.Position(n.Pos()))
	}
	fun := s.fset.Position(n.Pos())
	s.sim[fun.Filename] = true
	s.edit(n.Pos(), n.Call.Fun.Pos(), "sim.Go(")
	s.edit(n.Call.Lparen, n.Call.Rparen+1, ")")
	return nil
}

func (s *source) rangeStmt(n *ast.RangeStmt) {
	t := s.types[n.X].Type
	if t == nil {
		return
	}
	if _, ok := t.Underlying().(*types.Map); !ok {
		return
	}
	s.sim[s.fset.Position(n.Pos()).Filename] = true
	s.edit(n.X.Pos(), n.X.Pos(), "sim.Sorted(")
	s.edit(n.X.End(), n.X.End(), ")")
}

func (s *source) edit(from, to token.Pos, text string) {
	a, b := s.fset.Position(from), s.fset.Position(to)
	s.edits[a.Filename] = append(s.edits[a.Filename], textEdit{a.Offset, b.Offset, text})
}

func (s *source) apply(name, text string) string {
	edits := s.edits[name]
	slices.SortStableFunc(edits, func(a, b textEdit) int { return cmp.Compare(a.from, b.from) })
	var out strings.Builder
	at := 0
	for _, e := range edits {
		out.WriteString(text[at:e.from])
		out.WriteString(e.text)
		at = e.to
	}
	out.WriteString(text[at:])
	return out.String()
}
