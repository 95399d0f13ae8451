package server

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"reflect"
	"strings"
	"testing"

	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
)

func TestVersionAndDomains(t *testing.T) {
	l := newLab(t, Options{})
	v := l.ok(nobody, "GET", "/version", "").(map[string]any)
	if v["holdfast"] != "1.2.3" || v["release"] == "" || strings.Count(v["version"].(string), ".") != 1 {
		t.Errorf("version: %v", v)
	}
	a := l.call("", "GET", "/access/domains", "")
	if fmt.Sprint(column(a.body["data"], "realm")) != "[pam pbs]" || a.body["digest"] == nil {
		t.Errorf("domains: %s", a.text)
	}
}

func TestTicket(t *testing.T) {
	l := newLab(t, Options{})
	if err := l.access.SetPassword("owner@pbs", "correct horse"); err != nil {
		t.Fatal(err)
	}
	a := l.call("", "POST", "/access/ticket", "username=owner@pbs&password=correct+horse")
	data, _ := a.body["data"].(map[string]any)
	ticket, _ := data["ticket"].(string)
	csrf, _ := data["CSRFPreventionToken"].(string)
	if a.code != 200 || data["username"] != "owner@pbs" || ticket == "" || csrf == "" {
		t.Fatalf("login: %s", a.text)
	}
	with := func(verb, path, cookie, csrf string) reply {
		h := http.Header{"Cookie": {cookie + "; path=/; secure; SameSite=Strict;"}}
		if csrf != "" {
			h.Set("CSRFPreventionToken", csrf)
		}
		return l.request("", verb, "/api2/json"+path, strings.NewReader(""), h)
	}
	l.want(with("GET", "/version", "PBSAuthCookie="+ticket, ""), 200, "version")
	l.want(with("GET", "/version", "PBSAuthCookie="+url.PathEscape(ticket), ""), 200, "version")
	l.want(with("POST", "/access/users/owner@pbs/token/new1", "PBSAuthCookie="+ticket, ""), 401, "authentication failed")
	l.want(with("POST", "/access/users/owner@pbs/token/new1", "PBSAuthCookie="+ticket, csrf), 200, `"value":`)
	l.want(with("GET", "/version", "PBSAuthCookie=x"+ticket, ""), 401, "authentication failed")
	// A ticket renews itself, and the browser's form has no ticket in the body.
	l.want(l.call("", "POST", "/access/ticket", "username=owner@pbs&password="+url.QueryEscape(ticket)), 200, `"ticket":"PBS:owner@pbs:`)
	a = l.call("", "POST", "/access/ticket", "username=owner@pbs&http-only=1&password="+url.QueryEscape(ticket))
	cookie := a.header.Get("Set-Cookie")
	if strings.Contains(a.text, `"ticket"`) || !strings.HasPrefix(cookie, "__Host-PBSAuthCookie=PBS:owner@pbs:") {
		t.Errorf("http-only: %s, cookie %q", a.text, cookie)
	}
	l.want(l.call("", "DELETE", "/access/ticket", ""), 200, "null")
	for params, code := range map[string]int{
		"username=owner@pbs&password=wrong": 401, "username=no@pbs&password=wrong": 401, "username=owner&password=x": 400,
		"username=owner@pbs!tok&password=x": 400, "username=owner@pbs": 400, "username=owner@pbs&password=": 401,
		"username=owner@pbs&password=" + strings.Repeat("x", 1024+1): 400,
	} {
		a := l.call("", "POST", "/access/ticket", params)
		if a.code != code || strings.Contains(a.text, "wrong") {
			t.Errorf("%.80s: %d %s", params, a.code, a.text)
		}
	}
}

func TestTooManyFailures(t *testing.T) {
	l := newLab(t, Options{})
	for range 30 {
		a := l.call("", "POST", "/access/ticket", "username=no@pbs&password=wrong")
		if a.code != 401 {
			t.Fatalf("%d %s", a.code, a.text)
		}
		if a.header.Get("Retry-After") != "" {
			return
		}
	}
	t.Error("nobody is told to wait")
}

