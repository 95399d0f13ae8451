package arch

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"sort"
	"strings"
	"testing"
)

// rooms is the plan of the house: for each package what it may import of this
// module, outside its tests. "*" is everything but what exists for tests.
var rooms = map[string][]string{
	"crypto": {},

	"chunkstore":                {},
	"chunkstore/chunker":        {"chunkstore"},
	"chunkstore/blob":           {"chunkstore", "crypto"},
	"chunkstore/durable":        {"chunkstore"},
	"chunkstore/pack":           {"chunkstore", "chunkstore/blob", "chunkstore/durable", "chunkstore/pack/catalogue", "chunkstore/pack/packfile", "crypto"},
	"chunkstore/pack/catalogue": {"chunkstore", "chunkstore/durable", "chunkstore/pack/packfile"},
	"chunkstore/pack/packfile":  {"chunkstore", "crypto"},
	"chunkstore/mem":            {"chunkstore"},
	"chunkstore/storetest":      {"chunkstore"},

	"datastore/index":         {"chunkstore", "crypto"},
	"datastore/manifest":      {"chunkstore", "chunkstore/blob", "crypto"},
	"datastore/wire":          {"chunkstore", "datastore/index"},
	"datastore/wire/api":      {"chunkstore", "datastore/wire"},
	"datastore/wire/wiretest": {"chunkstore", "chunkstore/blob", "crypto", "datastore/index", "datastore/manifest", "datastore/wire"},
	"datastore/image": {"chunkstore", "chunkstore/blob", "crypto", "datastore/index", "datastore/manifest",
		"datastore/wire"},
	"datastore/boot": {},
	"datastore": {"chunkstore", "chunkstore/blob", "chunkstore/durable", "chunkstore/pack", "crypto", "datastore/boot",
		"datastore/index", "datastore/manifest", "datastore/wire"},
	"datastore/verify": {"chunkstore", "chunkstore/blob", "chunkstore/pack", "crypto", "datastore", "datastore/image",
		"datastore/index", "datastore/manifest", "datastore/wire"},

	"datastore/access": {"chunkstore", "chunkstore/durable", "crypto", "datastore/wire", "datastore/wire/api"},
	"datastore/prune":  {"chunkstore", "datastore/wire"},
	"datastore/task":   {"chunkstore", "chunkstore/durable", "datastore/wire"},
	"datastore/gc":     {"chunkstore", "chunkstore/pack", "datastore", "datastore/index"},

	"datastore/server": {"chunkstore", "chunkstore/blob", "chunkstore/durable", "chunkstore/pack", "crypto", "datastore", "datastore/access",
		"datastore/gc", "datastore/image", "datastore/index", "datastore/manifest", "datastore/prune", "datastore/server/body", "datastore/server/budget",
		"datastore/server/front", "datastore/server/known", "datastore/server/ledger", "datastore/server/meter",
		"datastore/server/quota", "datastore/server/rest", "datastore/task", "datastore/verify", "datastore/wire", "datastore/wire/api"},
	"datastore/server/body":   {"chunkstore", "datastore/server/budget", "datastore/server/ledger", "datastore/server/rest"},
	"datastore/server/budget": {"chunkstore", "datastore/server/ledger"},
	"datastore/server/front":  {"chunkstore/durable", "datastore/server/budget", "datastore/server/ledger"},
	"datastore/server/ledger": {"datastore/wire"},
	"datastore/server/rest":   {"datastore/wire", "datastore/wire/api"},
	"datastore/server/known":  {"chunkstore", "datastore/server/ledger"},
	"datastore/server/quota":  {"chunkstore/durable", "datastore/access", "datastore/wire"},
	"datastore/server/meter":  {"datastore", "datastore/access", "datastore/wire/api"},

	"client":          {"chunkstore", "datastore/index", "datastore/wire", "datastore/wire/api"},
	"client/source":   {},
	"client/pipeline": {},
	"client/backup": {"chunkstore", "chunkstore/blob", "chunkstore/chunker", "client/pipeline", "client/source", "crypto",
		"datastore/image", "datastore/index", "datastore/manifest", "datastore/wire"},
	"client/restore": {"chunkstore", "chunkstore/blob", "chunkstore/durable", "client/pipeline", "client/source", "crypto",
		"datastore/image", "datastore/index", "datastore/manifest", "datastore/wire"},

	"command/term":   {"datastore/wire/api"},
	"command/secret": {"chunkstore/durable", "command/term", "crypto", "datastore/wire"},
	"command/repo": {"chunkstore", "chunkstore/durable", "client", "command/secret", "command/term", "crypto", "datastore",
		"datastore/access", "datastore/server", "datastore/task", "datastore/wire", "datastore/wire/api"},
	"command/admin": {"client", "command/repo", "command/secret", "command/term", "datastore", "datastore/access",
		"datastore/wire", "datastore/wire/api"},
	"command/backup": {"client", "client/backup", "client/source", "command/repo", "command/secret", "command/term", "crypto",
		"datastore/wire"},
	"command/key": {"chunkstore", "chunkstore/blob", "chunkstore/durable", "command/repo", "command/secret", "command/term",
		"crypto", "datastore/wire"},
	"command/restore": {"client/restore", "command/repo", "command/secret", "command/term", "crypto", "datastore", "datastore/wire"},
	"command/serve": {"chunkstore", "chunkstore/durable", "client", "command/repo", "command/secret", "command/term", "datastore",
		"datastore/access", "datastore/server",
		"datastore/server/budget", "datastore/server/front", "datastore/task", "datastore/wire"},
	"command/snapshot": {"chunkstore", "client", "command/repo", "command/secret", "command/term", "datastore", "datastore/wire", "datastore/wire/api"},
	"command/store": {"chunkstore", "chunkstore/pack", "client", "command/repo", "command/secret", "command/term", "crypto",
		"datastore", "datastore/gc", "datastore/prune", "datastore/verify", "datastore/wire", "datastore/wire/api"},
	"command/task": {"client", "command/repo", "command/secret", "command/term", "datastore/wire", "datastore/wire/api"},
	"cmd/holdfast": {"chunkstore", "chunkstore/pack", "client", "client/restore", "client/source", "command/admin",
		"command/backup", "command/key", "command/repo", "command/restore", "command/secret", "command/serve",
		"command/snapshot", "command/store", "command/task", "command/term", "crypto", "datastore", "datastore/gc",
		"datastore/image", "datastore/manifest", "datastore/wire", "datastore/wire/api"},
}

