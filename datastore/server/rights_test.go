package server

import (
	"bytes"
	"flag"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
)

var writeRights = flag.Bool("write-rights", false, "write docs/rights.md instead of comparing with it")

const rightsPage = "../../docs/rights.md"

// rightsCallers are the columns of docs/rights.md: who asks, and of whose group.
var rightsCallers = []struct{ title, who, id string }{
	{"stranger", "", "100"}, {"no rights", nobody, "100"},
	{"PutOnly, own", put, "300"}, {"PutOnly, foreign", put, "100"},
	{"Audit", audit, "100"}, {"PowerUser, foreign", other, "100"}, {"PowerUser, own", owner, "100"},
	{"Admin", admin, "200"},
}

// rightsValues are what the walk gives for parameters that are not optional.
// A new parameter needs a value here before its route has a row.
var rightsValues = map[string]string{
	"store": "tank", "name": "tank", "node": "localhost", "backup-type": "vm", "backup-time": "1000",
	"file-name": "index.json.blob", "new-owner": other, "notes": "x", "protected": "1", "ns": "a/b",
	"userid": "audit@pbs", "token-name": "tok", "username": "audit@pbs", "password": "wrong password",
	"path": "/datastore/tank", "role": "Audit", "auth-id": "nobody@pbs", "subject": "put@pbs", "keep-last": "9",
}

// rightsTarget is the path of a route and what it is asked with.
func rightsTarget(t *testing.T, m method, id, upid string) (path string, v url.Values) {
	t.Helper()
	path, v = m.path, url.Values{}
	for _, p := range m.params {
		value, known := rightsValues[p.name]
		switch {
		case p.name == "backup-id":
			value = id
		case p.name == "upid":
			value = upid
		case m.path == "/config/datastore" && p.name == "path":
			value = "/nowhere/at/all"
		case m.verb == http.MethodPost && p.name == "name", m.verb == http.MethodPost && m.path == "/access/users" && p.name == "userid":
			value = map[string]string{"userid": "new@pbs"}[p.name]
			if value == "" {
				value = "new"
			}
		case !known && !p.optional:
			t.Fatalf("%s %s: no value for the parameter %q: give it one in rightsValues", m.verb, m.path, p.name)
		}
		if hole := "{" + p.name + "}"; strings.Contains(path, hole) {
			path = strings.ReplaceAll(path, hole, url.PathEscape(value))
		} else if !p.optional || p.name == "backup-id" || p.name == "backup-type" {
			v.Set(p.name, value)
		}
	}
	return path, v
}

// verdict asks and says in a word what came of it.
func (l *lab) verdict(who string, m method, path string, v url.Values) string {
	l.t.Helper()
	target, body := l.base+"/api2/json"+path, ""
	if (m.verb == http.MethodPost || m.verb == http.MethodPut) && !m.raw {
		body = v.Encode()
	} else {
		target += "?" + v.Encode()
	}
	r, err := http.NewRequest(m.verb, target, strings.NewReader(body))
	if err != nil {
		l.t.Fatal(err)
	}
	if body != "" {
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	}
	if who != "" {
		r.Header.Set("Authorization", "PBSAPIToken="+who+":"+l.secrets[who])
	}
	switch m.path {
	case "/backup":
		v.Set("backup-time", "5000") // after those that are there
		r.URL.RawQuery = v.Encode()
		r.Header.Set("Connection", "upgrade")
		r.Header.Set("Upgrade", "proxmox-backup-protocol-v1")
	case "/reader":
		r.Header.Set("Connection", "upgrade")
		r.Header.Set("Upgrade", "proxmox-backup-reader-protocol-v1")
	}
	a, err := l.client.Do(r)
	if err != nil {
		l.t.Fatal(err)
	}
	defer a.Body.Close()
	if a.StatusCode == http.StatusSwitchingProtocols {
		return "yes"
	}
	text := new(bytes.Buffer)
	if _, err := text.ReadFrom(a.Body); err != nil {
		l.t.Fatal(err)
	}
	refused := strings.Contains(text.String(), "permission check failed") || strings.Contains(text.String(), "owner check failed") ||
		strings.Contains(text.String(), "no permissions on")
	switch {
	case a.StatusCode == http.StatusUnauthorized:
		return "log in"
	case a.StatusCode == http.StatusForbidden || refused:
		return "no"
	case a.StatusCode == http.StatusNotFound:
		return "not there"
	case a.StatusCode == http.StatusOK && strings.Contains(text.String(), `"data":[]`):
		return "empty"
	case a.StatusCode == http.StatusOK:
		return "yes"
	}
	l.t.Logf("%s %s of %s as %q: %d %.120q", m.verb, m.path, v.Get("backup-id"), who, a.StatusCode, text)
	return "past the check"
}

// Every route that the server has, asked by every kind of caller of his own and of
// a foreign group, answers as docs/rights.md says; one without a row there fails.
func TestRightsAreThoseOfTheTable(t *testing.T) {
	var page strings.Builder
	page.WriteString(rightsHead)
	page.WriteString("\n| request |")
	for _, c := range rightsCallers {
		page.WriteString(" " + c.title + " |")
	}
	page.WriteString("\n|---|" + strings.Repeat("---|", len(rightsCallers)) + "\n")
	for _, table := range tables() {
		for _, m := range table {
			l := newLab(t, Options{})
			l.filled()
			upid := l.ended("garbage_collection", "tank", admin, 1, nil)
			fmt.Fprintf(&page, "| `%s %s` |", m.verb, m.path)
			for _, c := range rightsCallers {
				path, v := rightsTarget(t, m, c.id, upid)
				fmt.Fprintf(&page, " %s |", l.verdict(c.who, m, path, v))
			}
			page.WriteString("\n")
		}
	}
	if *writeRights {
		if err := os.WriteFile(rightsPage, []byte(page.String()), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	want, err := os.ReadFile(rightsPage)
	if err != nil {
		t.Fatal(err)
	}
	unsaid(t, string(want), page.String(), "docs/rights.md does not say this")
	unsaid(t, page.String(), string(want), "docs/rights.md says what is not so")
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

Every request of the API, and what each kind of caller is answered. "Own" and "foreign" say whose group is asked for, where one is;
Audit has its role everywhere, the others on the datastore, Admin on all. A request without a row fails
` + "`TestRightsAreThoseOfTheTable`" + `, which asks all of them; after a change that is meant, ` + "`go test ./datastore/server -run TestRightsAreThoseOfTheTable -write-rights`" + `
writes this page, and the difference is what is to be judged.

- **yes**: done. **empty**: a list that shows only what the caller may see, which is nothing.
- **log in**: refused for want of credentials. **no**: refused for want of rights or because the group is another's.
- **not there**: as if it did not exist. **past the check**: refused, but for what was asked and not for who asks.
`
