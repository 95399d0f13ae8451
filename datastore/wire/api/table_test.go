package api

import (
	"errors"
	"flag"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"strings"
	"testing"

	"holdfast/datastore/wire"
)

var writePage = flag.Bool("update", false, "write docs/api.md instead of comparing with it")

const page = "../../../docs/api.md"

// Every row says who may ask, in terms of its own parameters; names stand once; and every
// variable of its path is a parameter that has to be given.
func TestRowsAreWhole(t *testing.T) {
	seen := map[Op]bool{}
	for _, m := range Methods() {
		t.Run(string(m.Op), func(t *testing.T) {
			if seen[m.Op] {
				t.Error("it stands twice")
			}
			seen[m.Op] = true
			names := map[string]Param{}
			for _, p := range m.Params {
				if _, twice := names[p.Name]; twice {
					t.Errorf("the parameter %s stands twice", p.Name)
				}
				names[p.Name] = p
			}
			for _, hole := range variable.FindAllString(m.Path(), -1) {
				if p, ok := names[hole[1:len(hole)-1]]; !ok || p.Optional {
					t.Errorf("the path has %s, which has to be a parameter", hole)
				}
			}
			checkMay(t, m, names)
			if m.About == "" || strings.ToLower(m.About[:1]) != m.About[:1] {
				t.Errorf("it does %q", m.About)
			}
		})
	}
}

// checkMay checks what a row says of who may ask.
func checkMay(t *testing.T, m Method, names map[string]Param) {
	t.Helper()
	needs := map[Who]bool{Granted: true, InNamespace: true, Self: true, Asks: true, Lists: true, Session: true}
	switch may := m.May; {
	case may.Who == Nobody:
		t.Error("nobody may ask")
	case needs[may.Who] != (may.Any|may.Own != 0) || needs[may.Who] != (may.On != ""):
		t.Errorf("%+v: want privileges and a place, or none", may)
	case may.Own != 0 && may.Who != InNamespace && may.Who != Session:
		t.Errorf("%+v: what is one's own is of no matter here", may)
	case may.Who == Lists:
		return // the variable of its place is each of what is listed
	case may.Who == Self && names["userid"].Name == "":
		t.Error("it is for a user, and has no parameter userid")
	}
	for _, hole := range variable.FindAllString(m.May.On, -1) {
		if _, ok := names[hole[1:len(hole)-1]]; !ok {
			t.Errorf("its place has %s, which is no parameter", hole)
		}
	}
}

// Every row of the table of failures is an error of its own, with a name that fits into a
// header; and no row is hidden by a wider one before it.
func TestFailuresAreWhole(t *testing.T) {
	name := regexp.MustCompile(`^[a-z-]+$`)
	for i, row := range Failures() {
		t.Run(row.Name, func(t *testing.T) {
			if !name.MatchString(row.Name) || row.Name == FailureOther || row.Is == nil || row.Status/100 != 4 && row.Status/100 != 5 || row.Exit == 0 {
				t.Errorf("%+v", row)
			}
			for _, before := range Failures()[:i] {
				if before.Name == row.Name || errors.Is(row.Is, before.Is) {
					t.Errorf("%s stands before it", before.Name)
				}
			}
			if got := FailuresNamed([]string{row.Name, "of a newer server"}); len(got) != 1 || got[0].Is != row.Is {
				t.Errorf("its name is that of %+v", got)
			}
		})
	}
}

func TestPlaces(t *testing.T) {
	values := map[string]string{"store": "tank", "ns": "a/b", "parent": "x"}
	get := func(name string) string { return values[name] }
	for _, tc := range []struct {
		on string
		ns wire.Namespace
	}{{thisNamespace, "a/b"}, {thisNamespace + "/..", "a"}, {"/datastore/{store}/{parent}", "x"}} {
		if got := (May{On: tc.on}).Namespace(get); got != tc.ns {
			t.Errorf("%s: %q, want %q", tc.on, got, tc.ns)
		}
	}
	if got := (May{On: wholeStore}).Place(get); got != "/datastore/tank" {
		t.Error(got)
	}
	if Parent("a") != "" || Parent("") != "" {
		t.Error("the root is not its own parent")
	}
	if got := GetToken.At("u@pbs", "a/b"); got != "/access/users/u@pbs/token/a%2Fb" {
		t.Error(got)
	}
}

