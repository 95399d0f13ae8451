package datastore_test

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// lockLab is a store with vm/100 at 10, 20 and 30, of which 10 is in the trash,
// and the same in vm/200.
func lockLab(t *testing.T) *lab {
	t.Helper()
	l := newLab(t)
	for _, snap := range []wire.Snapshot{at(10), at(20), at(30)} {
		l.store(snap, "eve@pbs")
		l.store(elsewhere(snap), "eve@pbs")
	}
	l.must(l.Forget(t.Context(), at(10)))
	l.must(l.Forget(t.Context(), elsewhere(at(10))))
	return l
}

func elsewhere(s wire.Snapshot) wire.Snapshot {
	s.Group.ID = "200"
	return s
}

// times lists a group.
func (l *lab) times() (times []int64) {
	l.t.Helper()
	list, err := l.Snapshots(l.t.Context(), group)
	if err != nil {
		l.t.Error(err)
	}
	for _, s := range list {
		if s.Damage != "" {
			l.t.Errorf("%s: %s", s.Snapshot, s.Damage)
		}
		times = append(times, s.Snapshot.Time)
	}
	return times
}

func (l *lab) wantTimes(want ...int64) {
	l.t.Helper()
	if got := l.times(); !slices.Equal(got, want) {
		l.t.Errorf("snapshots at %d, want %d", got, want)
	}
}

func (l *lab) read(snap wire.Snapshot) wire.Reader {
	l.t.Helper()
	r, err := l.Open(l.t.Context(), snap)
	if err != nil {
		l.t.Fatal(err)
	}
	return r
}

// readable fails the test unless a snapshot can be read.
func (l *lab) readable(r wire.Reader) {
	l.t.Helper()
	if _, err := r.Blob(l.t.Context(), wire.ManifestName); err != nil {
		l.t.Error(err)
	}
	c := seal(l.t, l.codec, "content")
	if _, err := r.Get(l.t.Context(), c.Ref()); err != nil {
		l.t.Error(err)
	}
}

