package server

import (
	"errors"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/datastore/access"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Who has lost his rights keeps nothing from others by staying connected: neither the
// group nor the snapshot that he builds on.
func TestSessionsWithoutRightsKeepNothing(t *testing.T) {
	g := wire.Group{Type: "vm", ID: "100"}
	for name, take := range map[string]func(*sessionLab) error{
		"token revoked":    func(l *sessionLab) error { return l.access.RevokeToken("alice@pbs!key") },
		"role taken":       func(l *sessionLab) error { l.role("alice", "DatastoreBackup", "DatastoreAudit"); return nil },
		"group given away": func(*sessionLab) error { return nil },
	} {
		t.Run(name, func(t *testing.T) {
			l := newSessionLab(t)
			l.simple("alice", "vm/100", 1000)
			l.begin(backupOf("alice", "vm/100", 5000))
			l.must(take(l))
			l.must(l.store().SetOwner(t.Context(), g, "bob@pbs!key"))
			if status := l.ended("backup"); !strings.Contains(status, "check failed") {
				t.Errorf("the session has ended with %q", status)
			}
			if err := l.store().Forget(t.Context(), wire.Snapshot{Group: g, Time: 1000}); err != nil {
				t.Errorf("the snapshot that it was to build on: %v", err)
			}
			l.begin(backupOf("bob", "vm/100", 6000))
		})
	}
}

// A session whose snapshot is finished holds nothing, though its client stays.
func TestFinishedSessionsHoldNothing(t *testing.T) {
	l := newSessionLab(t)
	l.simple("alice", "vm/100", 1000)
	b := l.begin(backupOf("alice", "vm/100", 5000))
	b.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 5000)))
	b.data(post("/finish"))
	if err := l.store().Forget(t.Context(), wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000}); err != nil {
		t.Errorf("the snapshot that it was built on: %v", err)
	}
}

// Sessions end though their clients stay connected: one that is finished, well, and one
// of which nothing is asked.
func TestSessionsDoNotStayForEver(t *testing.T) {
	t.Run("finished", func(t *testing.T) {
		l := newLimitedLab(t, budget.Limits{FinishedTime: time.Millisecond})
		b := l.begin(backupOf("alice", "vm/100", 5000))
		b.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 5000)))
		if code, text, err := b.send(t.Context(), post("/finish")); err == nil && code != 200 {
			t.Errorf("finish: %d %s", code, text)
		}
		if status := l.ended("backup"); status != "OK" {
			t.Errorf("the session has ended with %q", status)
		}
		if got := l.times("vm/100"); len(got) != 1 {
			t.Errorf("snapshots: %v", got)
		}
	})
	t.Run("idle", func(t *testing.T) {
		l := newLimitedLab(t, budget.Limits{SessionIdleTime: time.Millisecond})
		l.begin(backupOf("alice", "vm/100", 5000))
		if status := l.ended("backup"); !strings.Contains(status, "nothing was asked") {
			t.Errorf("the session has ended with %q", status)
		}
	})
}

// What counts is how long nothing is asked, and after the end when that was.
func TestRestCountsBetweenRequests(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		said := make(chan string, 9)
		say := func(word string) func() { return func() { said <- word } }
		over := func() string {
			synctest.Wait()
			select {
			case word := <-said:
				return word
			default:
				return ""
			}
		}
		r := newLull(time.Hour, say("idle"))
		for range 5 {
			time.Sleep(50 * time.Minute)
			r.begin()
			r.begin()
			r.end()
			time.Sleep(5 * time.Hour) // a request that takes its time
			r.end()
		}
		if got := over(); got != "" {
			t.Fatal(got)
		}
		time.Sleep(61 * time.Minute)
		if got := over(); got != "idle" {
			t.Fatalf("%q", got)
		}
		r = newLull(time.Hour, say("idle"))
		r.begin()
		r.finish(10*time.Minute, say("finished"))
		r.end()
		for range 9 {
			time.Sleep(time.Minute)
			r.begin()
			r.end()
		}
		if got := over(); got != "" {
			t.Fatal(got)
		}
		time.Sleep(2 * time.Minute)
		if got := over(); got != "finished" {
			t.Fatalf("%q", got)
		}
		r = newLull(0, say("idle"))
		r.begin()
		r.end()
		time.Sleep(1000 * time.Hour)
		r.stop()
		r.finish(time.Second, say("finished"))
		time.Sleep(time.Hour)
		if got := over(); got != "" {
			t.Fatal(got)
		}
	})
}

// A session ends when what it was opened with expires, though nobody does anything.
func TestSessionsEndWithTheTimeOfTheirCredential(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		store, err := access.Open(filepath.Join(t.TempDir(), "access"), access.Options{})
		if err != nil {
			t.Fatal(err)
		}
		defer store.Close()
		const token = wire.AuthID("root@pam!x")
		secret, err := store.CreateToken(access.Token{ID: token, Enabled: true, Expire: time.Now().Add(time.Hour).Unix()})
		if err != nil {
			t.Fatal(err)
		}
		if err := store.SetACL(access.ACL{Path: "/", Role: "Admin", ID: token, Propagate: true}); err != nil {
			t.Fatal(err)
		}
		v := &conversation{server: &Server{o: Options{Access: store}}, auth: token, given: func() <-chan struct{} { return nil },
			rights: rights{path: "/datastore/tank", any: api.DatastoreBackup}}
		if v.pass, err = store.Authenticate(access.Credentials{Authorization: "PBSAPIToken=" + string(token) + ":" + secret}); err != nil {
			t.Fatal(err)
		}
		v.within(t.Context())
		defer v.guarded()()
		time.Sleep(59 * time.Minute)
		if synctest.Wait(); v.ctx.Err() != nil {
			t.Fatalf("ended early: %v", v.stopped())
		}
		time.Sleep(3 * time.Minute)
		synctest.Wait()
		var refusal *rest.StatusError
		if !errors.As(v.stopped(), &refusal) || refusal.Code != 403 {
			t.Errorf("an hour later: %v", v.stopped())
		}
	})
}
