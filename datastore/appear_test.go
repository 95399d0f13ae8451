package datastore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// times lists a group's snapshots, as the store and as another process sees them.
func times(t *testing.T, s *datastore.Store) []int64 {
	t.Helper()
	list, err := s.Snapshots(t.Context(), group)
	if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		t.Fatal(err)
	}
	var times []int64
	for _, info := range list {
		times = append(times, info.Snapshot.Time)
	}
	return times
}

// other opens a store that another one has open, for reading.
func other(t *testing.T, path string) *datastore.Store {
	t.Helper()
	return open(t, path, datastore.Options{ReadOnly: true})
}

// A snapshot whose name is not on the medium yet is seen by nobody, in this
// process or another, but its chunks count as used.
func TestNobodySeesWhatIsNotDurable(t *testing.T) {
	for name, do := range map[string]func(*lab){
		"finish":  func(l *lab) { l.store(at(20), "eve@pbs") },
		"restore": func(l *lab) { l.must(l.RestoreDeleted(l.t.Context(), at(20))) },
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.store(at(10), "eve@pbs")
			if name == "restore" {
				l.store(at(20), "eve@pbs")
				l.must(l.Forget(t.Context(), at(20)))
			}
			var steps []string
			l.OnStep(func(step string) {
				want := map[string][]int64{"pending": {10}, "visible": {10, 20}}[step]
				if want == nil {
					return
				}
				steps = append(steps, step)
				see := map[string]*datastore.Store{"another": other(t, l.path)}
				if name == "finish" || step == "pending" { // otherwise it waits until the sync is over
					see["the store"] = l.Store
				}
				for who, s := range see {
					if got := times(t, s); !slices.Equal(got, want) {
						t.Errorf("%s: %s lists %v, want %v", step, who, got, want)
					}
					if groups, err := s.Groups(t.Context(), ""); err != nil || groups[0].LastTime != want[len(want)-1] {
						t.Errorf("%s: %s: %+v, %v", step, who, groups, err)
					}
					_, err := s.Open(t.Context(), at(20))
					if (err == nil) != (len(want) == 2) {
						t.Errorf("%s: %s opens it: %v", step, who, err)
					}
				}
				if name == "finish" { // nothing comes back from the trash while indexes are listed
					inUse(t, l, 2)
				}
			})
			do(l)
			if !slices.Equal(steps, []string{"pending", "visible"}) {
				t.Errorf("steps %q", steps)
			}
		})
	}
}

// inUse expects so many indexes to be found and read by a collection.
func inUse(t *testing.T, l *lab, n int) {
	t.Helper()
	files, err := l.Indexes(t.Context())
	if err != nil || len(files) != n {
		t.Errorf("in use: %v, %v", files, err)
	}
	for _, f := range files {
		idx, err := l.OpenIndex(t.Context(), f)
		if err != nil {
			t.Errorf("in use: %v", err)
			continue
		}
		idx.Close()
	}
}

// What was listed is there after a crash, though the medium may only have the
// name that is not listed; whoever opens the store next puts it right, also to
// read only. What had to be tidied up is gone.
func TestPendingSnapshotSurvivesACrash(t *testing.T) {
	for _, readOnly := range []bool{false, true} {
		l := newLab(t)
		l.store(at(10), "eve@pbs")
		var left string
		l.OnStep(func(step string) {
			if step == "pending" {
				left = l.kill()
			}
		})
		l.store(at(20), "eve@pbs")
		s := open(t, left, datastore.Options{ReadOnly: readOnly})
		if got := times(t, s); !slices.Equal(got, []int64{10, 20}) {
			t.Errorf("read only %v: %v", readOnly, got)
		}
		again := &lab{t: t, Store: s, path: left, codec: l.codec}
		c := seal(t, l.codec, "content")
		if got, err := again.content(at(20), c.ID, int(c.PlainSize)); err != nil || got != "content" {
			t.Errorf("read only %v: %q %v", readOnly, got, err)
		}
		s.Close()
		if names, err := os.ReadDir(filepath.Join(left, ".tmp")); err != nil || len(names) > 0 {
			t.Errorf("read only %v: left behind: %v %v", readOnly, names, err)
		}
	}
}

// A snapshot that does not get its place is where it was, and its session can
// finish it.
func TestTakenBack(t *testing.T) {
	l := newLab(t)
	l.store(at(10), "eve@pbs")
	taken := filepath.Join(l.path, "vm", "100", ".pending-"+at(20).TimeString())
	l.must(os.MkdirAll(filepath.Join(taken, "x"), 0o700))
	ss := l.foreign(at(20), "eve@pbs")
	l.manifestOf(ss, l.image(ss, "disk.img.didx", "content"))
	if err := ss.Finish(t.Context()); err == nil {
		t.Fatal("finished")
	}
	if got := times(t, l.Store); !slices.Equal(got, []int64{10}) {
		t.Errorf("after a failure: %v", got)
	}
	l.must(os.RemoveAll(taken))
	l.must(ss.Finish(t.Context()))
	if got := times(t, l.Store); !slices.Equal(got, []int64{10, 20}) {
		t.Errorf("after another try: %v", got)
	}
}