// The page about the methods says what the table says.
func TestPageIsOfTheTable(t *testing.T) {
	var b strings.Builder
	b.WriteString(pageHead)
	for _, m := range Methods() {
		describeMethod(&b, m)
	}
	b.WriteString(pageSessions)
	for _, m := range BackupRows() {
		describeMethod(&b, m)
	}
	b.WriteString("\n## In a reader session\n")
	for _, m := range ReaderRows() {
		describeMethod(&b, m)
	}
	b.WriteString(pageFailures)
	for _, row := range Failures() {
		fmt.Fprintf(&b, "| `%s` | %s | %d | %d |\n", row.Name, row.Is, row.Status, row.Exit)
	}
	if *writePage {
		if err := os.WriteFile(page, []byte(b.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	have, err := os.ReadFile(page)
	if err != nil {
		t.Fatal(err)
	}
	if string(have) != b.String() {
		t.Error("docs/api.md is not what the table says: go test ./datastore/wire/api -run TestPageIsOfTheTable -update writes it")
	}
}

const pageHead = `# The API

Every method below ` + "`/api2/json`" + ` (and ` + "`/api2/extjs`" + `, in the form of the web page), as the table in ` + "`datastore/wire/api`" + ` has it, which server and client share.
` + "`go test ./datastore/wire/api -run TestPageIsOfTheTable -update`" + ` writes this page, and the test fails when it is stale. What each kind of caller is
answered stands in [who may ask what](rights.md).

Parameters come in the query, in a form or in a JSON object; a name in braces is a component of the path. **Bold** ones have to be given. A ` + "`POST`" + ` or
` + "`PUT`" + ` whose body is data takes them in the query. The answer is ` + "`{\"data\": …}`" + `; times are Unix seconds, sizes bytes, and a field with "?" may be absent. A path that only has
others below it answers ` + "`GET`" + ` with a list of ` + "`{\"subdir\": …}`" + `. Privileges are looked up on a path of access rules: ` + "`/datastore/{store}/{ns}`" + ` is the
namespace that the parameters name.
`

const pageSessions = `
## In a backup session

After the upgrade of ` + "`GET /backup`" + `, by HTTP/2. Who has begun the session may ask, as long as it still has the privileges for that.
`

const pageFailures = `
## What can fail

An answer that is no success is a text, and its header ` + "`" + wire.FailureHeader + "`" + ` names what has failed, with commas between if it is several things; ` + "`" + FailureOther + "`" + ` is what
this table does not have. The status is that of the first name, unless the protocol wants another one for the method. The last column is what a command of Holdfast
ends with, which finds the same in the status and the words of a server that names nothing.

| name | error | status | exit code |
|---|---|---|---|
`

// describeMethod writes down a row.
func describeMethod(b *strings.Builder, m Method) {
	fmt.Fprintf(b, "\n### `%s`\n\n- What: %s.\n", m.Op, m.About)
	if m.May.Who != Nobody {
		fmt.Fprintf(b, "- Who: %s.\n", describeMay(m.May))
	}
	var params []string
	for _, p := range m.Params {
		params = append(params, describeParam(p))
	}
	if m.Raw && m.Op.Verb() == "POST" {
		params = append(params, "the body is data")
	}
	if len(params) > 0 {
		fmt.Fprintf(b, "- Parameters: %s.\n", strings.Join(params, "; "))
	}
	fmt.Fprintf(b, "- Answer: %s.\n", describeAnswer(m.Answer))
}

func describeMay(m May) string {
	any, own := strings.Join(m.Any.Names(), " or "), strings.Join(m.Own.Names(), " or ")
	var parts []string
	if any != "" {
		parts = append(parts, any)
	}
	if own != "" {
		parts = append(parts, own+" for one's own groups")
	}
	with := fmt.Sprintf("%s on `%s`", strings.Join(parts, ", or "), m.On)
	text := map[Who]string{
		Anybody: "anybody, without credentials", LoggedIn: "whoever has logged in", Local: "on the machine itself only",
		Granted: with, InNamespace: with, Session: with, Self: "the user itself, or " + with,
		Asks: "whose it is, or " + with, Lists: "whoever has logged in; all is listed with " + with,
	}[m.Who]
	if m.Note != "" {
		text += "; " + m.Note
	}
	return text
}

func describeParam(p Param) string {
	name := "`" + p.Name + "`"
	if !p.Optional {
		name = "**" + name + "**"
	}
	kind := map[Kind]string{Str: "", Integer: "number", Boolean: "yes or no", Strs: "list", Ints: "list of numbers"}[p.Kind]
	if p.Check != nil {
		// What a check says to something that is never good.
		if err := p.Check("\x00"); err != nil {
			if why, ok := strings.CutPrefix(err.Error(), "want "); ok && len(why) < 60 {
				kind = strings.TrimSpace(kind + " " + strings.TrimPrefix(why, "one of: "))
			}
		}
	}
	if kind == "" {
		return name
	}
	return name + " (" + kind + ")"
}

// describeAnswer tells the fields of an answer.
func describeAnswer(v any) string {
	switch v.(type) {
	case nil:
		return "`null`"
	case Bytes:
		return "data"
	}
	return describeType(reflect.TypeOf(v))
}

func describeType(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Pointer:
		return describeType(t.Elem())
	case reflect.Slice:
		return "list of " + describeType(t.Elem())
	case reflect.Map:
		return "by name " + describeType(t.Elem())
	case reflect.Struct:
		return "{" + strings.Join(fields(t), ", ") + "}"
	case reflect.String:
		return "text"
	case reflect.Bool:
		return "yes or no"
	}
	return "number"
}

// fields are those of an object, of what is embedded too.
func fields(t reflect.Type) (list []string) {
	for i := range t.NumField() {
		f := t.Field(i)
		tag, more, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && tag == "" {
			embedded := f.Type
			if embedded.Kind() == reflect.Pointer {
				embedded = embedded.Elem()
			}
			list = append(list, fields(embedded)...)
			continue
		}
		text := "`" + tag + "`"
		if more == "omitempty" {
			text += "?"
		}
		if inner := f.Type; inner.Kind() != reflect.String && inner.Kind() != reflect.Bool && !number64.MatchString(inner.String()) {
			text += ": " + describeType(inner)
		}
		list = append(list, text)
	}
	return list
}

// number64 are types whose name says nothing to people.
var number64 = regexp.MustCompile(`^\*?(u?int\d*|float64|string)$`)
