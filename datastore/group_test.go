package datastore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

func TestOwnerAndNotesOfAGroup(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for name, err := range map[string]error{
		"owner": l.SetOwner(ctx, group, "bob@pbs"), "notes": l.SetGroupNotes(ctx, group, "x"),
	} {
		is(t, name+" of no group", err, chunkstore.ErrNotExist)
	}
	if _, err := os.Stat(filepath.Join(l.path, "vm")); err == nil {
		t.Error("the group was made")
	}
	_, err := l.GroupNotes(group)
	is(t, "notes of no group", err, chunkstore.ErrNotExist)

	l.store(at(10), "eve@pbs!pve")
	if err := l.SetGroupNotes(ctx, group, "first line\nsecond"); err != nil {
		t.Fatal(err)
	}
	if err := l.SetOwner(ctx, group, "bob@pbs"); err != nil {
		t.Fatal(err)
	}
	is(t, "no user", l.SetOwner(ctx, group, "bob"), wire.ErrName)
	is(t, "long notes", l.SetGroupNotes(ctx, group, strings.Repeat("x", 64<<10+1)), chunkstore.ErrInvalid)
	bad := group
	bad.NS = ".."
	is(t, "bad namespace", l.SetOwner(ctx, bad, "bob@pbs"), wire.ErrName)
	if notes, err := l.GroupNotes(group); err != nil || notes != "first line\nsecond" {
		t.Errorf("notes: %q %v", notes, err)
	}
	groups, err := l.Groups(ctx, "")
	if err != nil || len(groups) != 1 || groups[0].Owner != "bob@pbs" || groups[0].Comment != "first line" || groups[0].Count != 1 {
		t.Errorf("listed: %+v %v", groups, err)
	}
	if info := l.info(at(10)); info.Owner != "bob@pbs" {
		t.Errorf("the snapshot belongs to %q", info.Owner)
	}
	if err := l.SetGroupNotes(ctx, group, ""); err != nil {
		t.Fatal(err)
	}
	if notes, err := l.GroupNotes(group); err != nil || notes != "" {
		t.Errorf("notes: %q %v", notes, err)
	}
}

func TestChangeOfOwnerDuringABackup(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	if err := l.SetOwner(t.Context(), group, "bob@pbs"); err != nil {
		t.Fatal(err)
	}
	l.finish(ss)
	if owner, err := l.Owner(group); err != nil || owner != "bob@pbs" {
		t.Errorf("owner: %q %v", owner, err)
	}
}