// shared are the rooms below datastore and client that both sides meet in.
var shared = []string{"datastore/index", "datastore/manifest", "datastore/archive", "datastore/wire", "datastore/wire/api", "datastore/image"}

// guests says which rooms may import a foreign module, by the longest prefix
// of the import path. "tests" stands for everything below it, "*" for every
// room.
var guests = map[string][]string{
	"github.com/BurntSushi/toml":          {"command/serve"},
	"github.com/hanwen/go-fuse/v2":        {"tests"},
	"github.com/klauspost/compress":       {"chunkstore/blob", "client/source", "tests"},
	"github.com/lima-vm/go-qcow2reader":   {"client/source"},
	"github.com/prometheus/client_golang": {"datastore/server/meter"},
	"github.com/restic/chunker":           {"chunkstore/chunker", "tests"},
	"github.com/rogpeppe/go-internal":     {"tests"},
	"github.com/urfave/cli/v2":            {"cmd/holdfast", "command"},
	"go.etcd.io/bbolt":                    {"chunkstore/pack", "datastore/access"},
	"golang.org/x/crypto":                 {"crypto", "datastore/access"},
	"golang.org/x/net":                    {"tests", "command/repo"},
	"golang.org/x/sync":                   {"*"},
	"golang.org/x/sys":                    {"*"},
	"golang.org/x/term":                   {"command"},
	"golang.org/x/time":                   {"client"},
	"rsc.io/qr":                           {"crypto"},
}

// floorsMax is how long a chain of imports inside the module may be, the commands
// left out; commandFloorsMax is how long one may be among them.
const (
	floorsMax        = 7
	commandFloorsMax = 5
)

// isCommand tells the rooms of the command line.
func isCommand(dir string) bool { return strings.HasPrefix(dir, "command/") || dir == "cmd/holdfast" }

// edge is one import of a room, with the place where it stands.
type edge struct{ to, at string }

// edges reads the imports of every room, of its tests too if asked.
func edges(s *source, tests bool) map[string][]edge {
	all := map[string][]edge{}
	for _, r := range s.rooms {
		all[r.dir] = nil
		for _, f := range r.files {
			if f.isTest() && !tests {
				continue
			}
			for _, spec := range f.ast.Imports {
				all[r.dir] = append(all[r.dir], edge{importPath(spec), s.at(spec)})
			}
		}
	}
	return all
}

// inside gives the room that an import path names, if it is one of ours.
func inside(importPath string) (string, bool) {
	return strings.CutPrefix(importPath, module+"/")
}

