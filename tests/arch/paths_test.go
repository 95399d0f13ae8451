package arch

import (
	"fmt"
	"go/ast"
	"strconv"
	"strings"
	"testing"
)

// checkPaths finds paths of methods that are spelled out on the client's side: calls name
// rows of the table in room table.
func checkPaths(s *source, table string) (bad []string) {
	paths := map[string]bool{}
	literals(s, func(dir string) bool { return dir == table }, func(text string, _ ast.Node) {
		if verb, path, ok := strings.Cut(text, " /"); ok && strings.ToUpper(verb) == verb {
			fixed, _, _ := strings.Cut("/"+path, "{")
			paths[fixed] = true
		}
	})
	if len(paths) == 0 {
		return []string{table + " has no paths"}
	}
	clients := func(dir string) bool { return dir == "client" || isCommand(dir) }
	literals(s, clients, func(text string, at ast.Node) {
		path := text
		if verb, rest, ok := strings.Cut(text, " /"); ok && strings.ToUpper(verb) == verb {
			path = "/" + rest
		}
		if paths[path] {
			bad = append(bad, fmt.Sprintf("%s: %q is a path of a row of %s; name the row", s.at(at), text, table))
		}
	})
	return bad
}

// literals calls do for every text in the source of rooms, without their tests.
func literals(s *source, of func(dir string) bool, do func(text string, at ast.Node)) {
	for _, r := range s.rooms {
		for _, f := range r.files {
			if !of(r.dir) || f.isTest() {
				continue
			}
			ast.Inspect(f.ast, func(n ast.Node) bool {
				if lit, ok := n.(*ast.BasicLit); ok {
					if text, err := strconv.Unquote(lit.Value); err == nil {
						do(text, lit)
					}
				}
				return true
			})
		}
	}
}

func TestPathsAreOfTheTable(t *testing.T) { report(t, checkPaths(load(t), "datastore/wire/api")) }

func TestCheckPaths(t *testing.T) {
	s := parse(t, map[string]string{
		"api/rows.go":         "package api\nconst (\nA Op = \"GET /a/{b}/c\"\nD Op = \"POST /d\"\nE = \"/e\"\n)\n",
		"client/c.go":         "package client\nvar a, b, c, d = \"/a/\", \"PUT /d\", \"/e\", \"say /d\"\n",
		"client/c_test.go":    "package client\nvar x = \"/d\"\n",
		"command/x/x.go":      "package x\nvar a = \"/d\"\n",
		"datastore/server.go": "package datastore\nvar a = \"/d\"\n",
	})
	compare(t, checkPaths(s, "api"), []string{"client/c.go:2: \"/a/\"", "client/c.go:2: \"PUT /d\"", "command/x/x.go:2: \"/d\""})
}