func TestLastSnapshotTakesTheGroupWithIt(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	l.store(at(20), "eve@pbs")
	if err := l.SetGroupNotes(t.Context(), group, "x"); err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(l.path, "vm", "100")
	for i, snap := range []wire.Snapshot{at(10), at(20)} {
		if err := l.Forget(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(dir); (err == nil) != (i == 0) {
			t.Errorf("after %d: %v", i, err)
		}
	}
	l.store(at(5), "bob@pbs") // the name is free, for anybody
}

func TestLastSnapshotLeavesTheGroupToARunningBackup(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	if err := l.SetVerifyState(t.Context(), at(10), wire.VerifyState{State: wire.VerifyFailed}); err != nil {
		t.Fatal(err)
	}
	ss := l.foreign(at(20), "eve@pbs")
	if err := l.Forget(t.Context(), at(10)); err != nil {
		t.Fatal(err)
	}
	if owner, err := l.Owner(group); err != nil || owner != "eve@pbs" {
		t.Errorf("owner: %q %v", owner, err)
	}
	l.finish(ss)
}

func TestForgetGroup(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	_, err := l.ForgetGroup(ctx, group)
	is(t, "no group", err, chunkstore.ErrNotExist)
	for i := range int64(4) {
		l.store(at(10+i), "eve@pbs")
	}
	if err := l.SetProtected(ctx, at(12), true); err != nil {
		t.Fatal(err)
	}
	r, err := l.Open(ctx, at(11))
	if err != nil {
		t.Fatal(err)
	}
	removed, err := l.ForgetGroup(ctx, group)
	is(t, "while one is read", err, wire.ErrBusy)
	if removed != (datastore.Removed{Snapshots: 2, Protected: 1}) {
		t.Errorf("removed while one is read: %+v", removed)
	}
	r.Close()
	if removed, err = l.ForgetGroup(ctx, group); err != nil || removed != (datastore.Removed{Snapshots: 1, Protected: 1}) {
		t.Errorf("removed: %+v %v", removed, err)
	}
	ss := l.foreign(at(20), "eve@pbs")
	_, err = l.ForgetGroup(ctx, group)
	is(t, "while it is written to", err, wire.ErrBusy)
	ss.Close()
	if err := l.SetProtected(ctx, at(12), false); err != nil {
		t.Fatal(err)
	}
	if removed, err = l.ForgetGroup(ctx, group); err != nil || removed != (datastore.Removed{Groups: 1, Snapshots: 1}) {
		t.Errorf("removed: %+v %v", removed, err)
	}
	_, err = l.Owner(group)
	is(t, "owner", err, chunkstore.ErrNotExist)
	if left, err := os.ReadDir(filepath.Join(l.path, ".tmp")); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestCreateNamespace(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	is(t, "no parent", l.CreateNamespace(ctx, "a/b"), chunkstore.ErrNotExist)
	for _, ns := range []wire.Namespace{"", "a", "a", "a/b", "a/b/c"} {
		if err := l.CreateNamespace(ctx, ns); err != nil {
			t.Errorf("%q: %v", ns, err)
		}
	}
	for _, ns := range []wire.Namespace{"..", "a/../b", "/a", "a//b", "a/b/c/d/e/f/g/h", "-a"} {
		is(t, string(ns), l.CreateNamespace(ctx, ns), wire.ErrName)
	}
	all, err := l.Namespaces(ctx, "")
	if err != nil || !slices.Equal(all, []wire.Namespace{"", "a", "a/b", "a/b/c"}) {
		t.Errorf("namespaces: %q %v", all, err)
	}
}

// spaces makes three namespaces with a group each.
func spaces(t *testing.T) (*lab, []wire.Snapshot) {
	l := newLab(t)
	var snaps []wire.Snapshot
	for _, ns := range []wire.Namespace{"a", "a/b", "a/b/c"} {
		if err := l.CreateNamespace(t.Context(), ns); err != nil {
			t.Fatal(err)
		}
		snap := at(10)
		snap.Group.NS = ns
		l.store(snap, "eve@pbs")
		snaps = append(snaps, snap)
	}
	return l, snaps
}

func TestRemoveNamespace(t *testing.T) {
	l, snaps := spaces(t)
	ctx := t.Context()
	_, err := l.RemoveNamespace(ctx, "", datastore.RemoveOptions{Groups: true})
	is(t, "root", err, chunkstore.ErrInvalid)
	_, err = l.RemoveNamespace(ctx, "x", datastore.RemoveOptions{Groups: true})
	is(t, "none", err, chunkstore.ErrNotExist)
	_, err = l.RemoveNamespace(ctx, "../x", datastore.RemoveOptions{Groups: true})
	is(t, "bad name", err, wire.ErrName)
	removed, err := l.RemoveNamespace(ctx, "a/b", datastore.RemoveOptions{})
	is(t, "not empty", err, wire.ErrNotEmpty)
	if removed != (datastore.Removed{}) {
		t.Errorf("removed %+v", removed)
	}
	removed, err = l.RemoveNamespace(ctx, "a/b", datastore.RemoveOptions{Groups: true})
	if err != nil || removed != (datastore.Removed{Groups: 2, Snapshots: 2}) {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if all, err := l.Namespaces(ctx, ""); err != nil || !slices.Equal(all, []wire.Namespace{"", "a"}) {
		t.Errorf("left are %q %v", all, err)
	}
	// What held a group once is empty when the group is gone, or never had
	// a snapshot.
	if err := l.Forget(ctx, snaps[0]); err != nil {
		t.Fatal(err)
	}
	l.foreign(snaps[0], "eve@pbs").Close()
	if _, err := l.RemoveNamespace(ctx, "a", datastore.RemoveOptions{}); err != nil {
		t.Errorf("remove the empty one: %v", err)
	}
	is(t, "it is gone", l.Forget(ctx, snaps[0]), chunkstore.ErrNotExist)
}

func TestRemoveNamespaceLeavesWhatMustStay(t *testing.T) {
	l, snaps := spaces(t)
	ctx := t.Context()
	if err := l.SetProtected(ctx, snaps[1], true); err != nil {
		t.Fatal(err)
	}
	removed, err := l.RemoveNamespace(ctx, "a", datastore.RemoveOptions{Groups: true})
	if err != nil || removed != (datastore.Removed{Groups: 2, Snapshots: 2, Protected: 1}) {
		t.Errorf("removed %+v, %v", removed, err)
	}
	if all, err := l.Namespaces(ctx, ""); err != nil || !slices.Equal(all, []wire.Namespace{"", "a", "a/b"}) {
		t.Errorf("left are %q %v", all, err)
	}
	if err := l.SetProtected(ctx, snaps[1], false); err != nil {
		t.Fatal(err)
	}
	next := snaps[1]
	next.Time = 20
	ss := l.foreign(next, "eve@pbs")
	_, err = l.RemoveNamespace(ctx, "a", datastore.RemoveOptions{Groups: true})
	is(t, "while it is written to", err, wire.ErrBusy)
	ss.Close()
	strange := filepath.Join(l.path, "ns", "a", "precious")
	if err := os.WriteFile(strange, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = l.RemoveNamespace(ctx, "a", datastore.RemoveOptions{Groups: true})
	is(t, "with a strange file", err, chunkstore.ErrInvalid)
	if _, err := os.Stat(strange); err != nil {
		t.Errorf("the strange file: %v", err)
	}
}

// A namespace of many groups takes minutes to go. No backup waits for that, wherever it is
// made.
func TestBackupsBeginWhileANamespaceGoes(t *testing.T) {
	l, _ := spaces(t)
	elsewhere := wire.Snapshot{Group: wire.Group{Type: "host", ID: "elsewhere"}, Time: 10}
	begun := 0
	var inside atomic.Bool // a session that has made nothing lets its group go, too
	l.OnStep(func(step string) {
		if step != "on its way out" || !inside.CompareAndSwap(false, true) {
			return
		}
		defer inside.Store(false)
		elsewhere.Time++
		done := make(chan error, 1)
		go func() {
			ss, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: elsewhere, Owner: "eve@pbs", Foreign: true})
			if err == nil {
				err = ss.Close()
			}
			done <- err
		}()
		select {
		case err := <-done:
			if err != nil {
				t.Error(err)
			}
			begun++
		case <-time.After(time.Minute):
			t.Error("a backup waits until the namespace has gone")
		}
	})
	if _, err := l.RemoveNamespace(t.Context(), "a", datastore.RemoveOptions{Groups: true}); err != nil {
		t.Fatal(err)
	}
	if l.OnStep(func(string) {}); begun == 0 {
		t.Error("no group has gone, the test proves nothing")
	}
}

func TestNamespaceGoesWhileBackupsBegin(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	var wg sync.WaitGroup
	for i := range 4 {
		wg.Go(func() {
			snap := at(10)
			snap.Group.NS, snap.Group.ID = "a", string(rune('a'+i))
			for range 20 {
				ss, err := l.BeginSession(ctx, datastore.SessionOptions{Snapshot: snap, Owner: "eve@pbs", Foreign: true})
				if err == nil {
					if _, err := os.Stat(filepath.Join(l.path, "ns/a/vm", snap.Group.ID, "owner")); err != nil {
						t.Errorf("a running backup has lost its group: %v", err)
					}
					ss.Close()
				} else if !errors.Is(err, chunkstore.ErrNotExist) && !errors.Is(err, wire.ErrBusy) {
					t.Errorf("begin: %v", err)
				}
			}
		})
	}
	for range 20 {
		if err := l.CreateNamespace(ctx, "a"); err != nil {
			t.Errorf("create: %v", err)
		}
		_, err := l.RemoveNamespace(ctx, "a", datastore.RemoveOptions{Groups: true})
		if err != nil && !errors.Is(err, wire.ErrBusy) {
			t.Errorf("remove: %v", err)
		}
	}
	wg.Wait()
}
