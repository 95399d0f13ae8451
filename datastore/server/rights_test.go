package server

import (
	"bytes"
	"cmp"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

var writeRights = flag.Bool("write-rights", false, "write docs/rights.md instead of comparing with it")

const rightsPage = "../../docs/rights.md"

// rightsRow is a request of the table: a method, and what it is asked with beside the
// parameters that are not optional.
type rightsRow struct {
	method
	what string // what it is asked for, "" for the plain request
	with func(c rightsCaller) map[string]string
}

func asked(pairs ...string) func(rightsCaller) map[string]string {
	v := map[string]string{}
	for i := 0; i < len(pairs); i += 2 {
		v[pairs[i]] = pairs[i+1]
	}
	return func(rightsCaller) map[string]string { return v }
}

// rightsVariants are more rows of a method: where who may ask depends on what is asked.
func rightsVariants(m method) []rightsRow {
	row := func(what string, with func(rightsCaller) map[string]string) rightsRow {
		return rightsRow{m, what, with}
	}
	newOwner := func(what string, of func(rightsCaller) string) rightsRow {
		return row(what, func(c rightsCaller) map[string]string { return map[string]string{"new-owner": of(c)} })
	}
	switch m.Verb() + " " + m.Path() {
	case "PUT /access/users/{userid}":
		return []rightsRow{row("", nil), row("expiry", asked("expire", "99999999999")), row("disabling", asked("enable", "0"))}
	case "PUT /access/users/{userid}/token/{token-name}":
		return []rightsRow{row("", nil), row("expiry", asked("expire", "99999999999")), row("new secret", asked("regenerate", "1"))}
	case "GET /access/permissions":
		return []rightsRow{row("", nil), row("of a token", func(c rightsCaller) map[string]string { return map[string]string{"auth-id": string(c.object())} })}
	case "PUT /access/acl":
		return []rightsRow{row("", nil), row("more for all", asked("path", "/", "role", "Admin"))}
	case "POST /admin/datastore/{store}/change-owner":
		return []rightsRow{
			newOwner("to its owner's user", func(c rightsCaller) string { return string(c.object().User()) }),
			newOwner("to another", func(rightsCaller) string { return string(victim.User()) }),
			newOwner("to who asks", func(c rightsCaller) string { return cmp.Or(c.who(), "nobody@pbs") }),
		}
	case "POST /admin/datastore/{store}/verify":
		return []rightsRow{row("a group", nil), row("all groups", asked("backup-type", "", "backup-id", "")), row("scrub", asked("backup-type", "", "backup-id", "", "scrub", "1"))}
	case "GET /nodes/{node}/tasks/{upid}/log", "DELETE /nodes/{node}/tasks/{upid}":
		return []rightsRow{row("", nil), row("of a collection", asked("upid", "garbage_collection"))}
	case "GET /admin/datastore/{store}/download":
		return []rightsRow{row("", nil), row("index", asked("file-name", "disk.img.didx"))}
	case "POST /access/ticket":
		return []rightsRow{row("wrong password", nil), row("right password", asked("password", selfPassword))}
	}
	return []rightsRow{row("", nil)}
}

// rightsValue is what the walk gives for a parameter in a column. A new parameter that
// is not optional needs one here before its route has a row.
func rightsValue(m method, name string, column int) (string, bool) {
	c := rightsCallers[column]
	switch m.Verb() + " " + m.Path() + " " + name {
	case "POST /access/users userid":
		return fmt.Sprintf("new%d@pbs", column), true
	case "POST /access/users/{userid}/token/{token-name} token-name", "POST /admin/datastore/{store}/namespace name", "POST /config/datastore name":
		return fmt.Sprint("new", column), true
	case "POST /admin/datastore/{store}/deleted backup-time", "DELETE /admin/datastore/{store}/deleted backup-time":
		return fmt.Sprint(rightsGone), true
	case "GET /backup backup-time":
		return "5000", true // after those that are there
	}
	v, ok := map[string]string{
		"store": "tank", "name": "tank", "node": "localhost", "backup-type": "vm", "backup-time": fmt.Sprint(rightsOld),
		"backup-id": rightsGroup(column).ID, "file-name": wire.ManifestName, "notes": "x", "protected": "1", "ns": string(rightsNamespace(column)),
		"userid": string(c.object().User()), "token-name": "tok", "username": string(c.object().User()), "password": "wrong password",
		"confirmation-password": map[bool]string{true: selfPassword}[c.ticket], // a token has none
		"path":                  "/datastore/tank", "role": "Audit", "auth-id": string(c.object()), "subject": string(c.object()), "keep-last": "1",
		"upid": "backup", "new-owner": "", "bytes-max": "5", "comment": "x",
	}[name]
	return v, ok
}

// rightsAlso are parameters that are given though they are optional.
var rightsAlso = []string{"backup-id", "backup-type", "bytes-max", "comment", "confirmation-password"}

// target is the path of a route and what it is asked with.
func (l *rightsLab) target(row rightsRow, column int) (path string, v url.Values) {
	l.t.Helper()
	with := map[string]string{}
	if row.with != nil {
		with = row.with(rightsCallers[column])
	}
	path, v = row.Path(), url.Values{}
	for _, p := range row.Params {
		value, known := rightsValue(row.method, p.Name, column)
		if w, ok := with[p.Name]; ok {
			value = w
		} else if !known && !p.Optional {
			l.t.Fatalf("%s %s: no value for the parameter %q: give it one in rightsValue", row.Verb(), row.Path(), p.Name)
		}
		if p.Name == "upid" {
			value = l.taskOf(value, rightsCallers[column].object(), row.Verb() == http.MethodDelete)
		}
		if row.Path() == "/config/datastore" && p.Name == "path" {
			value = filepath.Join(l.dir, fmt.Sprint("new", column))
		}
		_, asked := with[p.Name]
		if hole := "{" + p.Name + "}"; strings.Contains(path, hole) {
			path = strings.ReplaceAll(path, hole, url.PathEscape(value))
		} else if value != "" && (!p.Optional || asked || slices.Contains(rightsAlso, p.Name) || p.Name == "path" && row.Verb() == http.MethodPost) {
			v.Set(p.Name, value)
		}
	}
	return path, v
}

// taskOf makes a task of a type, which goes on if it is to be stopped.
func (l *rightsLab) taskOf(typ string, auth wire.AuthID, running bool) string {
	l.t.Helper()
	if !running {
		return l.ended(typ, "tank", auth, 1, nil)
	}
	t, err := l.tasks.Begin(l.t.Context(), task.Spec{Type: typ, ID: "tank", Auth: auth})
	if err != nil {
		l.t.Fatal(err)
	}
	l.t.Cleanup(func() { t.End(nil) })
	return t.UPID().String()
}

// verdict asks and says in a word what came of it.
func (l *rightsLab) verdict(who string, row rightsRow, column int) string {
	l.t.Helper()
	path, v := l.target(row, column)
	target, body := l.base+"/api2/json"+path, ""
	if (row.Verb() == http.MethodPost || row.Verb() == http.MethodPut) && !row.Raw {
		body = v.Encode()
	} else {
		target += "?" + v.Encode()
	}
	if row.Raw && row.Verb() == http.MethodPost {
		body = l.aLog()
	}
	r, err := http.NewRequest(row.Verb(), target, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if protocol := map[string]string{"/backup": wire.BackupProtocol, "/reader": wire.ReaderProtocol}[row.Path()]; protocol != "" {
		r.Header.Set("Connection", "upgrade")
		r.Header.Set("Upgrade", protocol)
	}
	l.identify(r, who)
	a, err := l.client.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode == http.StatusSwitchingProtocols {
		return "yes"
	}
	text := new(bytes.Buffer)
	if _, err := io.Copy(text, a.Body); err != nil {
		l.t.Fatal(err)
	}
	word := rightsWord(a.StatusCode, text.String())
	if word == "past the check" {
		l.t.Logf("%s %s of column %d as %q: %d %.120q", row.Verb(), row.Path(), column, who, a.StatusCode, text)
	}
	var answer struct{ Data any }
	_ = json.Unmarshal(text.Bytes(), &answer) // some are files
	l.settled(answer.Data)
	return word
}

// aLog is the body of a log upload.
func (l *rightsLab) aLog() string { return string(l.sessions().blobOf("a log")) }

// rightsWord is what an answer comes to.
func rightsWord(code int, text string) string {
	refused := false
	for _, words := range []string{"permission check failed", "owner check failed", "no permissions on", "does not have permission", "not allowed"} {
		refused = refused || strings.Contains(text, words)
	}
	switch {
	case code == http.StatusForbidden || refused:
		return "no"
	case code == http.StatusUnauthorized:
		return "log in"
	case code == http.StatusNotFound, strings.Contains(text, "no such chunk"):
		return "not there"
	case code == http.StatusOK && strings.Contains(text, `"data":[]`):
		return "empty"
	case code == http.StatusOK:
		return "yes"
	}
	return "past the check"
}

// walk asks a row as everybody, and as who has only roles of no use here.
func (l *rightsLab) walk(row rightsRow) (words []string) {
	l.t.Helper()
	for column, c := range rightsCallers {
		before := l.state(row, column)
		word := l.verdict(c.who(), row, column)
		words = append(words, word)
		if row.Verb() == http.MethodDelete && row.Path() == "/config/datastore/{name}" && word == "yes" {
			l.addTank()
		}
		verifies := c.title == "Reader" && strings.HasSuffix(row.Path(), "/verify")
		if after := l.state(row, column); after != before && (word != "yes" || !c.own && !c.all && !verifies) {
			l.t.Errorf("%s %s, %s: %q is the answer, and the group has changed from\n%s to\n%s", row.Verb(), row.Path(), c.title, word, before, after)
		}
		if c.name == "nobody" {
			if got := l.verdict(beyond+"@pbs!tok", row, column); got != word {
				l.t.Errorf("%s %s: who has the roles %v gets %q, who has none %q", row.Verb(), row.Path(), uselessRoles(), got, word)
			}
		}
	}
	return words
}

// Every route that the server has, asked by every kind of caller for what is its own
// and what is another's, answers as docs/rights.md says, and so does every request of
// a session; one without a row there fails.
func TestRightsAreThoseOfTheTable(t *testing.T) {
	template := newRightsTemplate(t)
	var rows []rightsRow
	for _, m := range methods() {
		rows = append(rows, rightsVariants(m)...)
	}
	words := make([][]string, len(rows))
	t.Run("rest", func(t *testing.T) {
		t.Run("reading", func(t *testing.T) { // nothing changes
			t.Parallel()
			l := template.lab(t, "tank")
			for _, c := range rightsCallers {
				l.ended("backup", "tank", c.object(), 1, nil)
			}
			for i, row := range rows {
				if row.Verb() == http.MethodGet && row.Path() != "/backup" && row.Path() != "/reader" {
					words[i] = l.walk(row)
				}
			}
		})
		for i, row := range rows {
			if row.Verb() != http.MethodGet || row.Path() == "/backup" || row.Path() == "/reader" {
				t.Run(row.Verb()+row.Path()+row.what, func(t *testing.T) {
					t.Parallel()
					words[i] = template.lab(t, row.store()).walk(row)
				})
			}
		}
	})
	sessions := newSessionRows()
	t.Run("sessions", func(t *testing.T) { sessions.walk(template.lab(t, "tank")) })
	var page strings.Builder
	page.WriteString(rightsHead)
	rightsColumns(&page, "request")
	for i, row := range rows {
		name := fmt.Sprintf("`%s %s`", row.Verb(), row.Path())
		if row.what != "" {
			name += ", " + row.what
		}
		fmt.Fprintf(&page, "| %s | %s |\n", name, strings.Join(words[i], " | "))
	}
	page.WriteString(rightsSessionsHead)
	rightsColumns(&page, "request in a session")
	for _, row := range sessions {
		fmt.Fprintf(&page, "| %s | %s |\n", row.name(), strings.Join(row.words, " | "))
	}
	compareRights(t, page.String())
}

// rightsColumns begins a table.
func rightsColumns(page io.StringWriter, first string) {
	_, _ = page.WriteString("\n| " + first + " |")
	for _, c := range rightsCallers {
		_, _ = page.WriteString(" " + c.title + " |")
	}
	_, _ = page.WriteString("\n|---|" + strings.Repeat("---|", len(rightsCallers)) + "\n")
}

// compareRights compares the page with what the walk has found.
func compareRights(t *testing.T, page string) {
	t.Helper()
	if *writeRights {
		if err := os.WriteFile(rightsPage, []byte(page), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(rightsPage)
	if err != nil {
		t.Fatal(err)
	}
	unsaid(t, string(want), page, "docs/rights.md does not say this")
	unsaid(t, page, string(want), "docs/rights.md says what is not so")
}

// Every role has a column, or is one of those that grant nothing here.
func TestEveryRoleHasAColumn(t *testing.T) {
	has := map[string]bool{}
	for _, c := range rightsCallers {
		for _, roles := range c.grants {
			for _, r := range roles {
				has[r] = true
			}
		}
	}
	for _, r := range api.Roles() {
		if !has[r.Name] && !slices.Contains(uselessRoles(), r.Name) {
			t.Errorf("the role %s has no column in rightsCallers", r.Name)
		}
	}
}

// unsaid fails the test for every line that is not among those of the other text.
func unsaid(t *testing.T, among, lines, why string) {
	t.Helper()
	there := map[string]bool{}
	for l := range strings.Lines(among) {
		there[l] = true
	}
	for l := range strings.Lines(lines) {
		if !there[l] {
			t.Errorf("%s: %s", why, l)
		}
	}
}

const rightsHead = `# Who may ask what

Every request of the API, and what each kind of caller is answered. "Own" and "foreign" say whose group, user, token, task or quota is asked for,
where there is one. Callers are tokens that have their role on the datastore, Audit and Admin on everything; "NoAccess" is on a datastore whose
parent grants more, and "the user itself" has logged in with its password. Roles that are not here, those of remotes and tapes, are answered as no
rights. A request or role without a row or column fails
` + "`TestRightsAreThoseOfTheTable`, `TestEverySessionRequestHasARow` or `TestEveryRoleHasAColumn`" + `; after a change that is meant,
` + "`go test ./datastore/server -run TestRightsAreThoseOfTheTable -write-rights`" + ` writes this page, and the difference is what is to be judged. The same test
compares the group before and after: who is refused has changed nothing.

- **yes**: done. **empty**: a list that shows only what the caller may see, which is nothing.
- **log in**: refused for want of credentials. **no**: refused for want of rights or because the group is another's.
- **not there**: as if it did not exist. **past the check**: refused, but for what was asked and not for who asks.

` + "`GET /reader`" + ` for PutOnly is "no" but for one case: while a backup of the same token runs, it reads of the snapshot that this one builds on the manifest
and the metadata (` + "`*.mpxar.didx`" + `), and nothing else ([why](threat-model.md#a-thief-of-a-token-that-may-only-put-datastoreputonly)).
`
