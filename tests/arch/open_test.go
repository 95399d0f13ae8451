package arch

import (
	"fmt"
	"go/ast"
	"slices"
	"strings"
	"testing"
)

// openers are the files of datastore and chunkstore that open something without
// package durable, and why nothing can hold them up there.
var openers = map[string]string{
	"chunkstore/durable/open.go":     "it is what the others open with",
	"datastore/boot/boot.go":         "the kernel's",
	"datastore/server/tasks.go":      "the system's",
	"datastore/task/process.go":      "the kernel's",
	"datastore/task/memory.go":       "a file without a name",
	"datastore/probe.go":             "in a directory that it has just made",
	"datastore/fileowner.go":         "a new name",
	"datastore/server/body/spool.go": "a new name",
}

// opening are the functions that open a file, by package, and the methods of an
// os.Root, which is called root in every room.
var opening = map[string][]string{
	"os":     {"Open", "OpenFile", "ReadFile", "Create", "CreateTemp", "WriteFile", "DirFS"},
	"fs":     {"ReadDir", "ReadFile", "WalkDir", "Glob"},
	"ioutil": {"ReadFile", "ReadDir", "WriteFile"},
	"unix":   {"Open", "Openat", "Openat2", "Creat"},
	"root":   {"Open", "OpenFile", "ReadFile", "Create", "WriteFile", "FS"},
}

// checkOpens finds opens of files that would wait for ever if a FIFO had the name.
func checkOpens(s *source, except map[string]string) (bad []string) {
	for _, r := range s.rooms {
		if !strings.HasPrefix(r.dir+"/", "datastore/") && !strings.HasPrefix(r.dir+"/", "chunkstore/") {
			continue
		}
		for _, f := range r.files {
			if _, known := except[f.name]; known || f.isTest() {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if sel, ok := n.(*ast.SelectorExpr); ok && slices.Contains(opening[last(sel.X)], sel.Sel.Name) {
					bad = append(bad, fmt.Sprintf("%s: %s.%s opens whatever has the name; package durable opens files", s.at(sel), last(sel.X), sel.Sel.Name))
				}
				return true
			})
		}
	}
	return bad
}

// last is the last word of a chain of selectors.
func last(e ast.Expr) string {
	switch e := e.(type) {
	case *ast.Ident:
		return e.Name
	case *ast.SelectorExpr:
		return e.Sel.Name
	}
	return ""
}

func TestOpens(t *testing.T) { report(t, checkOpens(load(t), openers)) }

// TestOpenersAreThere fails for exceptions that are gone.
func TestOpenersAreThere(t *testing.T) {
	there := map[string]bool{}
	for _, r := range load(t).rooms {
		for _, f := range r.files {
			there[f.name] = true
		}
	}
	for name := range openers {
		if !there[name] {
			t.Errorf("the table of files that open has %s, which is not there", name)
		}
	}
}

func TestCheckOpens(t *testing.T) {
	s := parse(t, map[string]string{
		"datastore/a.go":       "package datastore\nimport \"os\"\nvar f = os.Open\nfunc g() { s.root.OpenFile(\"x\", 0, 0) }\n",
		"chunkstore/pack/p.go": "package pack\nimport \"io/fs\"\nfunc g() {\n fs.ReadDir(root.FS(), \"\")\n durable.Open(\"\")\n store.Open(\"\")\n}\n",
		"chunkstore/known.go":  "package chunkstore\nimport \"os\"\nvar f = os.Open\n",
		"datastore/a_test.go":  "package datastore\nimport \"os\"\nvar h = os.Open\n",
		"client/c.go":          "package client\nimport \"os\"\nvar f = os.Open\n",
	})
	compare(t, checkOpens(s, map[string]string{"chunkstore/known.go": ""}), []string{
		"chunkstore/pack/p.go:4: fs.ReadDir", "chunkstore/pack/p.go:4: root.FS", "datastore/a.go:3: os.Open", "datastore/a.go:4: root.OpenFile",
	})
}
