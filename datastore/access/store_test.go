package access

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"go.etcd.io/bbolt"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

func TestOpenKeepsEverything(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.db")
	c := &clock{t: time.Unix(1_800_000_000, 0)}
	s := openAt(t, path, c)
	filled(t, s)
	k := login(t, s, "alice@pbs", "a secret")
	digest, want := s.Digest(), export(t, s)
	must(t, s.Close())

	s = openAt(t, path, c)
	if got := export(t, s); got != want || s.Digest() != digest {
		t.Errorf("after opening again:\n%s\nwant\n%s", got, want)
	}
	accepted(t, s, withTicket(k), "alice@pbs")
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	left, err := os.ReadDir(filepath.Dir(path))
	if err != nil || len(left) != 1 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
}

// filled puts one of everything into a store.
func filled(t testing.TB, s *Store) {
	t.Helper()
	u := User{ID: "alice@pbs", Comment: "a <b> & ü", FirstName: "A", LastName: "B", Email: "a@b.example", Enabled: true, Expire: 1 << 40}
	must(t, s.CreateUser(u, "a secret"))
	token(t, s, "alice@pbs!nightly")
	must(t,
		s.SetACL(ACL{Path: "/datastore/tank", Role: "DatastoreBackup", ID: "alice@pbs", Propagate: true}),
		s.SetACL(ACL{Path: "/datastore//tank/", Role: "DatastorePutOnly", ID: "alice@pbs!nightly"}),
		s.AddDatastore(Datastore{Name: "tank", Path: "/srv/tank", Comment: "x", Maintenance: api.MaintenanceReadOnly, VerifyNew: true}),
		s.SetQuota(Quota{Subject: "/datastore/tank/a", BytesMax: 1 << 50, SnapshotsPerDay: 3}),
		s.SetQuota(Quota{Subject: "alice@pbs", BytesMax: 1}),
	)
}

func export(t testing.TB, s *Store) string {
	t.Helper()
	var b bytes.Buffer
	must(t, s.Export(&b))
	return b.String()
}

func TestOpenTightensTheMode(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.db")
	s := openAt(t, path, &clock{})
	must(t, s.Close(), os.Chmod(path, 0o644))
	openAt(t, path, &clock{})
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestOpenLocked(t *testing.T) {
	path := filepath.Join(t.TempDir(), "access.db")
	s := openAt(t, path, &clock{})
	if _, err := Open(path, Options{}); !errors.Is(err, chunkstore.ErrLocked) {
		t.Fatalf("got %v", err)
	}
	done := make(chan error)
	go func() {
		s, err := Open(path, Options{LockWait: time.Minute})
		if err == nil {
			err = s.Close()
		}
		done <- err
	}()
	must(t, s.Close(), <-done)
}

func TestOpenRefuses(t *testing.T) {
	put := func(bucket, key, value string) func(*testing.T, string) {
		return func(t *testing.T, path string) {
			db, err := bbolt.Open(path, 0o600, nil)
			must(t, err)
			must(t, db.Update(func(tx *bbolt.Tx) error { return tx.Bucket([]byte(bucket)).Put([]byte(key), []byte(value)) }), db.Close())
		}
	}
	for name, tc := range map[string]struct {
		harm func(*testing.T, string)
		want error
	}{
		"newer layout":    {put("meta", "version", "2"), chunkstore.ErrInvalid},
		"short secret":    {put("meta", "ticket-secret", `"AAAA"`), chunkstore.ErrCorrupt},
		"no JSON":         {put("users", "root@pam", "{"), chunkstore.ErrCorrupt},
		"other key":       {put("users", "bob@pbs", `{"userid":"root@pam"}`), chunkstore.ErrCorrupt},
		"unknown field":   {put("quotas", "/datastore/tank", `{"subject":"/datastore/tank","more":1}`), chunkstore.ErrCorrupt},
		"two values":      {put("quotas", "/datastore/tank", `{"subject":"/datastore/tank"}{}`), chunkstore.ErrCorrupt},
		"dangling token":  {put("tokens", "x@pbs!abc", `{"tokenid":"x@pbs!abc"}`), chunkstore.ErrCorrupt},
		"root disabled":   {put("users", "root@pam", `{"userid":"root@pam"}`), chunkstore.ErrCorrupt},
		"an empty file":   {func(t *testing.T, p string) { must(t, os.Truncate(p, 0)) }, chunkstore.ErrCorrupt},
		"half a file":     {func(t *testing.T, p string) { must(t, os.Truncate(p, 9000)) }, chunkstore.ErrCorrupt},
		"not a database":  {func(t *testing.T, p string) { must(t, os.WriteFile(p, make([]byte, 1<<16), 0o600)) }, chunkstore.ErrCorrupt},
		"a missing table": {func(t *testing.T, p string) { dropBucket(t, p, "acls") }, chunkstore.ErrCorrupt},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "access.db")
			s, err := Open(path, Options{})
			must(t, err)
			must(t, s.Close())
			tc.harm(t, path)
			s, err = Open(path, Options{})
			if err == nil {
				s.Close()
			}
			if !errors.Is(err, tc.want) || !strings.Contains(err.Error(), path) {
				t.Errorf("got %v, want %v", err, tc.want)
			}
		})
	}
}

