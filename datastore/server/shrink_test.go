package server

import (
	"context"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"testing"

	"holdfast/datastore/access"
	"holdfast/datastore/wire"
)

// role gives the user and its token another role on tank in place of one.
func (l *sessionLab) role(name, old, now string) {
	l.t.Helper()
	both := []wire.AuthID{wire.AuthID(name + "@pbs"), wire.AuthID(name + "@pbs!key")}
	for _, id := range both { // so that there is no moment without either
		l.must(l.access.SetACL(access.ACL{Path: "/datastore/tank", Role: now, ID: id, Propagate: true}))
	}
	for _, id := range both {
		l.must(l.access.RemoveACL(access.ACL{Path: "/datastore/tank", Role: old, ID: id}))
	}
}

// Rights and owner are asked at every request of a session: what is taken away
// ends with the next one.
func TestSessionsDoNotOutliveTheirRights(t *testing.T) {
	refused := func(t *testing.T, k *talk, what string, r request, words string) {
		t.Helper()
		if code, text := k.fails(r); !strings.Contains(text, words) {
			t.Errorf("%s: %d %.80q, want a refusal with %q", what, code, text, words)
		}
	}
	const disk = "disk.img.didx"
	t.Run("a reader of everything becomes one of its own", func(t *testing.T) {
		l := newSessionLab(t)
		list := l.simple("alice", "vm/100", 1000)
		k := l.begin(readerOf("reader", "vm/100", 1000))
		k.raw(get("/download", "file-name", disk))
		l.role("reader", "DatastoreReader", "DatastoreBackup")
		refused(t, k, "a chunk", get("/chunk", "digest", list[0].bit.id.String()), "owner check failed")
		refused(t, k, "a file", get("/download", "file-name", wire.ManifestName), "owner check failed")
		l.ended("reader") // and does not come back
		l.role("reader", "DatastoreBackup", "DatastoreReader")
		refused(t, k, "a chunk", get("/chunk", "digest", list[0].bit.id.String()), "owner check failed")
	})
	t.Run("the group is given away", func(t *testing.T) {
		l := newSessionLab(t)
		l.simple("alice", "vm/100", 1000)
		r := l.begin(readerOf("alice", "vm/100", 1000))
		b := l.begin(backupOf("alice", "vm/100", 2000))
		b.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 2000)))
		l.must(l.store().SetOwner(t.Context(), wire.Group{Type: "vm", ID: "100"}, "bob@pbs!key"))
		refused(t, r, "a file", get("/download", "file-name", disk), "owner check failed")
		refused(t, b, "the previous snapshot", get("/previous", "archive-name", disk), "owner check failed")
		refused(t, b, "a new index", post("/dynamic_index", "archive-name", disk), "owner check failed")
		refused(t, b, "finish", post("/finish"), "owner check failed")
		if got := l.times("vm/100"); len(got) != 1 {
			t.Errorf("snapshots: %v", got)
		}
	})
	t.Run("who may read becomes put-only", func(t *testing.T) {
		l := newSessionLab(t)
		first := l.begin(backupOf("alice", "vm/100", 1000))
		raw, err := l.codec.Encode(nil, []byte("password=hunter2"))
		l.must(err)
		first.data(blobUpload("secret.conf.blob", raw))
		first.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 1000)))
		first.data(post("/finish"))
		first.conn.Close()
		l.ended("backup")
		k := l.begin(backupOf("alice", "vm/100", 2000))
		k.raw(get("/previous", "archive-name", "secret.conf.blob"))
		l.role("alice", "DatastoreBackup", "DatastorePutOnly")
		refused(t, k, "a blob of the previous snapshot", get("/previous", "archive-name", "secret.conf.blob"), "")
		k.raw(get("/previous", "archive-name", wire.ManifestName))
	})
	t.Run("rights are lost while a snapshot is being finished", func(t *testing.T) {
		l := newSessionLab(t)
		k := l.begin(backupOf("alice", "vm/100", 1000))
		k.data(blobUpload(wire.ManifestName, l.manifestOf("vm/100", 1000)))
		l.role("alice", "DatastoreBackup", "DatastoreAudit")
		refused(t, k, "finish", post("/finish"), "")
		if got := l.times("vm/100"); len(got) != 0 {
			t.Errorf("snapshots: %v", got)
		}
	})
}

// How long a user may do anything is not for the user to say.
func TestAUserDoesNotExtendItsOwnLife(t *testing.T) {
	l := newLab(t, Options{})
	if err := l.access.SetPassword("owner@pbs", "correct horse"); err != nil {
		t.Fatal(err)
	}
	l.ok(admin, "PUT", "/access/users/owner@pbs", "expire=4102444800")
	a := l.call("", "POST", "/access/ticket", "username=owner@pbs&password=correct+horse")
	data := a.body["data"].(map[string]any)
	change := func(params string) reply {
		h := http.Header{"Cookie": {"PBSAuthCookie=" + data["ticket"].(string)}, "CSRFPreventionToken": {data["CSRFPreventionToken"].(string)},
			"Content-Type": {"application/x-www-form-urlencoded"}}
		return l.request("", "PUT", "/api2/json/access/users/owner@pbs", strings.NewReader(params), h)
	}
	for _, params := range []string{"expire=0", "expire=4102444801", "delete=expire", "enable=0", "email=a@b&expire=1"} {
		l.want(change(params), 403, "permission check failed")
	}
	l.want(change("email=a@b.example&expire=4102444800"), 200, "")
	u, err := l.access.User("owner@pbs")
	if err != nil || u.Expire != 4102444800 || u.Email != "a@b.example" || !u.Enabled {
		t.Errorf("%+v, %v", u, err)
	}
}

// A user who changes something about itself does not undo what is done to it at that
// moment: as soon as the administrator has his answer, it counts.
func TestAUserDoesNotUndoWhatIsDoneToIt(t *testing.T) {
	l := newLab(t, Options{})
	const user = wire.AuthID("owner@pbs")
	var all sync.WaitGroup
	done := make(chan struct{})
	handler := func(id wire.AuthID, verb, path, params string) int {
		r, err := http.NewRequestWithContext(WithIdentity(context.Background(), id), verb, "/api2/json"+path, strings.NewReader(params))
		if err != nil {
			t.Error(err)
		}
		r.RequestURI = r.URL.RequestURI()
		w := newMemoryWriter()
		l.server.Handler().ServeHTTP(w, r)
		return w.code
	}
	for range 4 {
		all.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				handler(user, "PUT", "/access/users/owner@pbs", "comment=x")
			}
		})
	}
	defer all.Wait()
	defer close(done)
	for i := range int64(20) {
		expire := 4102444800 + i
		if code := handler(wire.RootUser, "PUT", "/access/users/owner@pbs", "expire="+strconv.FormatInt(expire, 10)); code != http.StatusOK {
			t.Fatal(code)
		}
		for range 3 { // what was under way has ended
			handler(user, "PUT", "/access/users/owner@pbs", "comment=y")
		}
		if u, err := l.access.User(user); err != nil || u.Expire != expire {
			t.Fatalf("after the administrator has set %d: %+v, %v", expire, u, err)
		}
	}
}
