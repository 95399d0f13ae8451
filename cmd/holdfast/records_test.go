package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"reflect"
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

// structs are the struct types that the files of a room declare, by name.
func structs(t *testing.T, dir string) map[string]*ast.StructType {
	t.Helper()
	files, err := filepath.Glob(dir + "/*.go")
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]*ast.StructType{}
	for _, path := range files {
		if strings.HasSuffix(path, "_test.go") {
			continue
		}
		f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		for _, d := range f.Decls {
			if g, ok := d.(*ast.GenDecl); ok {
				for _, s := range g.Specs {
					if spec, ok := s.(*ast.TypeSpec); ok {
						if st, ok := spec.Type.(*ast.StructType); ok {
							found[spec.Name.Name] = st
						}
					}
				}
			}
		}
	}
	return found
}

// jsonName is the name that a field has in JSON, "" if it has none.
func jsonName(f *ast.Field) string {
	if f.Tag == nil {
		return ""
	}
	tag, err := strconv.Unquote(f.Tag.Value)
	if err != nil {
		return ""
	}
	name, _, _ := strings.Cut(reflect.StructTag(tag).Get("json"), ",")
	return name
}

// isRecord reports whether a type is printed: it says what kind of message it is,
// or has in it what does.
func isRecord(all map[string]*ast.StructType, name string) bool {
	if all[name] == nil {
		return false
	}
	return slices.ContainsFunc(all[name].Fields.List, func(f *ast.Field) bool {
		return jsonName(f) == "message_type" || len(f.Names) == 0 && isRecord(all, lastName(f.Type))
	})
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

// recordFields collects the names of the fields of a type, and of the types of
// its fields, by the type that has them.
func recordFields(all map[string]*ast.StructType, name string, into map[string][]string) {
	if all[name] == nil || into[name] != nil {
		return
	}
	into[name] = []string{}
	for _, f := range all[name].Fields.List {
		if n := jsonName(f); n != "" {
			into[name] = append(into[name], n)
		}
		recordFields(all, lastName(f.Type), into)
	}
}

// Every field that a record can have is written down in docs/json.md.
func TestFieldsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/json.md")
	if err != nil {
		t.Fatal(err)
	}
	records := 0
	for _, dir := range commandRooms(t) {
		all := structs(t, dir)
		fields := map[string][]string{}
		for name := range all {
			if isRecord(all, name) {
				recordFields(all, name, fields)
			}
		}
		records += len(fields)
		for _, typ := range slices.Sorted(maps.Keys(fields)) {
			for _, name := range fields[typ] {
				if !strings.Contains(string(text), "`"+name+"`") && !strings.Contains(string(text), `"`+name+`"`) {
					t.Errorf("docs/json.md lacks %q of %s in %s", name, typ, dir)
				}
			}
		}
	}
	if records < 50 {
		t.Errorf("only %d records were found", records)
	}
	for _, kind := range []string{
		"note", "warning", "exit_error", "status", "initialized", "summary", "group", "snapshot", "file", "forgotten",
		"notes", "protected", "error", "verified", "repository", "key", "paperkey", "master_key", "version",
		"listening", "first_start", "log", "datastore", "datastore_removed", "user", "password_changed", "user_removed", "token",
		"token_revoked", "acl", "acl_removed", "namespace", "namespace_removed", "quota", "quota_removed", "access_exported",
		"access_imported", "certificate", "logged_in", "logged_out", "task", "task_log", "task_stopped", "pruned", "owner", "affected",
	} {
		if !strings.Contains(string(text), "`"+kind+"`") {
			t.Errorf("docs/json.md lacks the message type %q", kind)
		}
	}
}