func dropBucket(t *testing.T, path, bucket string) {
	db, err := bbolt.Open(path, 0o600, nil)
	must(t, err)
	must(t, db.Update(func(tx *bbolt.Tx) error { return tx.DeleteBucket([]byte(bucket)) }), db.Close())
}

func TestOpenWithoutDirectoryOrRandom(t *testing.T) {
	dir := t.TempDir()
	if _, err := Open(filepath.Join(dir, "none", "access.db"), Options{}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Open(filepath.Join(dir, "a"), Options{Random: strings.NewReader("few")}); !errors.Is(err, io.ErrUnexpectedEOF) {
		t.Errorf("no random bytes: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the directory holds %v, %v", left, err)
	}
}

func TestFailedWriteChangesNothing(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), "a secret"))
	before := export(t, s)
	handle := s.file.handle
	must(t, handle.Close()) // writing to it fails from here on
	err := s.RemoveUser("alice@pbs")
	if err == nil {
		t.Fatal("a failed write was not reported")
	}
	if err := s.CreateUser(user("bob@pbs"), ""); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("after a failed write: %v", err)
	}
	if export(t, s) != before {
		t.Error("a change that was not written is seen")
	}
	login(t, s, "alice@pbs", "a secret")
	s.file.db = nil // it cannot be closed without its file
}

func TestClosed(t *testing.T) {
	s, _ := open(t)
	must(t, s.Close(), s.Close())
	if err := s.CreateUser(user("bob@pbs"), ""); !errors.Is(err, fs.ErrClosed) {
		t.Errorf("got %v", err)
	}
}

func TestDigest(t *testing.T) {
	s, _ := open(t)
	other, _ := open(t)
	empty := s.Digest()
	if len(empty) != 64 || empty == other.Digest() {
		t.Errorf("digests %s and %s", empty, other.Digest())
	}
	q := Quota{Subject: "/datastore/tank", BytesMax: 1}
	must(t, s.SetQuota(q))
	if s.Digest() == empty {
		t.Error("a change does not show")
	}
	must(t, s.RemoveQuota(q.Subject))
	if s.Digest() != empty {
		t.Error("the same configuration has two digests")
	}
}

// TestConcurrent has the race detector look at checks beside changes.
func TestConcurrent(t *testing.T) {
	s, _ := open(t)
	must(t, s.CreateUser(user("alice@pbs"), ""), s.SetACL(ACL{Path: "/", Role: "Admin", ID: "alice@pbs", Propagate: true}))
	id := wire.AuthID("alice@pbs!nightly")
	secret := token(t, s, id)
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			for n := range 8 {
				name := fmt.Sprintf("store%d-%d", i, n)
				if err := s.AddDatastore(Datastore{Name: name, Path: "/srv/" + name}); err != nil {
					t.Error(err)
				}
			}
		})
		wg.Go(func() {
			for range 100 {
				accepted(t, s, withToken(id, secret), id)
				if p, err := s.Privileges("alice@pbs", "/datastore"); err != nil || p != api.AllPrivileges {
					t.Errorf("got %v, %v", p.Names(), err)
				}
			}
		})
	}
	wg.Wait()
	if l, err := s.Datastores(); err != nil || len(l) != 32 {
		t.Errorf("%d datastores, %v", len(l), err)
	}
}