func TestUsersAndTokens(t *testing.T) {
	l := newLab(t, Options{})
	l.ok(admin, "POST", "/access/users", "userid=new@pbs&comment=x&expire=5&email=a@b")
	l.want(l.call(admin, "POST", "/access/users", "userid=new@pbs"), 400, "exist")
	l.want(l.call(audit, "POST", "/access/users", "userid=new2@pbs"), 403, "permission check failed")
	u := l.ok(audit, "GET", "/access/users/new@pbs", "").(map[string]any)
	if u["comment"] != "x" || u["expire"] != 5.0 || u["enable"] != true || u["email"] != "a@b" {
		t.Errorf("user: %v", u)
	}
	l.ok(admin, "PUT", "/access/users/new@pbs", "delete=comment&delete=expire&enable=0")
	u = l.ok(audit, "GET", "/access/users/new@pbs", "").(map[string]any)
	if u["comment"] != nil || u["expire"] != 0.0 || u["enable"] != false {
		t.Errorf("changed user: %v", u)
	}
	l.want(l.call(admin, "PUT", "/access/users/new@pbs", "delete=userid"), 400, "'delete': want one of")
	l.want(l.call(admin, "PUT", "/access/users/no@pbs", "comment=x"), 404, "no@pbs")
	l.want(l.call(admin, "PUT", "/access/users/new@pbs", "comment=x&digest="+strings.Repeat("0", 64)), 400, "detected modified configuration")
	l.ok(admin, "PUT", "/access/users/new@pbs", "enable=1&digest="+l.access.Digest())

	made := l.ok(admin, "POST", "/access/users/new@pbs/token/one", "comment=c").(map[string]any)
	if made["tokenid"] != "new@pbs!one" || len(made["value"].(string)) != 36 {
		t.Errorf("token: %v", made)
	}
	l.secrets["new@pbs!one"] = made["value"].(string)
	l.ok("new@pbs!one", "GET", "/version", "")
	for _, other := range []string{"POST", "PUT", "DELETE"} {
		l.want(l.call("new@pbs!one", other, "/access/users/new@pbs/token/two", ""), 403, "")
	}
	again := l.ok(admin, "PUT", "/access/users/new@pbs/token/one", "regenerate=1").(map[string]any)
	l.want(l.call("new@pbs!one", "GET", "/version", ""), 401, "")
	l.secrets["new@pbs!one"] = again["secret"].(string)
	l.ok("new@pbs!one", "GET", "/version", "")
	l.ok(admin, "PUT", "/access/users/new@pbs/token/one", "enable=0")
	l.want(l.call("new@pbs!one", "GET", "/version", ""), 401, "")
	list := l.ok(audit, "GET", "/access/users/new@pbs/token", "")
	if !reflect.DeepEqual(column(list, "token-name"), []any{"one"}) {
		t.Errorf("tokens: %v", list)
	}
	all := l.call(audit, "GET", "/access/users", "include_tokens=1")
	if !strings.Contains(all.text, `"tokenid":"new@pbs!one"`) || strings.Contains(all.text, again["secret"].(string)) {
		t.Errorf("users: %s", all.text)
	}
	l.ok(admin, "DELETE", "/access/users/new@pbs/token/one", "")
	l.want(l.call(admin, "GET", "/access/users/new@pbs/token/one", ""), 404, "")
	l.ok(admin, "DELETE", "/access/users/new@pbs", "")
	l.want(l.call(admin, "GET", "/access/users/new@pbs", ""), 404, "new@pbs")
	if list := l.ok(nobody, "GET", "/access/users", ""); len(list.([]any)) != 0 {
		t.Errorf("a token without rights sees %v", list)
	}
}

func TestRootIsOutOfReach(t *testing.T) {
	l := newLab(t, Options{})
	for _, c := range []struct{ verb, path, params string }{
		{"PUT", "/access/password", "userid=root@pam&password=hacked1"}, {"PUT", "/access/users/root@pam", "comment=x"},
		{"POST", "/access/users/root@pam/token/mine", ""}, {"DELETE", "/access/users/root@pam", ""},
	} {
		l.want(l.call(admin, c.verb, c.path, c.params), 403, "permission check failed")
	}
	for _, path := range []string{"/access/export", "/access/import"} {
		l.want(l.call(admin, "POST", path, ""), 404, "not found")
	}
}

