package datastore_test

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// timeLab is a lab whose time passes when it is told to.
func timeLab(t *testing.T) (l *lab, pass func(time.Duration)) {
	t.Helper()
	path, passed := create(t), time.Duration(0)
	now := func() time.Time { return time.Now().Add(passed) }
	l = &lab{t: t, Store: open(t, path, datastore.Options{Now: now}), path: path, codec: plainCodec(t)}
	return l, func(d time.Duration) { passed += d }
}

// deleted lists the trash by the names of its snapshots.
func deleted(t *testing.T, s *datastore.Store) (names []string) {
	t.Helper()
	list, err := s.Deleted(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range list {
		name := d.Snapshot.String()
		if ns := d.Snapshot.Group.NS; ns != "" {
			name = string(ns) + ":" + name
		}
		names = append(names, name)
	}
	return names
}

func (l *lab) wantTrash(want ...wire.Snapshot) {
	l.t.Helper()
	var names []string
	for _, s := range want {
		names = append(names, strings.TrimPrefix(string(s.Group.NS)+":"+s.String(), ":"))
	}
	got := deleted(l.t, l.Store)
	slices.Sort(got)
	slices.Sort(names)
	if !slices.Equal(got, names) {
		l.t.Errorf("in the trash: %q, want %q", got, names)
	}
}

func (l *lab) must(err error) {
	l.t.Helper()
	if err != nil {
		l.t.Fatal(err)
	}
}

func TestForgottenSnapshotComesBackWhole(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	l.store(at(10), "eve@pbs!pve")
	l.must(l.SetNotes(ctx, at(10), "mine"))
	l.must(l.SetGroupNotes(ctx, group, "the group's"))
	l.must(l.AddLog(ctx, at(10), seal(t, l.codec, "log").Blob))
	before := l.info(at(10))
	l.must(l.Forget(ctx, at(10)))
	_, err := l.Owner(group)
	is(t, "the group", err, chunkstore.ErrNotExist)
	_, err = l.Open(ctx, at(10))
	is(t, "open", err, chunkstore.ErrNotExist)
	list, err := l.Deleted(ctx)
	if err != nil || len(list) != 1 || list[0].Snapshot != at(10) || list[0].Owner != "eve@pbs!pve" || list[0].Damage != "" || list[0].Protected ||
		list[0].Left > l.TrashTime() || list[0].Left < l.TrashTime()-time.Minute || time.Since(time.Unix(list[0].Time, 0)).Abs() > time.Minute {
		t.Errorf("%+v, %v", list, err)
	}
	if l.TrashTime() != 7*24*time.Hour {
		t.Errorf("trash time %v", l.TrashTime())
	}
	l.must(l.RestoreDeleted(ctx, at(10)))
	l.wantTrash()
	after := l.info(at(10))
	if fmt.Sprintf("%+v", after) != fmt.Sprintf("%+v", before) {
		t.Errorf("%+v came back as %+v", before, after)
	}
	if notes, err := l.GroupNotes(group); err != nil || notes != "the group's" {
		t.Errorf("notes of the group: %q %v", notes, err)
	}
	c := seal(t, l.codec, "content")
	if got, err := l.content(at(10), c.ID, int(c.PlainSize)); err != nil || got != "content" {
		t.Errorf("%q %v", got, err)
	}
	is(t, "again", l.RestoreDeleted(ctx, at(10)), chunkstore.ErrNotExist)
	l.store(at(20), "eve@pbs!pve")
}

func TestGroupsAndNamespacesComeBack(t *testing.T) {
	l, snaps := spaces(t)
	ctx := t.Context()
	second := snaps[2]
	second.Time = 20
	l.store(second, "eve@pbs")
	if _, err := l.RemoveNamespace(ctx, "a", datastore.RemoveOptions{Groups: true}); err != nil {
		t.Fatal(err)
	}
	l.wantTrash(append(snaps, second)...)
	l.must(l.RestoreDeleted(ctx, second))
	if all, err := l.Namespaces(ctx, ""); err != nil || !slices.Equal(all, []wire.Namespace{"", "a", "a/b", "a/b/c"}) {
		t.Errorf("namespaces: %q %v", all, err)
	}
	l.must(l.RestoreDeleted(ctx, snaps[2]))
	if removed, err := l.ForgetGroup(ctx, second.Group); err != nil || removed.Snapshots != 2 {
		t.Errorf("%+v %v", removed, err)
	}
	l.wantTrash(append(snaps, second)...)
	for _, s := range append(snaps, second) {
		l.must(l.RestoreDeleted(ctx, s))
	}
	l.wantTrash()
}

func TestRestoreDeletedRefuses(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	is(t, "nothing", l.RestoreDeleted(ctx, at(10)), chunkstore.ErrNotExist)
	bad := at(10)
	bad.Group.NS = ".."
	is(t, "a bad name", l.RestoreDeleted(ctx, bad), wire.ErrName)
	l.store(at(10), "eve@pbs!pve")
	l.must(l.Forget(ctx, at(10)))
	l.store(at(10), "bob@pbs")
	is(t, "a place that is taken", l.RestoreDeleted(ctx, at(10)), wire.ErrExists)
	l.store(at(30), "bob@pbs")
	// Now the older of two comes, of somebody else's group.
	l.must(l.Forget(ctx, at(10)))
	l.must(l.RestoreDeleted(ctx, at(10))) // bob's, the newer one
	l.must(l.Forget(ctx, at(10)))
	l.must(l.Forget(ctx, at(30)))
	l.store(at(35), "joe@pbs")
	is(t, "a group of somebody else", l.RestoreDeleted(ctx, at(10)), datastore.ErrOwner)
	l.must(l.ForgetNow(ctx, at(35)))
	l.must(l.RestoreDeleted(ctx, at(30)))
	ss := l.foreign(at(40), "bob@pbs")
	is(t, "a group that is written to", l.RestoreDeleted(ctx, at(10)), wire.ErrBusy)
	ss.Close()
	l.wantTrash(at(10), at(10))
	l.must(l.RestoreDeleted(ctx, at(10)))
	l.wantTrash(at(10))
	if info := l.info(at(10)); info.Owner != "bob@pbs" {
		t.Errorf("%+v", info)
	}
}

// spoiled stores a snapshot whose chunk is garbage under the name of "content".
func (l *lab) spoiled(snap wire.Snapshot, owner wire.AuthID) {
	l.t.Helper()
	c := seal(l.t, l.codec, "garbage")
	c.ID = l.codec.Name(chunkstore.Plain("content"))
	ss := l.foreign(snap, owner)
	if _, err := ss.PutChunk(l.t.Context(), "disk.img.didx", c); err != nil {
		l.t.Fatal(err)
	}
	l.finish(ss) // what is there is not replaced
	l.must(ss.Close())
}

func TestDeletedComesBackToAGroupThatWasMadeAgain(t *testing.T) {
	l := newLab(t)
	l.codec = keyCodec(t)
	ctx := t.Context()
	id := l.codec.Name(chunkstore.Plain("content"))
	wantWhole := func(when string) {
		t.Helper()
		if got, err := l.content(at(10), id, len("content")); err != nil || got != "content" {
			t.Errorf("%s: read back %q, %v", when, got, err)
		}
	}
	wantScope := func(snap wire.Snapshot, copies wire.AuthID) {
		t.Helper()
		list, err := l.Indexes(ctx)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range list {
			if sc := l.Scope(ctx, f); f.Snapshot == snap && (sc.Doubt != nil || sc.Owner != chunkstore.OwnerOf(string(copies))) {
				t.Errorf("a collection does not look for the chunks of %s among those of %s: %+v", snap, copies, sc)
			}
		}
	}
	l.store(at(10), "root@pam!admin")
	l.must(l.Forget(ctx, at(10))) // and the group with it
	l.spoiled(at(5), "root@pam")
	l.must(l.RestoreDeleted(ctx, at(10)))
	wantWhole("back in a group that reads other copies")
	wantScope(at(10), "root@pam!admin")
	wantScope(at(5), "root@pam")
	ss := l.foreign(at(20), "root@pam")
	if base, ok := ss.Base(); ok {
		t.Errorf("a backup builds on %s, which reads copies of somebody else", base)
	}
	l.must(ss.Close())

	l.must(l.Forget(ctx, at(10)))
	wantScope(at(10), "root@pam!admin")
	l.must(l.SetOwner(ctx, group, "bob@pbs"))
	l.must(l.RestoreDeleted(ctx, at(10)))
	wantWhole("back for the second time")
	if _, err := l.ForgetGroup(ctx, group); err != nil {
		t.Fatal(err)
	}
	l.must(l.RestoreDeleted(ctx, at(10)))
	wantWhole("back in a group of its own")
	l.must(l.RestoreDeleted(ctx, at(5)))
	wantScope(at(5), "root@pam")
	wantWhole("with the other one")
}

func TestDeletedOfSeveralOwnersComeBack(t *testing.T) {
	l := newLab(t)
	l.codec = keyCodec(t)
	ctx := t.Context()
	id := l.codec.Name(chunkstore.Plain("content"))
	owners := []wire.AuthID{"root@pam!admin", "root@pam", "alice@pbs", "bob@pbs!vm"}
	for i, owner := range owners {
		l.store(at(int64(10+i)), owner)
		l.must(l.Forget(ctx, at(int64(10+i)))) // and the group with it
	}
	l.store(at(30), "joe@pbs")
	for i, owner := range owners {
		snap := at(int64(10 + i))
		err := l.RestoreDeleted(ctx, snap)
		is(t, "the group of somebody else", err, datastore.ErrOwner)
		if way := "holdfast change-owner vm/100 '" + string(owner) + "'"; err == nil || !strings.Contains(err.Error(), way) {
			t.Fatalf("%v does not say: %s", err, way)
		}
		l.must(l.SetOwner(ctx, group, owner))
		l.must(l.RestoreDeleted(ctx, snap))
		if got, err := l.content(snap, id, len("content")); err != nil || got != "content" {
			t.Errorf("%s: read back %q, %v", snap, got, err)
		}
		l.must(l.SetOwner(ctx, group, "joe@pbs"))
	}
	l.wantTrash()
}

func TestTrashIsEmptiedWhenDue(t *testing.T) {
	l, pass := timeLab(t)
	ctx := t.Context()
	for i := range int64(4) {
		l.store(at(10+i), "eve@pbs")
	}
	l.must(l.Forget(ctx, at(10)))
	pass(24 * time.Hour)
	l.must(l.Forget(ctx, at(11)))
	empty := func(all bool, want int, left ...wire.Snapshot) {
		t.Helper()
		if n, err := l.EmptyTrash(ctx, all); err != nil || n != want {
			t.Errorf("%d went, %v, want %d", n, err, want)
		}
		l.wantTrash(left...)
	}
	empty(false, 0, at(10), at(11))
	pass(6*24*time.Hour - time.Minute)
	empty(false, 0, at(10), at(11))
	pass(2 * time.Minute)
	empty(false, 1, at(11))
	is(t, "it is gone", l.RestoreDeleted(ctx, at(10)), chunkstore.ErrNotExist)
	pass(25 * time.Hour)
	// One that is protected, however that came, stays.
	mark, err := filepath.Glob(filepath.Join(l.path, ".trash", "*", "snapshot"))
	if err != nil || len(mark) != 1 {
		t.Fatal(mark, err)
	}
	l.must(os.WriteFile(filepath.Join(mark[0], ".protected"), nil, 0o600))
	empty(false, 0, at(11))
	empty(true, 0, at(11))
	is(t, "for good", l.ForgetNow(ctx, at(11)), wire.ErrProtected)
	if list, err := l.Deleted(ctx); err != nil || !list[0].Protected || list[0].Left != 0 {
		t.Errorf("%+v %v", list, err)
	}
	l.must(l.RestoreDeleted(ctx, at(11)))
	is(t, "protected", l.Forget(ctx, at(11)), wire.ErrProtected)
	l.must(l.Forget(ctx, at(12)))
	empty(true, 1)
	if left, err := os.ReadDir(filepath.Join(l.path, ".tmp")); err != nil || len(left) != 0 {
		t.Errorf("left: %v %v", left, err)
	}
}

func TestForgetNow(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	is(t, "nothing", l.ForgetNow(ctx, at(10)), chunkstore.ErrNotExist)
	l.store(at(10), "eve@pbs")
	l.must(l.SetProtected(ctx, at(10), true))
	is(t, "protected", l.ForgetNow(ctx, at(10)), wire.ErrProtected)
	l.must(l.SetProtected(ctx, at(10), false))
	l.must(l.Forget(ctx, at(10)))
	l.store(at(10), "eve@pbs")
	l.must(l.ForgetNow(ctx, at(10))) // both of them
	l.wantTrash()
	_, err := l.Owner(group)
	is(t, "the group", err, chunkstore.ErrNotExist)
	l.store(at(10), "eve@pbs")
	l.must(l.Forget(ctx, at(10)))
	l.must(l.ForgetNow(ctx, at(10)))
	l.wantTrash()
}

func TestTrashTimeOfAStore(t *testing.T) {
	for days, ok := range map[int]bool{-1: false, 0: true, 1: true, wire.TrashDaysMax: true, wire.TrashDaysMax + 1: false} {
		path := filepath.Join(t.TempDir(), "store")
		err := datastore.Create(path, datastore.CreateOptions{TrashDays: days})
		if (err == nil) != ok {
			t.Errorf("%d days: %v", days, err)
		}
		if !ok {
			continue
		}
		l := &lab{t: t, Store: open(t, path, datastore.Options{}), path: path, codec: plainCodec(t)}
		if l.TrashTime() != time.Duration(days)*24*time.Hour {
			t.Errorf("%d days: %v", days, l.TrashTime())
		}
		l.store(at(10), "eve@pbs")
		l.must(l.Forget(t.Context(), at(10)))
		if got := deleted(t, l.Store); len(got) != min(days, 1) {
			t.Errorf("%d days: %q", days, got)
		}
	}
	path := create(t)
	for config, want := range map[string]time.Duration{
		`{"holdfast-store":1,"check":1}`:                  7 * 24 * time.Hour,
		`{"holdfast-store":1,"check":1,"trash-days":3}`:   3 * 24 * time.Hour,
		`{"holdfast-store":1,"check":1,"trash-days":-3}`:  -1,
		`{"holdfast-store":1,"check":1,"trash-days":1e9}`: -1,

		`{"holdfast-store":1,"check":1,"trash-days":0,"trash-check":0}`: 0,
		`{"holdfast-store":1,"check":1,"trash-days":3,"trash-check":3}`: 3 * 24 * time.Hour,
		`{"holdfast-store":1,"check":1,"trash-days":3,"trash-check":7}`: -1,
		`{"holdfast-store":1,"check":1,"trash-dayr":7,"trash-check":7}`: -1,
	} {
		if err := os.WriteFile(filepath.Join(path, "holdfast.json"), []byte(config), 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := datastore.Open(t.Context(), path, datastore.Options{})
		if err != nil {
			is(t, config, err, chunkstore.ErrCorrupt)
			continue
		}
		if s.TrashTime() != want {
			t.Errorf("%s: %v", config, s.TrashTime())
		}
		s.Close()
	}
}

// TestNoBitOfTheTrashTimeIsTrusted flips every bit of holdfast.json: the store
// has the trash time it was made with, or says that the file is damaged.
func TestNoBitOfTheTrashTimeIsTrusted(t *testing.T) {
	path := filepath.Join(t.TempDir(), "store")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: 30}); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(path, "holdfast.json")
	whole, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	for i := range len(whole) * 8 {
		b := bytes.Clone(whole)
		b[i/8] ^= 1 << (i % 8)
		if err := os.WriteFile(file, b, 0o600); err != nil {
			t.Fatal(err)
		}
		s, err := datastore.Open(t.Context(), path, datastore.Options{ReadOnly: true})
		if err != nil {
			is(t, string(b), err, chunkstore.ErrCorrupt)
			if !strings.Contains(err.Error(), "holdfast.json") {
				t.Errorf("%s: %v does not name the file", b, err)
			}
			continue
		}
		if s.TrashTime() != 30*24*time.Hour {
			t.Errorf("%s: %v", b, s.TrashTime())
		}
		s.Close()
	}
}

