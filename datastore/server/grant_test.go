package server

import (
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/datastore/access"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// ticket logs alice in with a password, and lets "ticket" open sessions with what
// that gives.
func (l *sessionLab) ticket() access.Ticket {
	l.t.Helper()
	l.must(l.access.SetPassword("alice@pbs", "correct horse"))
	k, err := l.access.Login(l.t.Context(), "alice@pbs", "correct horse", netip.Addr{})
	l.must(err)
	l.tokens["ticket"] = "none\r\nCookie: PBSAuthCookie=" + k.Ticket
	return k
}

// grantAgain gives alice's token the role that it has had, after it was revoked.
func (l *sessionLab) grantAgain() error {
	return l.access.SetACL(access.ACL{Path: "/datastore/tank", Role: "DatastoreBackup", ID: "alice@pbs!key", Propagate: true})
}

// A session is bound to the credential that it was opened with, and not to its name:
// when that is replaced the session reads nothing more and makes no snapshot, though
// somebody of the name may.
func TestSessionsEndWithTheirCredential(t *testing.T) {
	const token = wire.AuthID("alice@pbs!key")
	user := func(change func(*access.User)) func(*sessionLab, access.Ticket) error {
		return func(l *sessionLab, _ access.Ticket) error {
			return l.access.ChangeUser("alice@pbs", func(u *access.User) error { change(u); return nil })
		}
	}
	for _, tc := range []struct {
		name, who string
		take      func(*sessionLab, access.Ticket) error
	}{
		{"secret made anew", "alice", func(l *sessionLab, _ access.Ticket) error {
			_, err := l.access.RegenerateToken(token)
			return err
		}},
		{"token revoked and made again under its name", "alice", func(l *sessionLab, _ access.Ticket) error {
			err := l.access.RevokeToken(token)
			_, again := l.access.CreateToken(access.Token{ID: token, Enabled: true})
			return errors.Join(err, again, l.grantAgain())
		}},
		{"token disabled", "alice", func(l *sessionLab, _ access.Ticket) error { return l.access.SetToken(access.Token{ID: token}) }},
		{"logged out", "ticket", func(l *sessionLab, k access.Ticket) error {
			return l.access.Logout(access.Credentials{Cookies: []string{"PBSAuthCookie=" + k.Ticket}})
		}},
		{"password changed", "ticket", func(l *sessionLab, _ access.Ticket) error { return l.access.SetPassword("alice@pbs", "another one") }},
		{"user disabled and enabled again", "ticket", func(l *sessionLab, k access.Ticket) error {
			return errors.Join(user(func(u *access.User) { u.Enabled = false })(l, k), user(func(u *access.User) { u.Enabled = true })(l, k))
		}},
		{"user expired", "ticket", user(func(u *access.User) { u.Expire = 1 })},
	} {
		t.Run(tc.name, func(t *testing.T) {
			l := newSessionLab(t)
			k := l.ticket()
			list := l.simple(tc.who, "vm/100", 1000)
			r := l.begin(readerOf(tc.who, "vm/100", 1000))
			r.raw(get("/download", "file-name", "disk.img.didx"))
			b := l.begin(backupOf(tc.who, "vm/101", 5000))
			b.data(blobUpload(wire.ManifestName, l.manifestOf("vm/101", 5000)))
			l.must(tc.take(l, k))
			for what, q := range map[string]request{"a chunk": get("/chunk", "digest", list[0].bit.id), "a file": get("/download", "file-name", wire.ManifestName)} {
				r.ended(what, q)
			}
			b.ended("finish", post("/finish"))
			if got := l.times("vm/101"); len(got) != 0 {
				t.Errorf("snapshots: %v", got)
			}
		})
	}
}

// ended wants a session that answers a request with nothing but that it may not, or
// not at all.
func (k *talk) ended(what string, q request) {
	k.lab.t.Helper()
	code, text, err := k.send(k.lab.t.Context(), q)
	if err == nil && code != http.StatusForbidden && code != http.StatusUnauthorized {
		k.lab.t.Errorf("%s: %d %.80q, want that it is not allowed", what, code, text)
	}
}

// An owner whose group is given away does not get it back by handing it over between
// itself and its tokens all the time: what he may is asked inside the lock of the change.
func TestAGroupThatWasGivenAwayStaysSo(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	handler := func(to wire.AuthID) {
		r, err := http.NewRequestWithContext(WithIdentity(t.Context(), "alice@pbs"), "POST", "/api2/json/admin/datastore/tank/change-owner",
			strings.NewReader(vals("backup-type", "vm", "backup-id", "100", "new-owner", to).Encode()))
		if err != nil {
			t.Error(err)
		}
		r.RequestURI = r.URL.RequestURI()
		r.Header.Set("Content-Type", "application/x-www-form-urlencoded")
		l.server.Handler().ServeHTTP(newMemoryWriter(), r)
	}
	var stop atomic.Bool
	var all sync.WaitGroup
	for i := range 8 {
		all.Go(func() {
			for n := i; !stop.Load(); n++ {
				handler([]wire.AuthID{"alice@pbs", "alice@pbs!key"}[n%2])
			}
		})
	}
	defer all.Wait()
	defer stop.Store(true)
	g, st := wire.Group{Type: "vm", ID: "100"}, l.store()
	for range 10 {
		l.must(st.SetOwner(t.Context(), g, "bob@pbs!key"))
		for range 4 { // what was under way has ended
			handler("alice@pbs")
		}
		if owner, err := st.Owner(g); err != nil || owner != "bob@pbs!key" {
			t.Fatalf("after the group was given to bob it is %s's, %v", owner, err)
		}
		l.must(st.SetOwner(t.Context(), g, "alice@pbs"))
	}
}

// A task asks for the rights of who has begun it before each group: nothing is removed or
// read with a credential that is gone, or in a group that is somebody else's by now.
func TestTasksAskForTheirRightsBeforeEachGroup(t *testing.T) {
	g := wire.Group{Type: "vm", ID: "100"}
	for name, tc := range map[string]struct {
		take  func(*sessionLab) error
		words string
	}{
		"nothing": {func(*sessionLab) error { return nil }, ""},
		"the secret is made anew": {func(l *sessionLab) error {
			_, err := l.access.RegenerateToken("alice@pbs!key")
			return err
		}, "not good any more"},
		"the role is taken":       {func(l *sessionLab) error { l.role("alice", "DatastorePowerUser", "DatastoreAudit"); return nil }, "missing"},
		"the group is given away": {func(l *sessionLab) error { return l.store().SetOwner(l.t.Context(), g, "bob@pbs!key") }, "owner check failed"},
	} {
		t.Run(name, func(t *testing.T) {
			l := newSessionLab(t)
			l.role("alice", "DatastoreBackup", "DatastorePowerUser")
			l.simple("alice", "vm/100", 1000)
			l.simple("alice", "vm/100", 2000)
			st, err := l.server.use("tank")
			l.must(err)
			defer st.release()
			c := &call{server: l.server, Values: rest.Values{"store": "tank", "keep-last": int64(1)}}
			c.pass, err = l.access.Authenticate(access.Credentials{Method: "POST", Authorization: l.tokens["alice"]})
			l.must(err)
			c.auth = c.pass.ID
			c.may = mayOf(api.PruneGroup)
			verifies := &call{server: l.server, Values: c.Values, pass: c.pass, may: mayOf(api.Verify)}
			verify := &verification{server: l.server, st: st, days: -1,
				may: func(g wire.Group) error { return verifies.grantOn(g.NS).ask(st, g) }}
			prune := c.pruning(st)
			l.must(tc.take(l))
			job, err := l.tasks.Begin(t.Context(), task.Spec{Type: "verify", ID: "tank", Auth: c.auth})
			l.must(err)
			verifyErr := verify.run(job, []wire.Group{g})
			_, pruneErr := prune.group(job, g)
			job.End(nil)
			list, err := l.store().Snapshots(t.Context(), g)
			l.must(err)
			if tc.words == "" {
				if verifyErr != nil || pruneErr != nil || len(list) != 1 || list[0].Verify == nil {
					t.Errorf("allowed: %v, %v, %+v", verifyErr, pruneErr, list)
				}
				return
			}
			if pruneErr == nil || !strings.Contains(pruneErr.Error(), tc.words) || over(pruneErr) != over(verifyErr) {
				t.Errorf("prune: %v, verify: %v; want a refusal with %q", pruneErr, verifyErr, tc.words)
			}
			if len(list) != 2 || list[0].Verify != nil || list[1].Verify != nil {
				t.Errorf("something was done: %+v", list)
			}
		})
	}
}

// Who has nothing but a ticket, and what goes with it, makes nothing of it that outlives
// it: no password, which needs the old one, and no token or user later than a few
// minutes after the login.
func TestAStolenTicketBecomesNothingThatLasts(t *testing.T) {
	const path = "/access/users/owner@pbs/token/"
	for name, tc := range map[string]struct {
		later time.Duration
		token int // the answer to who wants one
	}{"at once": {0, 200}, "later": {11 * time.Minute, 403}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Options{Now: func() time.Time { return time.Now().Add(tc.later) }})
			if err := l.access.SetPassword("owner@pbs", "correct horse"); err != nil {
				t.Fatal(err)
			}
			if _, err := l.access.CreateToken(access.Token{ID: "owner@pbs!old", Enabled: true, Expire: 4102444800}); err != nil {
				t.Fatal(err)
			}
			k, err := l.access.Login(t.Context(), "owner@pbs", "correct horse", netip.Addr{})
			if err == nil {
				k, err = l.access.Login(t.Context(), "owner@pbs", k.Ticket, netip.Addr{}) // renewed, it is as old as before
			}
			if err != nil {
				t.Fatal(err)
			}
			ask := func(verb, path, params string) reply {
				h := http.Header{"Cookie": {"PBSAuthCookie=" + k.Ticket}, "CSRFPreventionToken": {k.CSRF}, "Content-Type": {"application/x-www-form-urlencoded"}}
				return l.request("", verb, "/api2/json"+path, strings.NewReader(params), h)
			}
			l.want(ask("POST", path+"new", ""), tc.token, "")
			l.want(ask("PUT", path+"old", "regenerate=1"), tc.token, "")
			l.want(ask("PUT", path+"old", "expire=0"), tc.token, "")
			l.want(ask("PUT", path+"old", "delete=expire"), tc.token, "")
			l.want(ask("PUT", path+"old", "comment=x"), 200, "")
			set := func(confirmation string) reply {
				v := vals("userid", "owner@pbs", "password", "battery staple")
				if confirmation != "" {
					v.Set("confirmation-password", confirmation)
				}
				return ask("PUT", "/access/password", v.Encode())
			}
			l.want(set(""), 400, "confirmation-password")
			l.want(set(k.Ticket), 401, "") // stands for the password nowhere here
			l.want(set("wrong horse"), 401, "")
			if _, err := l.access.Login(t.Context(), "owner@pbs", "correct horse", netip.Addr{}); err != nil {
				t.Errorf("the password was changed: %v", err)
			}
			l.want(set("correct horse"), 200, "")
		})
	}
}

