package datastore_test

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

func TestOwnerRule(t *testing.T) {
	for _, c := range []struct {
		owner, caller wire.AuthID
		ok            bool
	}{
		{"root@pam", "root@pam", true},
		{"root@pam!pve", "root@pam!pve", true},
		{"root@pam!pve", "root@pam", true}, // a user, a group of its token
		{"root@pam", "root@pam!pve", false},
		{"root@pam!a", "root@pam!b", false},
		{"eve@pbs", "root@pam", false},
		{"root@pam", "eve@pbs", false},
		{"eve@pbs", "eve@pam", false},
		{"eve@pbs!t", "eve@pam", false},
	} {
		l := newLab(t)
		l.foreign(at(10), c.owner).Close() // given up, but the group is taken
		ss, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(20), Owner: c.caller, Foreign: true})
		if c.ok {
			if err != nil {
				t.Errorf("%s in the group of %s: %v", c.caller, c.owner, err)
				continue
			}
			ss.Close()
		} else {
			is(t, string(c.caller+" in the group of "+c.owner), err, datastore.ErrOwner)
			if text := "backup owner check failed (" + string(c.caller+" != "+c.owner) + ")"; err != nil && !strings.Contains(err.Error(), text) {
				t.Errorf("%v lacks %q", err, text)
			}
		}
		if owner, err := l.Owner(group); err != nil || owner != c.owner {
			t.Errorf("the owner is %q, %v, want %s", owner, err, c.owner)
		}
	}
}

func TestGroupStaysWhenItsFirstBackupIsGivenUp(t *testing.T) {
	l := newLab(t)
	l.foreign(at(10), "eve@pbs").Close()
	if groups, err := l.Groups(t.Context(), ""); err != nil || len(groups) != 0 {
		t.Errorf("listed: %+v %v", groups, err)
	}
	if owner, err := l.Owner(group); err != nil || owner != "eve@pbs" {
		t.Errorf("owner: %q %v", owner, err)
	}
	_, err := l.Begin(t.Context(), at(20))
	is(t, "root@pam on this machine", err, datastore.ErrOwner)
}

func TestEmbeddedSessionRecordsTheOwnerAtTheEnd(t *testing.T) {
	l := newLab(t)
	ss := l.begin(datastore.SessionOptions{Snapshot: at(10)})
	_, err := l.Owner(group)
	is(t, "owner before the end", err, chunkstore.ErrNotExist)
	l.finish(ss)
	raw, err := os.ReadFile(filepath.Join(l.path, "vm", "100", "owner"))
	if err != nil || string(raw) != "root@pam\n" {
		t.Errorf("owner file: %q %v", raw, err)
	}
	// Stores of earlier versions have none.
	if err := os.Remove(filepath.Join(l.path, "vm", "100", "owner")); err != nil {
		t.Fatal(err)
	}
	if owner, err := l.Owner(group); err != nil || owner != wire.RootUser {
		t.Errorf("owner of old snapshots: %q %v", owner, err)
	}
	_, err = l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(20), Owner: "eve@pbs", Foreign: true})
	is(t, "somebody else", err, datastore.ErrOwner)
}

func TestDamagedOwnerIsNobody(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	for _, text := range []string{"", "eve@pbs\n\n", "eve", "\n", strings.Repeat("x", 300), "eve@pbs\nroot@pam\n"} {
		if err := os.WriteFile(filepath.Join(l.path, "vm", "100", "owner"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		_, err := l.Owner(group)
		is(t, "owner", err, chunkstore.ErrCorrupt)
		for _, id := range []wire.AuthID{"eve@pbs", "root@pam"} {
			_, err = l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(20), Owner: id, Foreign: true})
			is(t, "begin", err, chunkstore.ErrCorrupt)
		}
		if info := l.info(at(10)); info.Owner != "" {
			t.Errorf("%q: listed with owner %q", text, info.Owner)
		}
	}
	if err := l.SetOwner(t.Context(), group, "eve@pbs"); err != nil {
		t.Errorf("set it right: %v", err)
	}
	if info := l.info(at(10)); info.Owner != "eve@pbs" {
		t.Errorf("listed with owner %q", info.Owner)
	}
}