// placesOf returns where a snapshot is: in the tree, and how often in the
// trash.
func placesOf(t *testing.T, s *datastore.Store, snap wire.Snapshot) (tree bool, trash int) {
	t.Helper()
	r, err := s.Open(t.Context(), snap)
	if err == nil {
		r.Close()
	}
	for _, name := range deleted(t, s) {
		if name == snap.String() {
			trash++
		}
	}
	return err == nil, trash
}

// A process is killed after each step of what moves snapshots. The next one
// finds the snapshot in one place, whole, and nothing else.
func TestKilledBetweenTreeAndTrash(t *testing.T) {
	forget := func(ctx context.Context, l *lab) error { return l.Forget(ctx, at(10)) }
	group := func(ctx context.Context, l *lab) error { _, err := l.ForgetGroup(ctx, group); return err }
	now := func(ctx context.Context, l *lab) error { return l.ForgetNow(ctx, at(10)) }
	back := func(ctx context.Context, l *lab) error { return l.RestoreDeleted(ctx, at(10)) }
	empty := func(ctx context.Context, l *lab) error { _, err := l.EmptyTrash(ctx, true); return err }
	for name, c := range map[string]struct {
		trashed bool // before
		do      func(context.Context, *lab) error
		gone    bool // it may go for good
		steps   []string
	}{
		"forget":       {false, forget, false, []string{"entry made", "entry written", "in the trash", "on its way out"}},
		"forget group": {false, group, false, []string{"entry made", "entry written", "in the trash", "on its way out"}},
		"forget now":   {false, now, true, []string{"on its way out", "on its way out"}},
		"restore":      {true, back, false, []string{"group made", "pending", "visible", "back in the tree", "entry dropped"}},
		"empty":        {true, empty, true, []string{"on its way out"}},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.store(at(10), "eve@pbs")
			if c.trashed {
				l.must(forget(t.Context(), l))
			}
			var steps, left []string
			l.OnStep(func(step string) {
				steps = append(steps, step)
				left = append(left, l.kill())
			})
			l.must(c.do(t.Context(), l))
			if !slices.Equal(steps, c.steps) {
				t.Errorf("steps %q, want %q", steps, c.steps)
			}
			for i, path := range left {
				afterKill(t, steps[i], path, c.gone)
			}
		})
	}
}