// checkRooms compares the imports with the table.
func checkRooms(s *source, table map[string][]string) []string {
	var bad []string
	for _, r := range s.rooms {
		if strings.HasPrefix(r.dir, "tests/") {
			continue
		}
		allowed, ok := table[r.dir]
		if !ok {
			bad = append(bad, fmt.Sprintf("%s: the room %s is not in the table of tests/arch", r.files[0].name, r.dir))
			continue
		}
		for _, e := range edges(s, false)[r.dir] {
			to, ours := inside(e.to)
			if !ours || slices.Contains(allowed, to) {
				continue
			}
			if slices.Contains(allowed, "*") && !forTests(to) {
				continue
			}
			bad = append(bad, fmt.Sprintf("%s: %s -> %s: the table does not allow this import", e.at, r.dir, to))
		}
	}
	return bad
}

// forTests tells the rooms that exist for tests only.
func forTests(dir string) bool {
	return strings.HasPrefix(dir, "tests/") || strings.HasSuffix(dir, "test")
}

// chain finds the shortest way from one room to any that want accepts.
func chain(graph map[string][]edge, from string, want func(string) bool) []string {
	way := map[string][]string{from: {from}}
	for queue := []string{from}; len(queue) > 0; queue = queue[1:] {
		for _, e := range graph[queue[0]] {
			to, ours := inside(e.to)
			if !ours || way[to] != nil {
				continue
			}
			way[to] = append(slices.Clone(way[queue[0]]), to)
			if want(to) {
				return way[to]
			}
			queue = append(queue, to)
		}
	}
	return nil
}

// checkSides finds ways between client and datastore that do not end in a
// shared room, through however many rooms.
func checkSides(s *source) []string {
	side := func(name string) func(string) bool {
		return func(dir string) bool {
			return (dir == name || strings.HasPrefix(dir, name+"/")) && !slices.Contains(shared, dir)
		}
	}
	client, datastore := side("client"), side("datastore")
	graph := edges(s, false)
	var bad []string
	for _, r := range s.rooms {
		other := datastore
		if datastore(r.dir) || slices.Contains(shared, r.dir) {
			other = client
		} else if !client(r.dir) {
			continue
		}
		if c := chain(graph, r.dir, other); c != nil {
			bad = append(bad, fmt.Sprintf("%s: client and datastore never import each other", strings.Join(c, " -> ")))
		}
	}
	return bad
}

// checkGuests compares the imports of foreign modules with their table, tests
// included only for modules that they may not use either.
func checkGuests(s *source, table map[string][]string) []string {
	var bad []string
	for _, r := range s.rooms {
		for _, e := range edges(s, false)[r.dir] {
			if _, ours := inside(e.to); ours || !strings.Contains(strings.Split(e.to, "/")[0], ".") {
				continue
			}
			hosts, ok := table[guest(table, e.to)]
			if !ok {
				bad = append(bad, fmt.Sprintf("%s: %s is not in the table of foreign modules", e.at, e.to))
				continue
			}
			if !slices.ContainsFunc(hosts, func(h string) bool {
				return h == "*" || h == r.dir || strings.HasPrefix(r.dir, h+"/")
			}) {
				bad = append(bad, fmt.Sprintf("%s: %s -> %s: only %s may import it", e.at, r.dir, e.to, strings.Join(hosts, ", ")))
			}
		}
	}
	return bad
}

// guest finds the module in the table that an import path belongs to.
func guest(table map[string][]string, importPath string) string {
	for m := range table {
		if importPath == m || strings.HasPrefix(importPath, m+"/") {
			return m
		}
	}
	return ""
}

// floors gives the longest chain of imports that begins at dir and stays among
// the commands, or among the other rooms.
func floors(graph map[string][]edge, dir string) []string {
	var longest []string
	for _, e := range graph[dir] {
		to, ours := inside(e.to)
		if !ours || isCommand(to) != isCommand(dir) {
			continue
		}
		if c := floors(graph, to); len(c) > len(longest) {
			longest = c
		}
	}
	return append([]string{dir}, longest...)
}

func TestRooms(t *testing.T)  { report(t, checkRooms(load(t), rooms)) }
func TestSides(t *testing.T)  { report(t, checkSides(load(t))) }
func TestGuests(t *testing.T) { report(t, checkGuests(load(t), guests)) }

func TestFloors(t *testing.T) {
	s := load(t)
	graph := edges(s, false)
	for _, r := range s.rooms {
		if strings.HasPrefix(r.dir, "tests/") {
			continue
		}
		most := floorsMax
		if isCommand(r.dir) {
			most = commandFloorsMax
		}
		if c := floors(graph, r.dir); len(c) > most {
			t.Errorf("%d floors, at most %d: %s", len(c), most, strings.Join(c, " -> "))
		}
	}
}