// beside runs two things at once, each many times. One that returns an error of
// these has been refused, which is right; how often it was not is returned.
func beside(t *testing.T, first, second func() error, may ...error) (done [2]int) {
	t.Helper()
	var wg sync.WaitGroup
	for i, do := range []func() error{first, second} {
		wg.Go(func() {
			for range 12 {
				err := do()
				if err == nil {
					done[i]++
				} else if !slices.ContainsFunc(may, func(e error) bool { return errors.Is(err, e) }) {
					t.Errorf("%d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	return done
}

// The table of the package comment, one test for each cell.
func TestWhoMayRunBesideWhom(t *testing.T) {
	for name, cell := range map[string]func(*testing.T, *lab){
		"list list": listBesideList, "list read": listBesideRead, "list session": listBesideSession,
		"list change": listBesideChange, "list forget": listBesideForget, "list restore": listBesideRestore,
		"read read": readBesideRead, "read session": readBesideSession, "read change": readBesideChange,
		"read forget": readBesideForget, "read restore": readBesideRestore,
		"session session": sessionBesideSession, "session change": sessionBesideChange,
		"session forget": sessionBesideForget, "session restore": sessionBesideRestore,
		"change change": changeBesideChange, "change forget": changeBesideForget, "change restore": changeBesideRestore,
		"forget forget": forgetBesideForget, "forget restore": forgetBesideRestore, "restore restore": restoreBesideRestore,
	} {
		t.Run(name, func(t *testing.T) { cell(t, lockLab(t)) })
	}
}

func listBesideList(t *testing.T, l *lab) {
	list := func() error { l.wantTimes(20, 30); return nil }
	beside(t, list, list)
}

func listBesideRead(_ *testing.T, l *lab) {
	r := l.read(at(20))
	defer r.Close()
	l.wantTimes(20, 30)
	l.readable(r)
}

func listBesideSession(_ *testing.T, l *lab) {
	ss := l.foreign(at(40), "eve@pbs")
	l.wantTimes(20, 30)
	l.finish(ss)
	l.wantTimes(20, 30, 40)
}

func listBesideChange(t *testing.T, l *lab) {
	done := beside(t, func() error { l.wantTimes(20, 30); return nil },
		func() error { return l.SetNotes(t.Context(), at(20), "text") })
	if done != [2]int{12, 12} {
		t.Errorf("went well: %d", done)
	}
}

func listBesideForget(t *testing.T, l *lab) {
	for _, snap := range []wire.Snapshot{at(40), at(50), at(60)} {
		l.store(snap, "eve@pbs")
	}
	gone := []wire.Snapshot{at(20), at(40), at(50)}
	beside(t, func() error {
		if got := l.times(); !slices.Contains(got, 30) || !slices.Contains(got, 60) {
			t.Errorf("listed: %d", got)
		}
		return nil
	}, func() error {
		if len(gone) == 0 {
			return nil
		}
		snap := gone[0]
		gone = gone[1:]
		return l.Forget(t.Context(), snap)
	})
	l.wantTimes(30, 60)
}

func listBesideRestore(t *testing.T, l *lab) {
	beside(t, func() error {
		if got := l.times(); !slices.Contains(got, 20) || !slices.Contains(got, 30) {
			t.Errorf("listed: %d", got)
		}
		deleted(t, l.Store)
		return nil
	}, func() error { return l.RestoreDeleted(t.Context(), at(10)) }, chunkstore.ErrNotExist)
	l.wantTimes(10, 20, 30)
}

func readBesideRead(_ *testing.T, l *lab) {
	a, b := l.read(at(20)), l.read(at(20))
	l.readable(a)
	a.Close()
	l.readable(b)
	b.Close()
}

func readBesideSession(t *testing.T, l *lab) {
	r := l.read(at(30))
	ss := l.foreign(at(40), "eve@pbs")
	base, err := ss.Previous(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	l.readable(base)
	l.readable(r)
	l.finish(ss)
	l.readable(r)
	base.Close()
	r.Close()
}

func readBesideChange(t *testing.T, l *lab) {
	r := l.read(at(20))
	defer r.Close()
	l.must(l.SetNotes(t.Context(), at(20), "text"))
	l.must(l.SetProtected(t.Context(), at(20), true))
	l.must(l.SetOwner(t.Context(), group, "bob@pbs"))
	l.readable(r)
}

func readBesideForget(t *testing.T, l *lab) {
	ctx := t.Context()
	r := l.read(at(20))
	is(t, "what is read", l.Forget(ctx, at(20)), wire.ErrBusy)
	is(t, "what is read, for good", l.ForgetNow(ctx, at(20)), wire.ErrBusy)
	_, err := l.ForgetGroup(ctx, group)
	is(t, "its group", err, wire.ErrBusy)
	l.wantTimes(20)
	l.readable(r)
	r.Close()
	l.must(l.Forget(ctx, at(20)))
	_, err = l.Open(ctx, at(20))
	is(t, "what is gone", err, chunkstore.ErrNotExist)
}

func readBesideRestore(t *testing.T, l *lab) {
	r := l.read(at(20))
	defer r.Close()
	l.must(l.RestoreDeleted(t.Context(), at(10)))
	is(t, "what is read", l.RestoreDeleted(t.Context(), at(20)), chunkstore.ErrNotExist)
	l.readable(r)
	back := l.read(at(10))
	defer back.Close()
	l.readable(back)
}

func sessionBesideSession(t *testing.T, l *lab) {
	o := datastore.SessionOptions{Snapshot: at(50), Owner: "eve@pbs", Foreign: true}
	ss := l.foreign(at(40), "eve@pbs")
	_, err := l.BeginSession(t.Context(), o)
	is(t, "in one group", err, wire.ErrBusy)
	other := l.foreign(elsewhere(at(40)), "eve@pbs")
	l.finish(ss)
	l.finish(other)
	l.store(at(50), "eve@pbs")
}

func sessionBesideChange(t *testing.T, l *lab) {
	ss := l.foreign(at(40), "eve@pbs")
	l.must(l.SetNotes(t.Context(), at(30), "of the base"))
	l.must(l.SetProtected(t.Context(), at(30), true))
	l.must(l.SetGroupNotes(t.Context(), group, "text"))
	l.finish(ss)
	if info := l.info(at(30)); info.Notes != "of the base" || !info.Protected {
		t.Errorf("%+v", info)
	}
}

func sessionBesideForget(t *testing.T, l *lab) {
	ctx := t.Context()
	ss := l.foreign(at(40), "eve@pbs")
	is(t, "the base", l.Forget(ctx, at(30)), wire.ErrBusy)
	is(t, "the base, for good", l.ForgetNow(ctx, at(30)), wire.ErrBusy)
	_, err := l.ForgetGroup(ctx, group)
	is(t, "the group", err, wire.ErrBusy)
	l.must(l.Forget(ctx, at(20)))
	_, err = l.ForgetGroup(ctx, elsewhere(at(10)).Group)
	l.must(err)
	l.finish(ss)
	ss.Close()
	l.must(l.Forget(ctx, at(30)))
	l.wantTimes(40)
}

func sessionBesideRestore(t *testing.T, l *lab) {
	ctx := t.Context()
	ss := l.foreign(at(40), "eve@pbs")
	is(t, "in its group", l.RestoreDeleted(ctx, at(10)), wire.ErrBusy)
	l.must(l.RestoreDeleted(ctx, elsewhere(at(10))))
	l.finish(ss)
	l.must(l.RestoreDeleted(ctx, at(10)))
	l.must(l.Forget(ctx, at(10)))
	ss = l.foreign(at(50), "eve@pbs")
	if n, err := l.EmptyTrash(ctx, true); err != nil || n != 1 {
		t.Errorf("%d went, %v", n, err)
	}
	l.finish(ss)
}

func changeBesideChange(t *testing.T, l *lab) {
	ctx := t.Context()
	beside(t, func() error { return l.SetNotes(ctx, at(20), "text") }, func() error {
		return l.SetVerifyState(ctx, at(20), wire.VerifyState{State: wire.VerifyOK, UPID: "UPID:x"})
	})
	if info := l.info(at(20)); info.Notes != "text" || info.Verify == nil {
		t.Errorf("%+v", info)
	}
}

func changeBesideForget(t *testing.T, l *lab) {
	ctx := t.Context()
	done := beside(t, func() error { return l.SetNotes(ctx, at(20), "text") },
		func() error { return l.Forget(ctx, at(20)) }, chunkstore.ErrNotExist)
	if done[1] != 1 {
		t.Errorf("forgotten %d times", done[1])
	}
	l.wantTimes(30)
	is(t, "what is gone", l.SetNotes(ctx, at(20), "text"), chunkstore.ErrNotExist)
	l.must(l.RestoreDeleted(ctx, at(20)))
	if notes := l.info(at(20)).Notes; (notes == "text") != (done[0] > 0) {
		t.Errorf("%d changes, and the notes are %q", done[0], notes)
	}
}

func changeBesideRestore(t *testing.T, l *lab) {
	ctx := t.Context()
	done := beside(t, func() error { return l.SetNotes(ctx, at(10), "text") },
		func() error { return l.RestoreDeleted(ctx, at(10)) }, chunkstore.ErrNotExist)
	if notes := l.info(at(10)).Notes; done[1] != 1 || (notes == "text") != (done[0] > 0) {
		t.Errorf("%d came back; %d changes, and the notes are %q", done[1], done[0], notes)
	}
}

func forgetBesideForget(t *testing.T, l *lab) {
	forget := func() error { return l.Forget(t.Context(), at(20)) }
	if done := beside(t, forget, forget, chunkstore.ErrNotExist); done[0]+done[1] != 1 {
		t.Errorf("forgotten %d times", done)
	}
	l.wantTrash(at(10), at(20), elsewhere(at(10)))
	for i := range int64(10) { // the last two take their group with them
		l.store(at(100+2*i), "eve@pbs")
		l.store(at(101+2*i), "eve@pbs")
		if done := beside(t, func() error { return l.Forget(t.Context(), at(100+2*i)) },
			func() error { return l.Forget(t.Context(), at(101+2*i)) }, chunkstore.ErrNotExist); done != [2]int{1, 1} {
			t.Errorf("forgotten %d times", done)
		}
		if i == 0 {
			l.must(l.Forget(t.Context(), at(30)))
		}
	}
}

// A snapshot that moves all the time is in one place at any time, and whoever
// lists indexes sees it.
func forgetBesideRestore(t *testing.T, l *lab) {
	ctx := t.Context()
	stop := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-stop:
				return
			default:
			}
			files, err := l.Indexes(ctx)
			if err != nil {
				t.Error(err)
			}
			if !slices.ContainsFunc(files, func(f datastore.IndexFile) bool { return f.Snapshot == at(10) }) {
				t.Error("missed")
			}
			for _, f := range files {
				idx, err := l.OpenIndex(ctx, f)
				if err != nil {
					t.Errorf("%s: %v", f, err)
					continue
				}
				idx.Close()
			}
		}
	})
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		beside(t, func() error { return l.Forget(ctx, at(10)) }, func() error { return l.RestoreDeleted(ctx, at(10)) },
			chunkstore.ErrNotExist)
		if tree, trash := placesOf(t, l.Store, at(10)); tree != (trash == 0) || trash > 1 {
			t.Errorf("in the tree: %v, in the trash: %d times", tree, trash)
		}
	}
	close(stop)
	wg.Wait()
}

func restoreBesideRestore(t *testing.T, l *lab) {
	restore := func() error { return l.RestoreDeleted(t.Context(), at(10)) }
	if done := beside(t, restore, restore, chunkstore.ErrNotExist); done[0]+done[1] != 1 {
		t.Errorf("came back %d times", done)
	}
	l.wantTimes(10, 20, 30)
	l.must(l.Forget(t.Context(), at(10)))
	done := beside(t, restore, func() error { _, err := l.EmptyTrash(t.Context(), true); return err }, chunkstore.ErrNotExist)
	if tree, trash := placesOf(t, l.Store, at(10)); trash != 0 || tree != (done[0] == 1) {
		t.Errorf("in the tree: %v, in the trash: %d times, came back %d times", tree, trash, done[0])
	}
}

// The last snapshot takes its group with it, but never one that a backup has
// just begun in.
func TestLastSnapshotGoesWhileBackupsBegin(t *testing.T) {
	l := newLab(t)
	ctx := t.Context()
	for i := range int64(20) {
		l.store(at(10+i), "eve@pbs")
		l.must(l.SetVerifyState(ctx, at(10+i), wire.VerifyState{State: wire.VerifyFailed})) // it is no base
		var wg sync.WaitGroup
		wg.Go(func() {
			// The session has a look at it first.
			if err := l.Forget(ctx, at(10+i)); err != nil && !errors.Is(err, wire.ErrBusy) {
				t.Error(err)
			}
		})
		ss, err := l.BeginSession(ctx, datastore.SessionOptions{Snapshot: at(1000), Owner: "eve@pbs", Foreign: true})
		if err != nil {
			t.Fatal(err)
		}
		wg.Wait()
		if owner, err := l.Owner(group); err != nil || owner != "eve@pbs" {
			t.Errorf("a running backup has lost its group: %q %v", owner, err)
		}
		l.must(ss.Close())
		l.must(l.ForgetNow(ctx, at(10+i)))
		if _, err := l.ForgetGroup(ctx, group); err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
			t.Error(err)
		}
	}
}
