package access

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"

	"holdfast/chunkstore"
)

func TestImportTakesOverEverything(t *testing.T) {
	s, _ := open(t)
	filled(t, s)
	secret := token(t, s, "alice@pbs!two")
	k := login(t, s, "alice@pbs", "a secret")
	text := export(t, s)

	other, _ := open(t)
	must(t, other.CreateUser(user("gone@pbs"), ""), other.Import(strings.NewReader(text)))
	if got := export(t, other); got != text || other.Digest() != s.Digest() {
		t.Errorf("got\n%s\nwant\n%s", got, text)
	}
	accepted(t, other, withTicket(k), "alice@pbs")
	accepted(t, other, withToken("alice@pbs!two", secret), "alice@pbs!two")
	login(t, other, "alice@pbs", "a secret")
	must(t, other.RevokeToken("alice@pbs!two"), other.SetACL(ACL{Path: "/", Role: "Audit", ID: "alice@pbs"}))
}

func TestExportOfNothingHasLists(t *testing.T) {
	s, _ := open(t)
	text := export(t, s)
	if strings.Contains(text, "null") {
		t.Error(text)
	}
	must(t, s.Import(strings.NewReader(text)))
}

func TestExportReportsErrors(t *testing.T) {
	s, _ := open(t)
	r, w := io.Pipe()
	r.Close()
	if err := s.Export(w); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("got %v", err)
	}
}

// changed is an export with one value in it replaced.
func changed(t testing.TB, text string, change func(map[string]any)) string {
	t.Helper()
	var m map[string]any
	must(t, json.Unmarshal([]byte(text), &m))
	change(m)
	b, err := json.Marshal(m)
	must(t, err)
	return string(b)
}

func TestImportRefuses(t *testing.T) {
	s, _ := open(t)
	filled(t, s)
	text := export(t, s)
	entry := func(list string, key string, value any) string {
		return changed(t, text, func(m map[string]any) { m[list].([]any)[0].(map[string]any)[key] = value })
	}
	top := func(key string, value any) string {
		return changed(t, text, func(m map[string]any) { m[key] = value })
	}
	twice := func(list string) string {
		return changed(t, text, func(m map[string]any) { m[list] = append(m[list].([]any), m[list].([]any)[0]) })
	}
	for name, bad := range map[string]string{
		"empty":            "",
		"no object":        "[]",
		"other":            "{}",
		"cut":              text[:len(text)-10],
		"something behind": text + "{}",
		"format":           top("format", "x"),
		"version":          top("version", 2),
		"unknown member":   top("more", 1),
		"no secret":        top("ticket-secret", ""),
		"short secret":     top("ticket-secret", "AAAA"),
		"bad secret":       top("ticket-secret", "!"),
		"users null":       top("users", nil),
		"no users":         top("users", []any{}),
		"users no list":    top("users", map[string]any{}),
		"too many":         top("quotas", make([]struct{}, entriesMax+1)),
		"null entry":       top("quotas", []any{nil}),
		"unknown in entry": entry("users", "more", 1),
		"user name":        entry("users", "userid", "a b@pbs"),
		"user realm":       entry("users", "userid", "a@x1"),
		"user comment":     entry("users", "comment", "a\nb"),
		"user expire":      entry("users", "expire", -1),
		"password":         entry("users", "password", "a secret"),
		"password cost":    entry("users", "password", "$argon2id$v=19$m=4294967295,t=1,p=1$MDEyMzQ1Njc4OWFiY2RlZg$MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY"),
		"generation":       entry("users", "generation", "AAAA"),
		"no generation":    entry("users", "generation", ""),
		"token name":       entry("tokens", "tokenid", "alice@pbs"),
		"token no name":    entry("tokens", "tokenid", "alice@pbs!"),
		"token of nobody":  entry("tokens", "tokenid", "bob@pbs!nightly"),
		"token secret":     entry("tokens", "secret-sha256", "00"),
		"token upper case": entry("tokens", "secret-sha256", strings.Repeat("AB", 32)),
		"token expire":     entry("tokens", "expire", -1),
		"token comment":    entry("tokens", "comment", "\x00"),
		"ACL path":         entry("acls", "path", "/nowhere"),
		"ACL path form":    entry("acls", "path", "/datastore/"),
		"ACL role":         entry("acls", "role", "x"),
		"ACL of nobody":    entry("acls", "auth-id", "bob@pbs"),
		"datastore name":   entry("datastores", "name", "../x"),
		"datastore path":   entry("datastores", "path", "x"),
		"quota subject":    entry("quotas", "subject", "/"),
		"quota form":       entry("quotas", "subject", "/datastore/tank/"),
		"quota of nobody":  entry("quotas", "subject", "bob@pbs"),
		"quota negative":   entry("quotas", "bytes-max", -1),
		"user twice":       twice("users"),
		"token twice":      twice("tokens"),
		"ACL twice":        twice("acls"),
		"datastore twice":  twice("datastores"),
		"quota twice":      twice("quotas"),
		"root@pam disabled": strings.Replace(text, `"enable": true,
   "expire": 0`, `"enable": false, "expire": 0`, 1),
		"too long": text + strings.Repeat(" ", importMax),
	} {
		if err := s.Import(strings.NewReader(bad)); !errors.Is(err, chunkstore.ErrInvalid) || bad == text {
			t.Errorf("%s: got %v", name, err)
		}
	}
	if export(t, s) != text {
		t.Error("a refused import has changed something")
	}
	broken := io.MultiReader(strings.NewReader(text[:100]), errorReader{})
	if err := s.Import(broken); !errors.Is(err, io.ErrNoProgress) {
		t.Errorf("a reader that fails: %v", err)
	}
}

type errorReader struct{}

func (errorReader) Read([]byte) (int, error) { return 0, io.ErrNoProgress }

func FuzzImport(f *testing.F) {
	s, _ := open(f)
	f.Add([]byte(export(f, s)))
	filled(f, s)
	f.Add([]byte(export(f, s)))
	f.Add([]byte(`{"format":"holdfast-access","version":1,"ticket-secret":"","users":[{}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		c, err := readDocument(bytes.NewReader(b))
		if err != nil {
			if !errors.Is(err, chunkstore.ErrInvalid) {
				t.Fatalf("%v is not ErrInvalid", err)
			}
			return
		}
		text, err := json.Marshal(c.document())
		must(t, err)
		again, err := readDocument(bytes.NewReader(text))
		if err != nil || again.digest != c.digest || !bytes.Equal(again.secret, c.secret) {
			t.Fatalf("%q does not survive: %v", b, err)
		}
	})
}
