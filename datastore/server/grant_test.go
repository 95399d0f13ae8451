package server

import (
	"errors"
	"net/http"
	"net/netip"
	"testing"

	"holdfast/datastore/access"
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