// The protocol lets root@pam set passwords without a word more, which is enough for who
// has just logged in.
func TestRootSetsPasswordsRightAfterItsLogin(t *testing.T) {
	for name, tc := range map[string]struct {
		later  time.Duration
		answer int
	}{"at once": {0, 200}, "later": {11 * time.Minute, 403}} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t, Options{Now: func() time.Time { return time.Now().Add(tc.later) }})
			if err := l.access.SetPassword(wire.RootUser, "correct horse"); err != nil {
				t.Fatal(err)
			}
			k, err := l.access.Login(t.Context(), wire.RootUser, "correct horse", netip.Addr{})
			if err != nil {
				t.Fatal(err)
			}
			for path, params := range map[string]string{"/access/password": "userid=owner@pbs&password=longenough", "/access/users": "userid=new@pbs&password=longenough"} {
				verb := map[bool]string{true: "PUT", false: "POST"}[path == "/access/password"]
				h := http.Header{"Cookie": {"PBSAuthCookie=" + k.Ticket}, "CSRFPreventionToken": {k.CSRF}, "Content-Type": {"application/x-www-form-urlencoded"}}
				l.want(l.request("", verb, "/api2/json"+path, strings.NewReader(params), h), tc.answer, "")
			}
			l.want(l.call(admin, "PUT", "/access/password", "userid=owner@pbs&password=longenough"), 200, "") // a token
		})
	}
}