func TestLocalIdentity(t *testing.T) {
	l := newLab(t, Options{})
	ask := func(id wire.AuthID, path string, body string) *memoryWriter {
		r, err := http.NewRequestWithContext(WithIdentity(t.Context(), id), "POST", "/api2/json"+path, strings.NewReader(body))
		if err != nil {
			t.Fatal(err)
		}
		w := newMemoryWriter()
		l.server.Handler().ServeHTTP(w, r)
		return w
	}
	out := ask(wire.RootUser, "/access/export", "")
	if out.code != 200 || !bytes.Contains(out.body.Bytes(), []byte("owner@pbs")) || bytes.Contains(out.body.Bytes(), []byte(l.secrets[owner])) {
		t.Errorf("export: %d %s", out.code, out.body.String())
	}
	if w := ask("owner@pbs", "/access/export", ""); w.code != 403 {
		t.Errorf("export by another: %d", w.code)
	}
	if w := ask(wire.RootUser, "/access/import", out.body.String()); w.code != 200 {
		t.Errorf("import: %d %s", w.code, w.body.String())
	}
	if w := ask(wire.RootUser, "/access/import", "{"); w.code != 400 {
		t.Errorf("import of garbage: %d", w.code)
	}
}

func TestPasswords(t *testing.T) {
	l := newLab(t, Options{})
	l.ok(admin, "PUT", "/access/password", "userid=owner@pbs&password=longenough")
	l.want(l.call("", "POST", "/access/ticket", "username=owner@pbs&password=longenough"), 200, "ticket")
	l.want(l.call(admin, "PUT", "/access/password", "userid=owner@pbs&password=four"), 400, "'password': want 5 to 64")
	l.want(l.call(other, "PUT", "/access/password", "userid=owner@pbs&password=longenough"), 403, "")
	l.want(l.call(owner, "PUT", "/access/password", "userid=owner@pbs&password=longenough"), 403, "") // a token is not its user
	l.want(l.call(admin, "PUT", "/access/password", "userid=no@pbs&password=longenough"), 404, "")
}

func TestACLsAndRoles(t *testing.T) {
	l := newLab(t, Options{})
	l.ok(admin, "PUT", "/access/acl", "path=/datastore/x/a&role=DatastoreReader&auth-id=nobody@pbs&propagate=0")
	list := l.ok(audit, "GET", "/access/acl", "path=/datastore/x").([]any)
	if len(list) != 1 || list[0].(map[string]any)["ugid"] != "nobody@pbs" || list[0].(map[string]any)["propagate"] != false {
		t.Errorf("below a path: %v", list)
	}
	if list := l.ok(audit, "GET", "/access/acl", "path=/datastore/x&exact=1").([]any); len(list) != 0 {
		t.Errorf("exactly a path: %v", list)
	}
	if list := l.ok(nobody, "GET", "/access/acl", "").([]any); len(list) != 0 {
		t.Errorf("seen by a token without rights: %v", list)
	}
	l.ok(admin, "PUT", "/access/acl", "path=/datastore/x/a&role=DatastoreReader&auth-id=nobody@pbs&delete=1")
	l.want(l.call(admin, "PUT", "/access/acl", "path=/datastore/x/a&role=DatastoreReader&auth-id=nobody@pbs&delete=1"), 404, "")
	l.want(l.call(audit, "PUT", "/access/acl", "path=/&role=Admin&auth-id=audit@pbs"), 403, "")
	l.want(l.call(admin, "PUT", "/access/acl", "path=/&role=King&auth-id=audit@pbs"), 400, "'role'")
	l.want(l.call(admin, "PUT", "/access/acl", "path=/no/such&role=Admin&auth-id=audit@pbs"), 400, "")
	roles := l.call(nobody, "GET", "/access/roles", "")
	if !strings.Contains(roles.text, `"roleid":"DatastoreBackup","privs":["Datastore.Backup"]`) || !strings.Contains(roles.text, `"privs":[]`) {
		t.Errorf("roles: %s", roles.text)
	}
	p := l.ok(owner, "GET", "/access/permissions", "path=/datastore/tank").(map[string]any)["/datastore/tank"].(map[string]any)
	if p["Datastore.Backup"] != true || p["Datastore.Modify"] != nil {
		t.Errorf("permissions: %v", p)
	}
	l.ok(audit, "GET", "/access/permissions", "auth-id=owner@pbs")
	l.want(l.call(owner, "GET", "/access/permissions", "auth-id=audit@pbs"), 403, "")
	l.want(l.call(audit, "GET", "/access/permissions", "auth-id=no@pbs"), 404, "")
}

