package main

import (
	"flag"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// commandRooms are the directories of all rooms of the command line.
func commandRooms(t *testing.T) []string {
	t.Helper()
	rooms, err := filepath.Glob("../../command/*")
	if err != nil || len(rooms) == 0 {
		t.Fatal(rooms, err)
	}
	return append(rooms, ".")
}

// record is a type that is printed, or what is printed is made of.
type record struct {
	fields []field
	// kinds are the message types that it is printed with.
	kinds     []string
	operation string // "" if there is none, or several
}

// field is a field of a record. What is embedded has no name.
type field struct {
	name, typ string
	absent    bool // sometimes
	list      bool
}

// room is what a room of commands prints, by the names of types.
type room map[string]*record

// quotedWords are the words that the comment of a field gives as its values.
var quotedWords = regexp.MustCompile(`"([a-z_]+)"`)

// readRoom reads the struct types of a room, and what they are printed as: as literals say,
// else as the comment of the field says.
func readRoom(t *testing.T, dir string) room {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	all, told := room{}, map[string][]string{}
	var parsed []*ast.File
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		parsed = append(parsed, f)
		ast.Inspect(f, func(n ast.Node) bool {
			if spec, ok := n.(*ast.TypeSpec); ok {
				if st, ok := spec.Type.(*ast.StructType); ok {
					all[spec.Name.Name] = all.declared(st, told, spec.Name.Name)
				}
			}
			return true
		})
	}
	for _, f := range parsed {
		ast.Inspect(f, func(n ast.Node) bool {
			lit, ok := n.(*ast.CompositeLit)
			if !ok || !all.isRecord(lastName(lit.Type)) {
				return true
			}
			if kind := all.kindOf(lit); kind != "" {
				r := all[lastName(lit.Type)]
				r.kinds = append(r.kinds, kind)
				return false
			}
			return true
		})
	}
	for name, kinds := range told {
		if len(all[name].kinds) == 0 {
			all[name].kinds = kinds
		}
	}
	return all
}

// declared reads a struct type; told gets what the comment says that it is printed as.
func (all room) declared(st *ast.StructType, told map[string][]string, name string) *record {
	r := &record{}
	for _, f := range st.Fields.List {
		tag, more := jsonName(f)
		_, list := f.Type.(*ast.ArrayType)
		switch {
		case tag != "":
			r.fields = append(r.fields, field{name: tag, typ: lastName(f.Type), absent: more == "omitempty", list: list})
		case len(f.Names) == 0:
			_, pointer := f.Type.(*ast.StarExpr)
			r.fields = append(r.fields, field{typ: lastName(f.Type), absent: pointer})
		}
		var words []string
		for _, m := range quotedWords.FindAllStringSubmatch(f.Comment.Text(), -1) {
			words = append(words, m[1])
		}
		switch {
		case tag == "message_type":
			told[name] = words
		case tag == "operation" && len(words) == 1:
			r.operation = words[0]
		}
	}
	return r
}

// jsonName is the name that a field has in JSON, "" if it has none, and what follows it.
func jsonName(f *ast.Field) (name, more string) {
	if f.Tag == nil {
		return "", ""
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return "", ""
	}
	name, more, _ = strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name, more
}

// isRecord reports whether a type is printed: it says what kind of message it is,
// or has in it what does.
func (all room) isRecord(name string) bool {
	if all[name] == nil {
		return false
	}
	return slices.ContainsFunc(all[name].fields, func(f field) bool {
		return f.name == "message_type" || f.name == "" && all.isRecord(f.typ)
	})
}

// kindOf is the message type that a literal is printed with, "" if it does not say.
func (all room) kindOf(lit *ast.CompositeLit) string {
	for i, e := range lit.Elts {
		name := ""
		if pair, ok := e.(*ast.KeyValueExpr); ok {
			name, e = lastName(pair.Key), pair.Value
		}
		switch v := e.(type) {
		case *ast.BasicLit:
			if word, err := strconv.Unquote(v.Value); err == nil && (name == "MessageType" || name == "" && i == 0) {
				return word
			}
		case *ast.CompositeLit: // what is embedded
			if all.isRecord(lastName(v.Type)) {
				return all.kindOf(v)
			}
		}
	}
	return ""
}

// lastName is the name of the type that an expression is about: of a pointer, a
// list or a value.
func lastName(e ast.Expr) string {
	switch x := e.(type) {
	case *ast.Ident:
		return x.Name
	case *ast.StarExpr:
		return lastName(x.X)
	case *ast.ArrayType:
		return lastName(x.Elt)
	}
	return ""
}