func afterKill(t *testing.T, step, path string, gone bool) {
	t.Helper()
	l := &lab{t: t, Store: open(t, path, datastore.Options{}), path: path, codec: plainCodec(t)}
	ctx := t.Context()
	tree, trash := placesOf(t, l.Store, at(10))
	if tree && trash > 0 || trash > 1 || !tree && trash == 0 && !gone {
		t.Errorf("%s: in the tree: %v, in the trash: %d times", step, tree, trash)
	}
	for _, pattern := range []string{".tmp/*", ".trash/*-*"} {
		names, err := filepath.Glob(filepath.Join(path, pattern))
		if err != nil || pattern == ".trash/*-*" && len(names) != trash || pattern == ".tmp/*" && len(names) > 0 {
			t.Errorf("%s: left behind: %q %v", step, names, err)
		}
	}
	if trash > 0 {
		l.must(l.RestoreDeleted(ctx, at(10)))
	}
	if tree || trash > 0 {
		c := seal(t, l.codec, "content")
		if got, err := l.content(at(10), c.ID, int(c.PlainSize)); err != nil || got != "content" {
			t.Errorf("%s: %q %v", step, got, err)
		}
		if owner, err := l.Owner(group); err != nil || owner != "eve@pbs" {
			t.Errorf("%s: owner %q %v", step, owner, err)
		}
		l.must(l.ForgetNow(ctx, at(10)))
	}
	l.store(at(10), "eve@pbs") // and everything goes on
}

