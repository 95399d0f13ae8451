package datastore_test

import (
	"fmt"
	"maps"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// usageOf sums what everything in a store counts, by snapshot.
func usageOf(t *testing.T, s *datastore.Store) map[string]uint64 {
	t.Helper()
	all := make(map[string]uint64)
	err := s.EachUsage(t.Context(), func(u datastore.Usage) error {
		all[fmt.Sprint(u.Snapshot, " of ", u.Owner)] += u.Bytes
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// counts has every count of a snapshot counted.
func (l *lab) counts() *atomic.Int64 {
	var n atomic.Int64
	l.OnStep(func(step string) {
		if step == "counted" {
			n.Add(1)
		}
	})
	return &n
}

// What snapshots count is found out once, however often it is asked for, and anew where
// it has changed: it is always what somebody finds who looks for the first time.
func TestUsageIsFoundOutOnce(t *testing.T) {
	l := newLab(t)
	counted := l.counts()
	const many = 20
	for i := range many {
		l.store(at(int64(10+i)), "eve@pbs")
	}
	raw := seal(t, l.codec, "a line").Blob
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, step := range []struct {
		name string
		do   func()
		anew int64 // snapshots that are counted because of it
	}{
		{"first", func() {}, many},
		{"again", func() {}, 0},
		{"of one", func() {
			list, err := l.UsageOf(t.Context(), at(11))
			if must(err); len(list) != 1 || list[0].Bytes == 0 || list[0].Owner != "eve@pbs" {
				t.Errorf("the usage of one: %+v", list)
			}
		}, 0},
		{"notes", func() { must(l.SetNotes(t.Context(), at(10), "many words")) }, 1},
		{"a verification", func() {
			must(l.SetVerifyState(t.Context(), at(10), wire.VerifyState{State: wire.VerifyOK, UPID: "UPID:x"}))
		}, 1},
		{"a log", func() { must(l.AddLog(t.Context(), at(11), raw)) }, 1},
		{"a new one", func() { l.store(at(50), "eve@pbs") }, 1},
		{"one in the trash", func() { must(l.Forget(t.Context(), at(12))) }, 1},
		{"another owner", func() { must(l.SetOwner(t.Context(), group, "bob@pbs")) }, 1},
		{"one from the trash", func() { must(l.RestoreDeleted(t.Context(), at(12))) }, 1},
		{"one that is gone", func() { must(l.ForgetNow(t.Context(), at(50))) }, 0},
		{"another of its name", func() {
			ss := l.foreign(at(50), "bob@pbs")
			l.manifestOf(ss, l.image(ss, "disk.img.didx", "content", "more content"))
			must(ss.Finish(t.Context()))
			must(ss.Close())
		}, 1},
		{"a protected one", func() { must(l.SetProtected(t.Context(), at(50), true)) }, 0},
		{"an empty trash", func() {
			must(l.Forget(t.Context(), at(13)))
			_, err := l.EmptyTrash(t.Context(), true)
			must(err)
		}, 0},
		{"nothing", func() {}, 0},
	} {
		counted.Store(0)
		step.do()
		got := usageOf(t, l.Store)
		if n := counted.Load(); n != step.anew {
			t.Errorf("%s: %d snapshots were counted, want %d", step.name, n, step.anew)
		}
		fresh := open(t, l.path, datastore.Options{ReadOnly: true})
		if want := usageOf(t, fresh); !maps.Equal(got, want) {
			t.Errorf("%s: %v, who looks for the first time finds %v", step.name, got, want)
		}
		must(fresh.Close())
	}
	killed := open(t, l.kill(), datastore.Options{})
	if got, want := usageOf(t, killed), usageOf(t, l.Store); !maps.Equal(got, want) {
		t.Errorf("after a kill: %v, before: %v", got, want)
	}
}

// Whoever counts while snapshots change and go keeps nothing that is not so any more.
func TestUsageBesideChanges(t *testing.T) {
	l := newLab(t)
	const many = 8
	for i := range many {
		l.store(at(int64(10+i)), "eve@pbs")
	}
	raw := seal(t, l.codec, "a line").Blob
	var all sync.WaitGroup
	for i := range many {
		snap := at(int64(10 + i))
		all.Go(func() { usageOf(t, l.Store) })
		all.Go(func() {
			for _, err := range []error{
				l.SetNotes(t.Context(), snap, "many words"), l.AddLog(t.Context(), snap, raw),
				l.Forget(t.Context(), snap), l.RestoreDeleted(t.Context(), snap),
			} {
				if err != nil {
					t.Error(err)
				}
			}
			if i%2 == 0 {
				if err := l.ForgetNow(t.Context(), snap); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	fresh := open(t, l.path, datastore.Options{ReadOnly: true})
	if got, want := usageOf(t, l.Store), usageOf(t, fresh); !maps.Equal(got, want) || len(want) != many/2 {
		t.Errorf("%v, who looks for the first time finds %v", got, want)
	}
}

// What is remembered of snapshots that have gone goes with them.
func TestUsageForgetsWhatHasGone(t *testing.T) {
	l := newLab(t)
	for i := range 4 {
		snap := at(int64(10 + i))
		l.store(snap, "eve@pbs")
		usageOf(t, l.Store)
		if err := l.Forget(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
		usageOf(t, l.Store)
		if err := l.ForgetNow(t.Context(), snap); err != nil {
			t.Fatal(err)
		}
	}
	if n := l.Remembered(); n != 0 {
		t.Errorf("%d snapshots are remembered of none", n)
	}
}
