package datastore_test

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// today is the time of the stores of these tests, in Unix seconds.
const today = int64(1_800_000_000)

// datedLab is a lab whose clock stands until it is set.
func datedLab(t *testing.T) (l *lab, now *time.Time) {
	t.Helper()
	clock := time.Unix(today, 0)
	path := create(t)
	s := open(t, path, datastore.Options{Now: func() time.Time { return clock }})
	return &lab{t: t, Store: s, path: path, codec: plainCodec(t)}, &clock
}

func (l *lab) arrivedFile(snap wire.Snapshot) string {
	return filepath.Join(l.path, snap.Group.Type, snap.Group.ID, snap.TimeString(), datastore.ArrivedName)
}

// names are the times of a group in the order in which they are listed.
func (l *lab) names() (times []int64) {
	l.t.Helper()
	list, err := l.Snapshots(l.t.Context(), group)
	if err != nil {
		l.t.Fatal(err)
	}
	for _, i := range list {
		times = append(times, i.Snapshot.Time)
	}
	return times
}

// TestFutureNameWinsNothing has a snapshot of the next century: it is neither the
// newest one for ever, nor does it keep others out.
func TestFutureNameWinsNothing(t *testing.T) {
	l, now := datedLab(t)
	future := today + 1_000_000_000
	l.store(at(today-100), wire.RootUser)
	l.store(at(future), wire.RootUser)
	if info := l.info(at(future)); info.Arrived != today || !info.Dated().Ahead() {
		t.Errorf("arrived at %d: %+v", info.Arrived, info.Dated())
	}
	l.store(at(today), wire.RootUser)
	if groups, err := l.Groups(t.Context(), ""); err != nil || groups[0].LastTime != today {
		t.Errorf("the newest: %+v, %v", groups, err)
	}
	*now = now.Add(time.Hour)
	l.store(at(today+3000), wire.RootUser)
	if got, want := l.names(), []int64{today - 100, future, today, today + 3000}; !slices.Equal(got, want) {
		t.Errorf("listed %v, want %v", got, want)
	}
	groups, err := l.Groups(t.Context(), "")
	if err != nil || len(groups) != 1 || groups[0].LastTime != today+3000 {
		t.Errorf("the newest: %+v, %v", groups, err)
	}
	next := l.foreign(at(today+3001), wire.RootUser)
	if base, ok := next.Base(); !ok || base != at(today+3000) {
		t.Errorf("builds on %v, %v", base, ok)
	}
	if err := next.Close(); err != nil {
		t.Fatal(err)
	}
	for _, older := range []int64{today - 200, today + 3000} {
		_, err := l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(older)})
		is(t, "one that is not newer", err, wire.ErrExists)
		is(t, "one that is not newer", err, datastore.ErrOlder)
	}
	_, err = l.BeginSession(t.Context(), datastore.SessionOptions{Snapshot: at(future)})
	if !errors.Is(err, wire.ErrExists) || errors.Is(err, datastore.ErrOlder) {
		t.Errorf("the name of the future again: %v", err)
	}
}

// TestImportedOnesAreOfTheirNames stores snapshots of long ago in their order.
func TestImportedOnesAreOfTheirNames(t *testing.T) {
	l, _ := datedLab(t)
	for _, name := range []int64{1000, 2000, 3000} {
		l.store(at(name), wire.RootUser)
	}
	if got := l.names(); !slices.Equal(got, []int64{1000, 2000, 3000}) {
		t.Errorf("listed %v", got)
	}
	if d := l.info(at(2000)).Dated(); d.Effective() != 2000 || d.Arrived != today || d.Ahead() || !d.Misdated() {
		t.Errorf("%+v", d)
	}
}

// TestLongBackupIsNotMisdated has a session that takes a day.
func TestLongBackupIsNotMisdated(t *testing.T) {
	l, now := datedLab(t)
	ss := l.foreign(at(today), wire.RootUser)
	*now = now.Add(24 * time.Hour)
	l.finish(ss)
	if d := l.info(at(today)).Dated(); d.Misdated() || d.Arrived != today {
		t.Errorf("%+v", d)
	}
}

