package interop

import (
	"strings"
	"testing"

	"holdfast/tests/harness"
)

// Who is let in, sections 1.6 and 1.7.
func TestCredentials(t *testing.T) {
	t.Parallel()
	alice, t1 := server.alice, server.alice1
	flip := func(s string, i int) string { // another character at i
		c := byte('A')
		if s[i] == 'A' {
			c = 'B'
		}
		return s[:i] + string(c) + s[i+1:]
	}
	older := strings.Replace(alice.ticket, alice.ticket[14:22], "60000000", 1)
	cookie := func(s string) []string { return []string{"Cookie: PBSAuthCookie=" + s} }
	for name, c := range map[string]struct {
		header []string
		want   int
	}{
		"nothing":                     {nil, 401},
		"token":                       {t1.header, 200},
		"token, wrong secret":         {[]string{"Authorization: PBSAPIToken=" + t1.id + ":" + flip(t1.secret, 3)}, 401},
		"token, secret of another":    {[]string{"Authorization: PBSAPIToken=" + t1.id + ":" + server.alice2.secret}, 401},
		"token, no secret":            {[]string{"Authorization: PBSAPIToken=" + t1.id}, 401},
		"token, empty secret":         {[]string{"Authorization: PBSAPIToken=" + t1.id + ":"}, 401},
		"token, unknown":              {[]string{"Authorization: PBSAPIToken=alice@pbs!none:" + t1.secret}, 401},
		"token, of nobody":            {[]string{"Authorization: PBSAPIToken=none@pbs!t1:" + t1.secret}, 401},
		"token, password of the user": {[]string{"Authorization: PBSAPIToken=alice@pbs:" + "x"}, 401},
		"token, other case":           {[]string{"Authorization: pbsapitoken=" + t1.id + ":" + t1.secret}, 401},
		"token, other separator":      {[]string{"Authorization: PBSAPIToken:" + t1.id + ":" + t1.secret}, 401},
		"token, other scheme":         {[]string{"Authorization: Bearer " + t1.secret}, 401},
		"basic":                       {[]string{"Authorization: Basic YWxpY2VAcGJzOng="}, 401},
		"ticket":                      {cookie(alice.ticket), 200},
		"ticket, changed signature":   {cookie(flip(alice.ticket, len(alice.ticket)-5)), 401},
		"ticket, changed user":        {cookie(strings.Replace(alice.ticket, "alice", "admin", 1)), 401},
		"ticket, changed time":        {cookie(older), 401},
		"ticket, no signature":        {cookie(alice.ticket[:strings.Index(alice.ticket, "::")+2]), 401},
		"ticket, only text":           {cookie("x"), 401},
		"ticket, empty":               {cookie(""), 401},
		"ticket, csrf token":          {cookie(alice.csrf), 401},
		"bad ticket, good token":      {append(cookie("x"), t1.header...), 401},
		"good ticket, bad token":      {append(cookie(alice.ticket), "Authorization: PBSAPIToken=x@pbs!y:z"), 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := server.ask(t, request{method: "GET", target: "/api2/json/version", header: c.header}.as(stranger()))
			if c.want == 401 {
				a.judged(t)
				a.refused(t, 401, "authentication failed")
				return
			}
			a.want(t, c.want)
		})
	}
}

func TestLogin(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		user, password string
		want           int
	}{
		"password":          {"alice@pbs", password, 200},
		"ticket":            {"alice@pbs", server.alice.ticket, 200},
		"wrong password":    {"alice@pbs", password + "x", 401},
		"empty password":    {"alice@pbs", "", 401},
		"ticket of another": {"bob@pbs", server.alice.ticket, 401},
		"csrf token":        {"alice@pbs", server.alice.csrf, 401},
		"unknown user":      {"nobody@pbs", password, 401},
		"unknown realm":     {"alice@nowhere", password, 401},
		"no realm":          {"alice", password, 400},
		"token":             {"alice@pbs!t1", server.alice1.secret, 400},
		"colon in the name": {"ali:ce@pbs", password, 400},
		"slash in the name": {"../alice@pbs", password, 400},
		"long password":     {"alice@pbs", strings.Repeat("x", 5000), 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			a := server.rest(stranger()).json(t, "POST", "/access/ticket", map[string]string{"username": c.user, "password": c.password})
			a.judged(t)
			switch {
			case c.want == 0: // too long for a schema or merely wrong
				a.want(t, 400, 401)
			case c.want != 200:
				a.refused(t, c.want)
			default:
				var got credentials
				if a.into(t, &got); got.Username != c.user || got.Ticket == "" || got.CSRF == "" || strings.ContainsAny(got.Ticket, "; ") {
					t.Errorf("the answer is not complete: %s", a)
				}
			}
		})
	}
	rest := server.rest(nobody)
	rest.json(t, "POST", "/access/ticket", map[string]string{"username": "alice@pbs"}).refused(t, 400, "password")
	rest.form(t, "POST", "/access/ticket", "username", "alice@pbs", "password", password).want(t, 200)
	rest.query(t, "POST", "/access/ticket", "username", "alice@pbs", "password", password).want(t, 200)
}