// flat are the fields of a type, of what is embedded too, without the message type.
func (all room) flat(name string) (list []field) {
	for _, f := range all[name].fields {
		switch {
		case f.name == "" && all[f.typ] != nil:
			for _, inner := range all.flat(f.typ) {
				inner.absent = inner.absent || f.absent
				list = append(list, inner)
			}
		case f.name != "" && f.name != "message_type":
			list = append(list, f)
		}
	}
	return list
}

// describe tells the fields of a type, as a page does.
func (all room) describe(name, operation string) string {
	var parts []string
	for _, f := range all.flat(name) {
		text := "`" + f.name + "`"
		if f.absent {
			text += "?"
		}
		of := ""
		switch {
		case f.name == "operation" && operation != "":
			text += " (`" + operation + "`)"
		case all[f.typ] != nil:
			of = "{" + all.describe(f.typ, "") + "}"
		case f.typ == "bool":
			of = "true or false"
		case f.typ != "string":
			of = "number"
		}
		if f.list {
			of = strings.TrimSuffix("list of "+of, " of ")
		}
		if of != "" {
			text += ": " + of
		}
		parts = append(parts, text)
	}
	return strings.Join(parts, ", ")
}

// jsonPage describes what is printed; what follows this heading is written by the test.
const (
	jsonPage    = "../../docs/json.md"
	jsonHeading = "\n## Every record\n"
)

const jsonIntroduction = jsonHeading + `
What commands print besides their logs, as their source has it: ` + "`go test ./cmd/holdfast -run TestJSONPageIsOfTheRecords -write-json`" + ` writes this table, and the
test fails when it is stale. A field with "?" is left out where there is nothing to tell. What is no number, list or object is text.

| ` + "`message_type`" + ` | fields |
|---|---|
`

var writeJSON = flag.Bool("write-json", false, "write the table of docs/json.md instead of comparing with it")

// The page about JSON describes every kind of record with every field, and its table has
// them word for word.
func TestJSONPageIsOfTheRecords(t *testing.T) {
	text, err := os.ReadFile(jsonPage)
	if err != nil {
		t.Fatal(err)
	}
	prose, table, _ := strings.Cut(string(text), jsonHeading)
	var lines []string
	for _, dir := range commandRooms(t) {
		all := readRoom(t, dir)
		for _, name := range slices.Sorted(maps.Keys(all)) {
			r := all[name]
			if !all.isRecord(name) {
				continue
			}
			if len(r.kinds) == 0 && !all.isPart(name) {
				t.Errorf("nobody can tell what %s in %s is printed as: say so behind its field MessageType", name, dir)
			}
			slices.Sort(r.kinds)
			for _, kind := range slices.Compact(r.kinds) {
				lines = append(lines, fmt.Sprintf("| `%s` | %s |\n", kind, all.describe(name, all.operationOf(name))))
			}
		}
	}
	slices.Sort(lines)
	for _, word := range regexp.MustCompile("`[a-z_0-9]+`").FindAllString(strings.Join(lines, ""), -1) {
		if !strings.Contains(prose, word) && !strings.Contains(prose, `"`+strings.Trim(word, "`")+`"`) {
			t.Errorf("docs/json.md does not say what %s is", word)
		}
	}
	want := jsonIntroduction + strings.Join(slices.Compact(lines), "")
	if *writeJSON {
		if err := os.WriteFile(jsonPage, []byte(prose+want), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if jsonHeading+table != want {
		t.Error("docs/json.md is not what is printed: go test ./cmd/holdfast -run TestJSONPageIsOfTheRecords -write-json writes its table")
	}
	if len(lines) < 50 {
		t.Errorf("only %d records were found", len(lines))
	}
}

// isPart tells whether a record is embedded in others.
func (all room) isPart(name string) bool {
	for _, other := range all {
		if slices.ContainsFunc(other.fields, func(f field) bool { return f.name == "" && f.typ == name }) {
			return true
		}
	}
	return false
}

// operationOf is the operation that a record is about, of what is embedded too.
func (all room) operationOf(name string) string {
	if op := all[name].operation; op != "" {
		return op
	}
	for _, f := range all[name].fields {
		if f.name == "" && all[f.typ] != nil && all.operationOf(f.typ) != "" {
			return all.operationOf(f.typ)
		}
	}
	return ""
}