// TestArrivalStays goes through the trash, and through a new process.
func TestArrivalStays(t *testing.T) {
	l, now := datedLab(t)
	future := at(today + 5000)
	l.store(at(today-10), wire.RootUser)
	l.store(future, wire.RootUser)
	before, err := os.ReadFile(l.arrivedFile(future))
	if err != nil {
		t.Fatal(err)
	}
	*now = now.Add(48 * time.Hour)
	if err := l.Forget(t.Context(), future); err != nil {
		t.Fatal(err)
	}
	if err := l.RestoreDeleted(t.Context(), future); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(l.arrivedFile(future))
	if err != nil || string(after) != string(before) {
		t.Errorf("after its return: %q, %v; before: %q", after, err, before)
	}
	if d := l.info(future).Dated(); d.Arrived != today || !d.Ahead() {
		t.Errorf("%+v", d)
	}
}

// TestLostArrival takes the stamp away, or puts another there: the snapshot counts as
// of its name, the group goes on, and a repair writes down what is known.
func TestLostArrival(t *testing.T) {
	for name, harm := range map[string]func(t *testing.T, l *lab, file string){
		"lost":        func(t *testing.T, _ *lab, file string) { try(t, os.Remove(file)) },
		"empty":       func(t *testing.T, _ *lab, file string) { try(t, os.WriteFile(file, nil, 0o600)) },
		"huge":        func(t *testing.T, _ *lab, file string) { try(t, os.Truncate(file, 1<<40)) },
		"a directory": func(t *testing.T, _ *lab, file string) { try(t, os.Remove(file), os.Mkdir(file, 0o700)) },
		"that of others": func(t *testing.T, l *lab, file string) {
			try(t, os.Remove(file), os.Link(l.arrivedFile(at(1000)), file))
		},
	} {
		t.Run(name, func(t *testing.T) {
			l, now := datedLab(t)
			future := at(today + 1_000_000)
			for _, s := range []wire.Snapshot{at(1000), at(2000), future} {
				l.store(s, wire.RootUser)
			}
			harm(t, l, l.arrivedFile(at(2000)))
			harm(t, l, l.arrivedFile(future))
			if i := l.info(at(2000)); !i.Undated || i.Damage != "" || i.Dated().Effective() != 2000 || i.Dated().Misdated() {
				t.Errorf("%+v", i)
			}
			if i := l.info(future); !i.Undated || i.Dated().Effective() != today {
				t.Errorf("%+v counts as of %d", i, i.Dated().Effective())
			}
			if st, err := l.Status(t.Context()); err != nil || st.Undated != 2 || st.Snapshots != 3 {
				t.Errorf("%+v, %v", st, err)
			}
			*now = now.Add(time.Hour)
			l.store(at(today+3600), wire.RootUser) // nobody is kept out
			if name == "a directory" {
				return // nothing that anything but a person has made
			}
			for _, s := range []wire.Snapshot{at(1000), at(2000), future} {
				try(t, l.RepairArrival(t.Context(), s))
			}
			if i := l.info(at(1000)); i.Undated || i.Arrived != today {
				t.Errorf("what was whole was changed: %+v", i)
			}
			if i := l.info(at(2000)); i.Undated || i.Arrived != 2000 {
				t.Errorf("%+v", i)
			}
			if i := l.info(future); i.Undated || i.Arrived != today+3600 || !i.Dated().Ahead() {
				t.Errorf("%+v", i)
			}
		})
	}
}

// try fails the test for the first error.
func try(t *testing.T, errs ...error) {
	t.Helper()
	if err := errors.Join(errs...); err != nil {
		t.Fatal(err)
	}
}

// TestNoSnapshotWithoutItsArrival kills a session after each of its last steps.
func TestNoSnapshotWithoutItsArrival(t *testing.T) {
	l, _ := datedLab(t)
	l.store(at(1000), wire.RootUser)
	killed := map[string]string{} // paths of what is left, by the step
	l.OnStep(func(name string) { killed[name] = l.kill() })
	l.store(at(today+9000), wire.RootUser)
	l.OnStep(nil)
	for _, step := range []string{"stamped", "pending", "visible"} {
		if killed[step] == "" {
			t.Fatalf("there is no step %q", step)
		}
	}
	seen := 0
	for step, path := range killed {
		s := open(t, path, datastore.Options{})
		list, err := s.Snapshots(t.Context(), group)
		if err != nil {
			t.Fatalf("killed when %s: %v", step, err)
		}
		for _, i := range list {
			seen++
			if i.Undated || i.Arrived != today {
				t.Errorf("killed when %s: %+v", step, i)
			}
		}
	}
	if seen < len(killed)+2 {
		t.Errorf("%d snapshots of %d kills", seen, len(killed))
	}
}