// A renewed ticket is as good as the first, also with its own CSRF token.
func TestRenewal(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.bob, s)
	as := server.bob
	for range 3 {
		renewed, err := server.login("bob@pbs", as.ticket)
		if err != nil {
			t.Fatal(err)
		}
		as = renewed
	}
	server.rest(as).query(t, "PUT", s.at("/notes"), s.params("notes", "renewed")...).null(t)
	server.rest(server.bob).query(t, "PUT", s.at("/notes"), s.params("notes", "first")...).null(t)
}

// Every method but GET needs the CSRF token of a user, and none of a token.
func TestCSRF(t *testing.T) {
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	cookie := identity{id: "alice without csrf", header: []string{"Cookie: PBSAuthCookie=" + server.alice.ticket}}
	wrong := identity{id: "alice with the csrf of bob", header: append(cookie.header, "CSRFPreventionToken: "+server.bob.csrf)}
	for _, as := range []identity{cookie, wrong} {
		for _, c := range [][2]string{{"PUT", "/notes"}, {"POST", "/prune"}, {"DELETE", "/snapshots"}, {"DELETE", "/groups"}} {
			server.rest(as).query(t, c[0], s.at(c[1]), s.params()...).refused(t, 401)
		}
	}
	server.rest(cookie).get(t, s.at("/snapshots"), s.group()...).envelope(t)
	b, a := server.tryBackup(t, cookie, s.later(1)) // a GET
	a.want(t, 101)
	b.hangUp()
	if _, ok := server.list(t, s)[s.time]; !ok {
		t.Error("a request without token had an effect")
	}
}

// Who may do what, section 7.4: each row is an identity and what it gets.
func TestPrivileges(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	s := newGroup("host")
	server.snapshot(t, server.alice, s)
	w := server
	all := []identity{w.admin, w.alice, w.alice1, w.bob, w.carol, w.dora, w.erin}
	for name, c := range map[string]struct {
		method, path string
		kv           []string
		want         []int // in the order above
	}{
		"status":    {"GET", "/status", nil, []int{200, 200, 200, 200, 200, 403, 200}},
		"notes":     {"GET", "/notes", s.params(), []int{200, 200, 400, 400, 200, 403, 403}},
		"protected": {"GET", "/protected", s.params(), []int{200, 200, 400, 400, 200, 403, 403}},
		"files":     {"GET", "/files", s.params(), []int{200, 200, 400, 400, 200, 403, 403}},
		"download":  {"GET", "/download", s.params("file-name", manifestName), []int{200, 200, 400, 400, 200, 403, 403}},
		"set notes": {"PUT", "/notes", s.params("notes", "x"), []int{200, 200, 400, 400, 403, 403, 403}},
		"dry prune": {"POST", "/prune", s.group("dry-run", "1", "keep-last", "1"), []int{200, 200, 403, 403, 403, 403, 403}},
		"gc":        {"POST", "/gc", nil, []int{200, 403, 403, 403, 403, 403, 403}},
		"namespace": {"POST", "/namespace", []string{"name", "p" + s.id, "parent", ""}, []int{200, 403, 403, 403, 403, 403, 403}},
	} {
		for i, as := range all {
			a := w.rest(as).query(t, c.method, s.at(c.path), c.kv...)
			if a.status != c.want[i] {
				t.Errorf("%s as %s: want %d: %s", name, as.id, c.want[i], a)
			}
			if a.status >= 400 {
				a.refused(t, a.status)
			}
		}
	}
	for i, as := range all { // the lists are filtered
		a := w.rest(as).get(t, s.at("/snapshots"), s.group()...)
		want := []string{"one", "one", "none", "none", "one", "403", "403"}[i]
		var found []listed
		if a.status == 200 {
			a.into(t, &found)
		}
		if got := map[bool]string{true: "403", false: []string{"none", "one"}[min(1, len(found))]}[a.status == 403]; got != want {
			t.Errorf("snapshots as %s: want %s: %s", as.id, want, a)
		}
	}
	var stores []map[string]any
	for as, want := range map[*identity]string{&w.alice: "tank", &w.erin: "tank", &w.dora: "", &w.admin: "attic tank"} {
		w.rest(*as).get(t, "/admin/datastore").into(t, &stores)
		var names []string
		for _, s := range stores {
			names = append(names, s["store"].(string))
			if _, ok := s["comment"]; !ok {
				t.Errorf("no comment: %v", s)
			}
		}
		if len(names) == 2 && names[0] == "tank" {
			names[0], names[1] = names[1], names[0]
		}
		if got := strings.Join(names, " "); got != want {
			t.Errorf("%s sees %q", as.id, got)
		}
	}
	w.rest(w.alice).get(t, "/admin/datastore/attic/status").refused(t, 403)
}
