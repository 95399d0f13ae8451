package server

import (
	"errors"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/datastore/access"
	"holdfast/datastore/task"
	"holdfast/datastore/wire"
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
			c := &call{server: l.server, params: values{"store": "tank", "keep-last": int64(1)}}
			c.pass, err = l.access.Authenticate(access.Credentials{Method: "POST", Authorization: l.tokens["alice"]})
			l.must(err)
			c.auth = c.pass.ID
			verify := &verification{server: l.server, st: st, days: -1,
				may: func(g wire.Group) error {
					return c.grantOn(g.NS, access.DatastoreVerify, access.DatastoreBackup).ask(st, g)
				}}
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