// loop makes a name one that the disk can say nothing about: not even that it is
// not there.
func loop(t *testing.T, name string) {
	t.Helper()
	if err := errors.Join(os.RemoveAll(name), os.Symlink(filepath.Base(name), name)); err != nil {
		t.Fatal(err)
	}
}

// fault expects an error that does not say that something is not there.
func fault(t *testing.T, what string, err error) {
	t.Helper()
	if err == nil || errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("%s: %v, want that it cannot be told", what, err)
	}
}

// A disk that cannot say whether a thing is there has not said that it is gone.
func TestDiskErrorIsNotAbsence(t *testing.T) {
	t.Run("namespace", func(t *testing.T) {
		l := newLab(t)
		l.must(l.CreateNamespace(t.Context(), "a"))
		loop(t, filepath.Join(l.path, "ns", "a"))
		_, err := l.Namespaces(t.Context(), "a")
		fault(t, "namespaces", err)
		_, err = l.Groups(t.Context(), "a")
		fault(t, "groups", err)
		fault(t, "make one below", l.CreateNamespace(t.Context(), "a/b"))
		g := wire.Group{NS: "a", Type: "vm", ID: "1"}
		_, err = l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: wire.Snapshot{Group: g, Time: 10}, Foreign: true})
		fault(t, "begin", err)
		_, err = l.ForgetGroup(t.Context(), g)
		fault(t, "forget a group", err)
	})
	t.Run("trash", func(t *testing.T) {
		l := newLab(t)
		l.store(at(10), "eve@pbs")
		l.must(l.Forget(t.Context(), at(10)))
		loop(t, filepath.Join(l.entry(), "where.json"))
		fault(t, "restore", l.RestoreDeleted(t.Context(), at(10)))
		fault(t, "remove for good", l.ForgetNow(t.Context(), at(10)))
		_, err := l.Indexes(t.Context())
		fault(t, "indexes", err)
	})
}

// entry is the directory of the only entry of the trash.
func (l *lab) entry() string {
	l.t.Helper()
	entries, err := filepath.Glob(filepath.Join(l.path, ".trash", "*-*"))
	if err != nil || len(entries) != 1 {
		l.t.Fatal(entries, err)
	}
	return entries[0]
}

// A collection that looks for a snapshot which has gone to the trash, to another
// inode, and finds an entry that does not say whose it is, does not take it for
// removed.
func TestCollectionStopsOnDoubt(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, name string){
		"unreadable": loop,
		"damaged": func(t *testing.T, name string) {
			if err := os.WriteFile(name, []byte("{}"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.store(at(10), "eve@pbs")
			files, err := l.Indexes(t.Context())
			if err != nil || len(files) != 1 {
				t.Fatal(files, err)
			}
			l.must(l.Forget(t.Context(), at(10)))
			dir := filepath.Join(l.entry(), "snapshot")
			l.must(os.Rename(dir, dir+".old"))
			l.must(os.CopyFS(dir, os.DirFS(dir+".old")))
			idx, err := l.OpenIndex(t.Context(), files[0])
			if err != nil {
				t.Fatalf("found by its name: %v", err)
			}
			idx.Close()
			damage(t, filepath.Join(l.entry(), "where.json"))
			_, err = l.OpenIndex(t.Context(), files[0])
			fault(t, "open", err)
		})
	}
}

// Who is given a group is given its trash.
func TestOwnerOfTheTrash(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for _, time := range []int64{10, 20, 30} {
		l.store(at(time), "eve@pbs")
	}
	l.must(l.Forget(ctx, at(10)))
	l.must(l.SetOwner(ctx, group, "bob@pbs!pve"))
	l.must(l.Forget(ctx, at(20)))
	l.must(l.SetOwner(ctx, group, "joe@pbs"))
	l.must(l.RestoreDeleted(ctx, at(10)))
	l.must(l.RestoreDeleted(ctx, at(20)))
	if info := l.info(at(10)); info.Owner != "joe@pbs" {
		t.Errorf("%+v", info)
	}
}

// A sender does not say of its own snapshot that it has been verified.
func TestSenderDoesNotVerify(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs!put")
	m := manifest.Manifest{Type: group.Type, ID: group.ID, Time: 10, Files: []manifest.File{l.image(ss, "disk.img.didx", "content")}}
	m.SetNotes("all is well")
	l.must(m.SetVerification(manifest.Verification{State: wire.VerifyOK, UPID: "UPID:x"}))
	l.must(m.SetUploadStats(manifest.UploadStats{Count: 7}))
	raw, err := m.Blob()
	l.must(err)
	l.must(ss.Blob(t.Context(), wire.ManifestName, raw))
	l.must(ss.Finish(t.Context()))
	if info := l.info(at(10)); info.Verify != nil || info.Notes != "all is well" {
		t.Errorf("%+v", info)
	}
	r, err := l.Open(t.Context(), at(10))
	l.must(err)
	defer r.Close()
	raw, err = r.Blob(t.Context(), wire.ManifestName)
	l.must(err)
	got, err := manifest.Open(raw)
	l.must(err)
	if len(got.Unprotected) != 1 {
		t.Errorf("what the server owns: %s", got.Unprotected)
	}
}