func TestForeignSessionNeedsItsNamespace(t *testing.T) {
	l := newLab(t)
	snap := at(10)
	snap.Group.NS = "a/b"
	o := datastore.SessionOptions{Snapshot: snap, Owner: "eve@pbs", Foreign: true}
	_, err := l.BeginSession(t.Context(), o)
	is(t, "no namespace", err, chunkstore.ErrNotExist)
	if _, err := os.Stat(filepath.Join(l.path, "ns")); err == nil {
		t.Error("it was made")
	}
	for _, ns := range []wire.Namespace{"a", "a/b"} {
		if err := l.CreateNamespace(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
	}
	l.store(snap, "eve@pbs")
}

func TestBase(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	if base, ok := ss.Base(); ok {
		t.Errorf("the first has base %s", base)
	}
	l.finish(ss)
	ss.Close()
	l.store(at(20), "eve@pbs")

	ss = l.foreign(at(30), "eve@pbs")
	if base, ok := ss.Base(); !ok || base != at(20) {
		t.Errorf("base is %s, %v", base, ok)
	}
	is(t, "forget the base", l.Forget(t.Context(), at(20)), wire.ErrBusy)
	if err := l.Forget(t.Context(), at(10)); err != nil {
		t.Errorf("forget another one: %v", err)
	}
	l.finish(ss)
	if err := l.Forget(t.Context(), at(20)); err != nil {
		t.Errorf("forget it when the session is finished, and not closed: %v", err)
	}
}

func TestFailedSnapshotIsNoBase(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	l.store(at(20), "eve@pbs")
	if err := l.SetVerifyState(t.Context(), at(20), wire.VerifyState{State: wire.VerifyFailed, UPID: "UPID:x"}); err != nil {
		t.Fatal(err)
	}
	ss := l.foreign(at(15), "eve@pbs") // an older time is accepted then
	if base, ok := ss.Base(); ok {
		t.Errorf("base is %s", base)
	}
	_, err := ss.Previous(t.Context())
	is(t, "previous", err, chunkstore.ErrNotExist)
	ss.Close()
	_, err = l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(20), Owner: "eve@pbs", Foreign: true})
	is(t, "the same time", err, wire.ErrExists)
	if err := l.SetVerifyState(t.Context(), at(20), wire.VerifyState{State: wire.VerifyOK, UPID: "UPID:y"}); err != nil {
		t.Fatal(err)
	}
	_, err = l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(15), Owner: "eve@pbs", Foreign: true})
	is(t, "an older time", err, wire.ErrExists)
}

func TestFinishFreesTheGroup(t *testing.T) {
	l := newLab(t)
	first := l.foreign(at(10), "eve@pbs")
	l.finish(first)
	second := l.foreign(at(20), "eve@pbs")
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	_, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(30), Owner: "eve@pbs", Foreign: true})
	is(t, "a third, after the first was closed", err, wire.ErrBusy)
	l.finish(second)
}