// TestTableIsOfThisHouse fails for rooms and modules that are gone.
func TestTableIsOfThisHouse(t *testing.T) {
	s := load(t)
	there := map[string]bool{}
	used := map[string]bool{}
	for _, r := range s.rooms {
		there[r.dir] = true
		for _, e := range edges(s, true)[r.dir] {
			used[guest(guests, e.to)] = true
		}
	}
	for dir := range rooms {
		if !there[dir] {
			t.Errorf("the table has a room %s that is not there", dir)
		}
	}
	for m := range guests {
		if !used[m] {
			t.Errorf("the table has a foreign module %s that nothing imports", m)
		}
	}
}

func TestTopLevel(t *testing.T) {
	want := []string{".ci", "chunkstore", "client", "cmd", "command", "crypto", "datastore", "docs", "packaging", "tests"}
	ignored := []string{".git", "bin", "tmp"} // what .gitignore names
	found, err := os.ReadDir(root(t))
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, e := range found {
		if e.IsDir() && !slices.Contains(ignored, e.Name()) {
			got = append(got, e.Name())
		}
	}
	sort.Strings(got)
	if !slices.Equal(got, want) {
		t.Errorf("top-level folders are %v, want %v", got, want)
	}
}

// TestDependencies holds go.mod, the table and docs/dependencies.md together.
func TestDependencies(t *testing.T) {
	mod, err := os.ReadFile(filepath.Join(root(t), "go.mod"))
	if err != nil {
		t.Fatal(err)
	}
	text, err := os.ReadFile(filepath.Join(root(t), "docs", "dependencies.md"))
	if err != nil {
		t.Fatal(err)
	}
	direct := 0
	for _, line := range strings.Split(string(mod), "\n") {
		words := strings.Fields(line)
		if len(words) < 2 || !strings.HasPrefix(words[1], "v") || strings.HasSuffix(line, "// indirect") {
			continue
		}
		direct++
		if _, ok := guests[words[0]]; !ok {
			t.Errorf("go.mod: %s is not in the table of foreign modules", words[0])
		}
		if !strings.Contains(string(text), "| "+words[0]+" | "+words[1]+" |") {
			t.Errorf("docs/dependencies.md has no line for %s %s", words[0], words[1])
		}
	}
	if direct != len(guests) {
		t.Errorf("go.mod requires %d modules directly, the table has %d", direct, len(guests))
	}
}

func TestCheckRooms(t *testing.T) {
	table := map[string][]string{"a": {}, "b": {"a"}, "cmd": {"*"}}
	s := parse(t, map[string]string{
		"a/a.go":       "package a\nimport _ \"holdfast/b\"\n",
		"b/b.go":       "package b\nimport (\n\"os\"\n\"holdfast/a\"\n)\nvar _ = os.Args\n",
		"b/b_test.go":  "package b\nimport _ \"holdfast/cmd\"\n",
		"c/c.go":       "package c\n",
		"cmd/main.go":  "package main\nimport _ \"holdfast/b\"\nimport _ \"holdfast/tests/x\"\nimport _ \"holdfast/b/btest\"\n",
		"tests/x/x.go": "package x\nimport _ \"holdfast/cmd\"\n",
	})
	compare(t, checkRooms(s, table), []string{
		"a/a.go:2: a -> b", "c/c.go: the room c is not in the table", "cmd/main.go:3: cmd -> tests/x", "cmd/main.go:4: cmd -> b/btest",
	})
}

func TestCheckSides(t *testing.T) {
	s := parse(t, map[string]string{
		"client/backup/b.go":   "package backup\nimport _ \"holdfast/chunkstore\"\nimport _ \"holdfast/datastore/wire\"\n",
		"chunkstore/c.go":      "package chunkstore\nimport _ \"holdfast/datastore/gc\"\n",
		"datastore/gc/gc.go":   "package gc\n",
		"datastore/wire/w.go":  "package wire\nimport _ \"holdfast/client\"\n",
		"client/client.go":     "package client\n",
		"cmd/holdfast/main.go": "package main\nimport _ \"holdfast/client\"\nimport _ \"holdfast/datastore/gc\"\n",
	})
	compare(t, checkSides(s), []string{
		"client/backup -> chunkstore -> datastore/gc", "datastore/wire -> client",
	})
}

func TestCheckGuests(t *testing.T) {
	table := map[string][]string{"example.org/x": {"a", "tests"}, "example.org/y": {"*"}}
	s := parse(t, map[string]string{
		"a/a.go":       "package a\nimport _ \"example.org/x/sub\"\nimport _ \"example.org/z\"\n",
		"b/b.go":       "package b\nimport _ \"example.org/x\"\nimport _ \"example.org/y\"\nimport _ \"encoding/json\"\n",
		"tests/t/t.go": "package t\nimport _ \"example.org/x\"\n",
	})
	compare(t, checkGuests(s, table), []string{
		"a/a.go:3: example.org/z is not in the table", "b/b.go:2: b -> example.org/x",
	})
}