// What cannot be understood stays, is told, and hinders nothing.
func TestDamagedTrash(t *testing.T) {
	l, pass := timeLab(t)
	ctx := t.Context()
	l.store(at(10), "eve@pbs")
	l.store(at(20), "eve@pbs")
	l.must(l.Forget(ctx, at(10)))
	l.must(l.Forget(ctx, at(20)))
	entries, err := filepath.Glob(filepath.Join(l.path, ".trash", "*-*"))
	if err != nil || len(entries) != 2 {
		t.Fatal(entries, err)
	}
	l.must(os.WriteFile(filepath.Join(entries[0], "where.json"), []byte("{}"), 0o600))
	l.must(os.WriteFile(filepath.Join(l.path, ".trash", "a note of mine"), nil, 0o600))
	l.must(os.MkdirAll(filepath.Join(l.path, ".trash", "ffffffffffffffff-00000000"), 0o700))
	list, err := l.Deleted(ctx)
	if err != nil || len(list) != 2 || list[0].Snapshot != at(20) || list[1].Damage == "" {
		t.Errorf("%+v %v", list, err)
	}
	is(t, "restore the damaged one", l.RestoreDeleted(ctx, at(10)), chunkstore.ErrNotExist)
	if files, err := l.Indexes(ctx); err != nil || len(files) != 2 || !files[0].Deleted {
		t.Errorf("%v %v", files, err)
	}
	l.must(l.RestoreDeleted(ctx, at(20)))
	pass(8 * 24 * time.Hour)
	if n, err := l.EmptyTrash(ctx, false); err != nil || n != 1 {
		t.Errorf("%d went, %v", n, err)
	}
}

