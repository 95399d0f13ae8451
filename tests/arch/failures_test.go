package arch

import (
	"fmt"
	"go/ast"
	"go/token"
	"path"
	"strings"
	"testing"
)

// failuresFile has the table of what can fail at a server.
const failuresFile = "datastore/wire/api/failures.go"

// unlisted are the errors of the rooms of a server that are not in the table of failures,
// each with the reason.
var unlisted = map[string]string{
	"crypto.ErrWrongKey":        "who has keys has them: no server does",
	"crypto.ErrWrongPassphrase": "who has keys has them: no server does",
	"crypto.ErrNoKey":           "who has keys has them: no server does",
	"crypto.ErrTampered":        "who has keys has them: no server does",
	"crypto.ErrFormat":          "key files are read where keys are",
	"manifest.ErrUnsigned":      "who has keys asks for signatures",
	"manifest.ErrNotFound":      "clients read manifests themselves",
	"manifest.ErrFormat":        "clients read manifests themselves; finish answers that it is damaged",
	"durable.ErrLost":           "a command ends with it as with what is not in the table",
	"catalogue.ErrDoubt":        "goes with chunkstore.ErrCorrupt",
	"datastore.ErrArrival":      "goes with chunkstore.ErrCorrupt",
	"datastore.ErrConfig":       "goes with chunkstore.ErrCorrupt",
	"datastore.ErrOwnerFile":    "goes with chunkstore.ErrCorrupt, or with why the file cannot be read",
	"datastore.ErrOlder":        "goes with wire.ErrExists",
	"datastore.ErrFinished":     "goes with chunkstore.ErrInvalid",
	"datastore.ErrNotNamed":     "who asks has the manifest",
	"wire.ErrUnavailable":       "is how a conversation breaks, and no answer",
	"wire.ErrLocal":             "is about the client's machine",
	"wire.ErrUnknown":           "is what a client finds out, or does not",
	"task.ErrAborted":           "its words are those of wire.ErrStopped",
	"task.ErrClosed":            "a server that ends answers nothing more before it closes its tasks",
	"rest.ErrAnswered":          "nothing has failed",
	"rest.ErrBodyTooLarge":      "a command ends with it as with what is not in the table",
	"body.ErrCrowded":           "goes with ledger.ErrFull or ledger.ErrShare, or the end of a wait",
	"body.ErrBodyLong":          "a command ends with it as with what is not in the table",
	"body.ErrBodyShort":         "a command ends with it as with what is not in the table",
}

// checkFailures finds exported errors of the rooms that a server is made of that are
// neither in the table of failures nor in the list of those that need not be, and what is
// in the list for nothing.
func checkFailures(s *source, server, table string, unlisted map[string]string) (bad []string) {
	graph, listed := edges(s, false), tableErrors(s, table)
	if len(listed) == 0 {
		return []string{table + " has no errors"}
	}
	found := map[string]bool{}
	for _, r := range s.rooms {
		if r.dir != server && chain(graph, server, func(dir string) bool { return dir == r.dir }) == nil {
			continue
		}
		for _, f := range r.files {
			for name, at := range ownErrors(f) {
				name = path.Base(r.dir) + "." + name
				found[name] = true
				if listed[name] == (unlisted[name] != "") {
					bad = append(bad, fmt.Sprintf("%s: %s has to be in the table of %s, or in the list of those that need not be", s.at(at), name, table))
				}
			}
		}
	}
	for name := range unlisted {
		if !found[name] {
			bad = append(bad, fmt.Sprintf("there is no error %s that needs a reason not to be in the table of %s", name, table))
		}
	}
	return bad
}

// tableErrors are the errors that the rows of a table name in the field Is.
func tableErrors(s *source, table string) map[string]bool {
	listed := map[string]bool{}
	for _, r := range s.rooms {
		for _, f := range r.files {
			if f.name != table {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				field, ok := n.(*ast.KeyValueExpr)
				if !ok {
					return true
				}
				key, isName := field.Key.(*ast.Ident)
				value, isOther := field.Value.(*ast.SelectorExpr)
				if isName && isOther && key.Name == "Is" {
					listed[value.X.(*ast.Ident).Name+"."+value.Sel.Name] = true
				}
				return true
			})
		}
	}
	return listed
}

// ownErrors are the exported errors that a file declares, without those that are another
// room's by another name.
func ownErrors(f file) map[string]ast.Node {
	own := map[string]ast.Node{}
	if f.isTest() {
		return own
	}
	for _, d := range f.ast.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.VAR {
			continue
		}
		for _, spec := range gen.Specs {
			v := spec.(*ast.ValueSpec)
			for i, name := range v.Names {
				if !strings.HasPrefix(name.Name, "Err") || i >= len(v.Values) {
					continue
				}
				if _, other := v.Values[i].(*ast.SelectorExpr); !other {
					own[name.Name] = name
				}
			}
		}
	}
	return own
}

func TestFailuresAreComplete(t *testing.T) {
	report(t, checkFailures(load(t), "datastore/server", failuresFile, unlisted))
}

func TestCheckFailures(t *testing.T) {
	s := parse(t, map[string]string{
		"a/a.go":      "package a\nvar ErrIn, ErrOut, ErrBoth = 1, 2, 3\nvar errOwn = 4\n",
		"a/a_test.go": "package a\nvar ErrTest = 1\n",
		"b/b.go":      "package b\nimport \"holdfast/a\"\nvar ErrAlso = a.ErrIn\nvar ErrRight = 1\n",
		"c/c.go":      "package c\nvar ErrElsewhere = 1\n",
		"t/t.go":      "package t\nimport \"holdfast/a\"\nvar rows = []row{{Is: a.ErrIn}, {Is: a.ErrBoth, Like: a.ErrOut}}\n",
	})
	compare(t, checkFailures(s, "b", "t/t.go", map[string]string{"a.ErrBoth": "why", "b.ErrRight": "why", "b.ErrGone": "why"}), []string{
		"a/a.go:2: a.Err", "a/a.go:2: a.Err", "b.ErrGone",
	})
}