func TestQuotaMethods(t *testing.T) {
	l := newLab(t, Options{})
	l.ok(admin, "PUT", "/access/quota", "subject=/datastore/tank&bytes-max=100")
	l.ok(admin, "PUT", "/access/quota", "subject="+owner+"&snapshots-per-day=3")
	if q, err := l.access.Quota(owner); err != nil || q != (access.Quota{Subject: owner, SnapshotsPerDay: 3}) {
		t.Errorf("%+v %v", q, err)
	}
	for who, n := range map[string]int{audit: 2, owner: 1, nobody: 0} {
		if list := l.ok(who, "GET", "/access/quota", "").([]any); len(list) != n {
			t.Errorf("%s sees %v", who, list)
		}
	}
	l.want(l.call(owner, "DELETE", "/access/quota", "subject="+owner), 403, "")
	l.ok(admin, "DELETE", "/access/quota", "subject="+owner)
	l.want(l.call(admin, "DELETE", "/access/quota", "subject="+owner), 404, "")
	l.want(l.call(owner, "PUT", "/access/quota", "subject="+owner), 403, "")
}

func TestQuotaKeepsTheBoundThatIsNotNamed(t *testing.T) {
	l := newLab(t, Options{})
	const path = "/access/quota"
	subject := url.QueryEscape(owner)
	for _, step := range []struct {
		params string
		want   access.Quota
	}{
		{"bytes-max=100", access.Quota{BytesMax: 100}},
		{"snapshots-per-day=3", access.Quota{BytesMax: 100, SnapshotsPerDay: 3}},
		{"bytes-max=200", access.Quota{BytesMax: 200, SnapshotsPerDay: 3}},
		{"bytes-max=0", access.Quota{SnapshotsPerDay: 3}},
		{"bytes-max=7&snapshots-per-day=0", access.Quota{BytesMax: 7}},
	} {
		step.want.Subject = owner
		told := l.ok(admin, "PUT", path, "subject="+subject+"&"+step.params).(map[string]any)
		if q, err := l.access.Quota(owner); err != nil || q != step.want {
			t.Errorf("after %s: %+v %v", step.params, q, err)
		}
		if told["subject"] != owner || told["bytes-max"] != nil && told["bytes-max"] != float64(step.want.BytesMax) {
			t.Errorf("%s is answered with %v", step.params, told)
		}
	}
	for params, why := range map[string]string{
		"": "want 'bytes-max' or", "snapshots-per-day=4294967296": "want 0 to", "bytes-max=-1": "want 0 to",
		"bytes-max=18446744073709551615": "invalid integer",
	} {
		l.want(l.call(admin, "PUT", path, "subject="+subject+"&"+params), 400, why)
	}
	if q, err := l.access.Quota(owner); err != nil || q.BytesMax != 7 {
		t.Errorf("a refused change leaves %+v %v", q, err)
	}
}

// Who leaves while the credentials wait for their turn is not told that the server
// has failed.
func TestWhoLeavesBeforeTheLogin(t *testing.T) {
	l := newLab(t, Options{})
	gone, leave := context.WithCancel(t.Context())
	leave()
	r := httptest.NewRequestWithContext(gone, http.MethodPost, "/api2/json/access/ticket", nil)
	if e := rest.AsStatus(l.server.loginRefused(r, fmt.Errorf("wait for a turn: %w", context.Canceled))); e.Code != http.StatusRequestTimeout {
		t.Errorf("%d %s", e.Code, e.Text)
	}
	r = httptest.NewRequestWithContext(t.Context(), http.MethodPost, "/api2/json/access/ticket", nil)
	if e := rest.AsStatus(l.server.loginRefused(r, context.Canceled)); e.Code != http.StatusServiceUnavailable {
		t.Errorf("of a server that ends: %d %s", e.Code, e.Text)
	}
}