// A long transfer outside of sessions ends with the rights of who has asked for it.
func TestTransfersEndWithTheirRights(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	r, err := http.NewRequestWithContext(t.Context(), "GET", "/", nil)
	l.must(err)
	w := newMemoryWriter()
	c := &call{may: mayOf(api.Download), ResponseWriter: w, Request: r, server: l.server, log: slog.New(slog.DiscardHandler),
		Values: rest.Values{"store": "tank", "backup-type": "vm", "backup-id": "100", "backup-time": int64(1000)}}
	c.pass, err = l.access.Authenticate(access.Credentials{Authorization: l.tokens["alice"]})
	l.must(err)
	c.auth = c.pass.ID
	defer c.release()
	_, snapshot, err := c.reading()
	l.must(err)
	defer snapshot.Close()
	const part = 64 << 10
	sent := 0
	defer func() {
		if cut := recover(); cut != http.ErrAbortHandler || sent < 2*askEvery || w.body.Len() > 3*askEvery+part {
			t.Errorf("%v after %d bytes, of which %d have left", cut, sent, w.body.Len())
		}
	}()
	_ = c.stream(func(to io.Writer) error {
		for range 100 {
			if sent == 2*askEvery {
				if _, err := l.access.RegenerateToken("alice@pbs!key"); err != nil {
					return err
				}
			}
			if _, err := to.Write(make([]byte, part)); err != nil {
				return err
			}
			sent += part
		}
		return nil
	})
	t.Error("the whole transfer has come")
}

// A guard that refuses names the owner only to who may list the group.
func TestGuardsNameTheOwnerToWhoMayAudit(t *testing.T) {
	l := newSessionLab(t)
	l.user("auditor", "DatastoreAudit")
	for user, told := range map[wire.AuthID]bool{"putter@pbs": false, "auditor@pbs": true} {
		g := grant{server: l.server, pass: access.LocalPass(user), path: "/datastore/tank", owned: api.DatastorePut | api.DatastoreAudit}
		err := g.may(func() (wire.AuthID, error) { return "alice@pbs", nil })
		if err == nil || strings.Contains(err.Error(), "alice") != told {
			t.Errorf("%s is told: %v", user, err)
		}
	}
}