func TestAfterFinish(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	ss := l.foreign(at(20), "eve@pbs")
	w, err := ss.Create(t.Context(), "left.img.didx", -1)
	if err != nil {
		t.Fatal(err)
	}
	l.manifestOf(ss, l.image(ss, "disk.img.didx", "content"))
	is(t, "finish with an open index", ss.Finish(t.Context()), chunkstore.ErrInvalid)
	if err := w.(*datastore.IndexWriter).CloseWith(t.Context(), datastore.Closing{Count: 1}); err == nil {
		t.Fatal("closed")
	}
	if err := ss.Finish(t.Context()); err != nil {
		t.Fatalf("a second try: %v", err)
	}
	c := seal(t, l.codec, "more")
	_, put := ss.PutChunk(t.Context(), "disk.img.didx", c)
	_, create := ss.Create(t.Context(), "a.img.didx", -1)
	_, reuse := ss.CreateReusing(t.Context(), "a.img.fidx", 5, [32]byte{})
	_, resume := ss.Resume(t.Context())
	for name, err := range map[string]error{
		"finish": ss.Finish(t.Context()), "put": put, "create": create, "reuse": reuse, "resume": resume,
	} {
		is(t, name, err, datastore.ErrFinished)
	}
	prev, err := ss.Previous(t.Context())
	if err != nil || prev.Snapshot() != at(10) {
		t.Fatalf("previous: %v %v", prev, err)
	}
	prev.Close()
	if err := ss.Blob(t.Context(), "late.blob", c.Blob); err != nil {
		t.Errorf("blob: %v", err)
	}
	for _, name := range []string{"late.blob", wire.ManifestName} {
		is(t, "replace "+name, ss.Blob(t.Context(), name, c.Blob), wire.ErrExists)
	}
	if extra := l.info(at(20)).Extra; len(extra) != 1 || extra[0] != "late.blob" {
		t.Errorf("extra files: %q", extra)
	}
	if err := ss.Close(); err != nil {
		t.Fatal(err)
	}
	is(t, "blob when closed", ss.Blob(t.Context(), "later.blob", c.Blob), chunkstore.ErrInvalid)
}

func TestBenchmarkLeavesNothing(t *testing.T) {
	l := newLab(t)
	snap := wire.Snapshot{Group: wire.Group{Type: "host", ID: "benchmark"}, Time: 10}
	for _, end := range []bool{true, false} {
		ss := l.begin(datastore.SessionOptions{Snapshot: snap, Owner: "eve@pbs", Foreign: true, Benchmark: true})
		l.image(ss, "disk.img.didx", "content")
		if end {
			if err := ss.Finish(t.Context()); err != nil {
				t.Errorf("finish: %v", err)
			}
		}
		if err := ss.Close(); err != nil {
			t.Errorf("close: %v", err)
		}
		if _, err := os.Stat(filepath.Join(l.path, "host")); err == nil {
			t.Error("the group is there")
		}
		for _, dir := range []string{".tmp", ".resume"} {
			if left, err := os.ReadDir(filepath.Join(l.path, dir)); len(left) > 0 {
				t.Errorf("%s: %v %v", dir, left, err)
			}
		}
	}
}

func TestStatsGoIntoTheManifest(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	ss.SetStats(datastore.UploadStats{Count: 7, Size: 8, CompressedSize: 9, Duplicates: 2})
	l.finish(ss)
	r, err := l.Open(t.Context(), at(10))
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	raw, err := r.Blob(t.Context(), wire.ManifestName)
	if err != nil {
		t.Fatal(err)
	}
	m, err := manifest.Open(raw)
	if err != nil {
		t.Fatal(err)
	}
	want := `{"compressed_size":9,"count":7,"duplicates":2,"size":8}`
	if got := string(m.Unprotected["chunk_upload_stats"]); got != want {
		t.Errorf("statistics: %s, want %s", got, want)
	}
	if info := l.info(at(10)); info.ManifestSize != uint64(len(raw)) || info.Signed {
		t.Errorf("listed: %+v, the manifest has %d bytes", info, len(raw))
	}
}

func TestSessionRefusesBadNames(t *testing.T) {
	l := newLab(t)
	bad := at(10)
	bad.Group.NS = "../x"
	for name, o := range map[string]datastore.SessionOptions{
		"owner":     {Snapshot: at(10), Owner: "eve", Foreign: true},
		"namespace": {Snapshot: bad, Foreign: true},
		"time":      {Snapshot: at(0), Foreign: true},
	} {
		if ss, err := l.BeginSession(t.Context(), o); !errors.Is(err, wire.ErrName) {
			t.Errorf("%s: %v %v", name, ss, err)
		}
	}
}
