package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"regexp"
	"testing"
)

// sentenceEnd is a full stop, question or exclamation mark before a space or
// the end; the colon that introduces a list does not count.
var sentenceEnd = regexp.MustCompile(`[.!?]["')]?(\s|$)`)

// checkPackageDocs finds rooms whose package comment is missing, or shorter
// than two sentences, or there more than once.
func checkPackageDocs(s *source) []string {
	var bad []string
	for _, r := range s.rooms {
		var docs []string
		for _, f := range r.files {
			if f.ast.Doc != nil && !f.isTest() {
				docs = append(docs, f.ast.Doc.Text())
			}
		}
		where := s.at(r.files[0].ast)
		switch {
		case onlyTests(r):
			continue
		case len(docs) == 0:
			bad = append(bad, fmt.Sprintf("%s: package %s has no package comment", where, r.dir))
		case len(docs) > 1:
			bad = append(bad, fmt.Sprintf("%s: package %s has %d package comments", where, r.dir, len(docs)))
		case len(sentenceEnd.FindAllString(docs[0], -1)) < 2:
			bad = append(bad, fmt.Sprintf("%s: the package comment of %s is shorter than two sentences", where, r.dir))
		}
	}
	return bad
}

func onlyTests(r room) bool {
	for _, f := range r.files {
		if !f.isTest() {
			return false
		}
	}
	return true
}

// checkExported finds exported identifiers without a comment. In a group of
// constants or variables the group's comment is enough. Error and Unwrap need
// none: the interface they satisfy says it all.
func checkExported(s *source) []string {
	var bad []string
	for _, r := range s.rooms {
		for _, f := range r.files {
			if f.isTest() {
				continue
			}
			for _, d := range f.ast.Decls {
				bad = append(bad, undocumented(s, d)...)
			}
		}
	}
	return bad
}

func undocumented(s *source, d ast.Decl) []string {
	if fn, ok := d.(*ast.FuncDecl); ok {
		obvious := fn.Recv != nil && (fn.Name.Name == "Error" || fn.Name.Name == "Unwrap")
		if fn.Name.IsExported() && fn.Doc == nil && receiverExported(fn) && !obvious {
			return []string{fmt.Sprintf("%s: exported %s has no comment", s.at(fn), fn.Name.Name)}
		}
		return nil
	}
	gen := d.(*ast.GenDecl)
	var bad []string
	for _, spec := range gen.Specs {
		for _, name := range specNames(spec) {
			if name.IsExported() && !specDocumented(gen, spec) {
				bad = append(bad, fmt.Sprintf("%s: exported %s has no comment", s.at(name), name.Name))
			}
		}
	}
	return bad
}

// receiverExported is true for functions, and for methods of exported types.
func receiverExported(fn *ast.FuncDecl) bool {
	if fn.Recv == nil {
		return true
	}
	t := fn.Recv.List[0].Type
	for {
		switch x := t.(type) {
		case *ast.StarExpr:
			t = x.X
		case *ast.IndexExpr:
			t = x.X
		case *ast.IndexListExpr:
			t = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

func specNames(spec ast.Spec) []*ast.Ident {
	switch x := spec.(type) {
	case *ast.TypeSpec:
		return []*ast.Ident{x.Name}
	case *ast.ValueSpec:
		return x.Names
	}
	return nil
}

func specDocumented(gen *ast.GenDecl, spec ast.Spec) bool {
	if gen.Doc != nil && (gen.Tok != token.TYPE || len(gen.Specs) == 1) {
		return true
	}
	switch x := spec.(type) {
	case *ast.TypeSpec:
		return x.Doc != nil || x.Comment != nil
	case *ast.ValueSpec:
		return x.Doc != nil || x.Comment != nil
	}
	return false
}

func TestPackageDocs(t *testing.T) { report(t, checkPackageDocs(load(t))) }
func TestExported(t *testing.T)    { report(t, checkExported(load(t))) }

func TestCheckPackageDocs(t *testing.T) {
	s := parse(t, map[string]string{
		"a/a.go":      "// Package a is good. It has two sentences.\npackage a\n",
		"b/b.go":      "package b\n",
		"c/c.go":      "// Package c has version 1.2 only.\npackage c\n",
		"d/d.go":      "// Package d is good. It is.\npackage d\n",
		"d/e.go":      "// Package d is good. It is.\npackage d\n",
		"e/e_test.go": "package e\n",
	})
	compare(t, checkPackageDocs(s), []string{"b/b.go:1: package b has no", "c/c.go:2: the package comment of c", "d/d.go:2: package d has 2"})
}

func TestCheckExported(t *testing.T) {
	s := parse(t, map[string]string{"a/a.go": `package a

func Bare() {}

// Told is told.
func Told() {}

type hidden struct{}

func (hidden) Method() {}

// Box is told.
type Box[T any] struct{}

func (b *Box[T]) Method() {}
func (b *Box[T]) Error() string { return "" }

// Errors.
var (
	ErrA = 1
	ErrB = 2
)

const (
	One = 1
	Two = 2 // Two is told.
)

type (
	Plain struct{}
	// Other is told.
	Other struct{}
)
`})
	compare(t, checkExported(s), []string{
		"a/a.go:3: exported Bare", "a/a.go:15: exported Method", "a/a.go:25: exported One", "a/a.go:30: exported Plain",
	})
}