// With the clock's file lost, nothing goes early: the clock goes back to the
// last removal.
func TestTrashWithoutItsClock(t *testing.T) {
	l, pass := timeLab(t)
	ctx := t.Context()
	l.store(at(10), "eve@pbs")
	l.store(at(20), "eve@pbs")
	pass(100 * 24 * time.Hour)
	l.must(l.Forget(ctx, at(10)))
	pass(3 * 24 * time.Hour)
	l.must(l.Forget(ctx, at(20)))
	pass(3 * 24 * time.Hour)
	l.must(l.Store.Close())
	l.must(os.WriteFile(filepath.Join(l.path, "clock"), []byte("holdfast clock 1\nmark 9999999999999\n"), 0o600))
	s := open(t, l.path, datastore.Options{})
	list, err := s.Deleted(ctx)
	if err != nil || len(list) != 2 {
		t.Fatal(list, err)
	}
	for i, want := range []time.Duration{7 * 24 * time.Hour, 4 * 24 * time.Hour} {
		if d := want - list[i].Left; d < 0 || d > time.Minute {
			t.Errorf("%s stays %v, want %v", list[i].Snapshot, list[i].Left, want)
		}
	}
}

func TestReadOnlyStoreLeavesTheTrash(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	l.store(at(10), "eve@pbs")
	l.must(l.Forget(ctx, at(10)))
	l.must(l.Store.Close())
	s := open(t, l.path, datastore.Options{ReadOnly: true})
	if got := deleted(t, s); len(got) != 1 {
		t.Errorf("listed: %q", got)
	}
	_, empty := s.EmptyTrash(ctx, true)
	for name, err := range map[string]error{"restore": s.RestoreDeleted(ctx, at(10)), "empty": empty, "now": s.ForgetNow(ctx, at(10))} {
		is(t, name, err, chunkstore.ErrReadOnly)
	}
}
