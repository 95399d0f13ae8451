package prune

import (
	"context"
	"errors"
	"fmt"
	"math"
	"slices"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// fakeStore holds one group and notes what is forgotten.
type fakeStore struct {
	list   []wire.SnapshotInfo
	refuse map[int64]error
	gone   []int64
	after  func() // called after each Forget
}

func (s *fakeStore) Snapshots(_ context.Context, g wire.Group) ([]wire.SnapshotInfo, error) {
	if g.ID != "100" {
		return nil, chunkstore.ErrNotExist
	}
	return s.list, nil
}

func (s *fakeStore) Forget(_ context.Context, snap wire.Snapshot) error {
	if s.after != nil {
		defer s.after()
	}
	if err := s.refuse[snap.Time]; err != nil {
		return err
	}
	s.gone = append(s.gone, snap.Time)
	return nil
}

var group = wire.Group{Type: "vm", ID: "100"}

func newFake() *fakeStore {
	s := &fakeStore{refuse: map[int64]error{}}
	for at := int64(1); at <= 6; at++ {
		s.list = append(s.list, wire.SnapshotInfo{Snapshot: wire.Snapshot{Group: group, Time: at}, Protected: at == 3})
	}
	return s
}

func TestGroup(t *testing.T) {
	for _, tc := range []struct {
		name string
		o    Options
		gone []int64
	}{
		{"nothing asked", Options{}, nil},
		{"last", Options{Keep: Keep{Last: 2}}, []int64{1, 2, 4}},
		{"dry run", Options{Keep: Keep{Last: 2}, DryRun: true}, nil},
	} {
		s := newFake()
		tc.o.Location = time.UTC
		tc.o.Warn = func(err error) { t.Errorf("%s: %v", tc.name, err) }
		got, err := Group(context.Background(), s, group, tc.o)
		if err != nil || !slices.Equal(s.gone, tc.gone) {
			t.Errorf("%s: %v is gone, %v; want %v", tc.name, s.gone, err, tc.gone)
		}
		want := Select(candidatesOf(s.list), tc.o.Keep, time.UTC, math.MaxInt64)
		if !slices.Equal(got, want) || len(got) != 6 {
			t.Errorf("%s: %+v", tc.name, got)
		}
	}
}

func candidatesOf(list []wire.SnapshotInfo) []Candidate {
	var out []Candidate
	for _, s := range list {
		out = append(out, Candidate{Time: s.Snapshot.Time, Protected: s.Protected})
	}
	return out
}

func TestGroupGoesOn(t *testing.T) {
	s := newFake()
	s.refuse[1] = wire.ErrBusy
	s.refuse[4] = fmt.Errorf("snapshot: %w", wire.ErrProtected) // since the listing
	var warned []error
	got, err := Group(context.Background(), s, group, Options{Keep: Keep{Last: 1}, Warn: func(err error) { warned = append(warned, err) }})
	if err != nil || !slices.Equal(s.gone, []int64{2, 5}) {
		t.Errorf("%v is gone, %v", s.gone, err)
	}
	if len(warned) != 2 || !errors.Is(warned[0], wire.ErrBusy) || !errors.Is(warned[1], wire.ErrProtected) {
		t.Errorf("warned of %v", warned)
	}
	if got[0].Keep || got[3].Keep || !got[2].Keep {
		t.Errorf("%+v", got)
	}
	if _, err := Group(context.Background(), s, group, Options{Keep: Keep{Last: 1}}); err != nil {
		t.Errorf("without Warn: %v", err)
	}
}

func TestGroupStops(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	s := newFake()
	s.after = cancel
	got, err := Group(ctx, s, group, Options{Keep: Keep{Last: 1}})
	if !errors.Is(err, context.Canceled) || len(got) != 6 || !slices.Equal(s.gone, []int64{1}) {
		t.Errorf("%v is gone, %v", s.gone, err)
	}
	if _, err := Group(context.Background(), s, wire.Group{Type: "vm", ID: "9"}, Options{}); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}

// A snapshot that cannot be restored takes nobody's place and stays.
func TestGroupSetsDamageAside(t *testing.T) {
	s := newFake()
	s.list[5].Damage = "index.json.blob: not found"
	list, err := Group(t.Context(), s, group, Options{Keep: Keep{Last: 1, Daily: 1}, Location: time.UTC})
	if err != nil || !slices.Equal(s.gone, []int64{1, 2, 4}) {
		t.Errorf("gone are %v, %v", s.gone, err)
	}
	if d := list[5]; !d.Keep || d.Reason != reasonDamaged {
		t.Errorf("decided: %+v", d)
	}
}

// A disk without room for the trash fails the pruning, wherever it is done: the rest is
// removed, and who has asked is told.
func TestGroupTellsOfAFullDisk(t *testing.T) {
	s := newFake()
	s.refuse[2] = fmt.Errorf("make room in the trash: %w", chunkstore.ErrNoSpace)
	s.refuse[4] = wire.ErrBusy // passes, and is for the log
	list, err := Group(t.Context(), s, group, Options{Keep: Keep{Last: 1}})
	if !errors.Is(err, chunkstore.ErrNoSpace) || len(list) != 6 {
		t.Errorf("%d decisions, %v", len(list), err)
	}
	if want := []int64{1, 5}; !slices.Equal(s.gone, want) {
		t.Errorf("gone are %v, want %v", s.gone, want)
	}
	delete(s.refuse, 2)
	if _, err := Group(t.Context(), s, group, Options{Keep: Keep{Last: 1}}); err != nil {
		t.Errorf("a busy one: %v", err)
	}
}

// walked has many snapshots, which nobody may want at once.
type walked struct {
	*testing.T
	snapshots []wire.SnapshotInfo
	removed   []int64
}

func (w *walked) Snapshots(context.Context, wire.Group) ([]wire.SnapshotInfo, error) {
	w.Error("all snapshots are in memory at once")
	return w.snapshots, nil
}

func (w *walked) EachSnapshot(_ context.Context, _ wire.Group, visit func(wire.SnapshotInfo) error) error {
	for _, s := range w.snapshots {
		if err := visit(s); err != nil {
			return err
		}
	}
	return nil
}

func (w *walked) Forget(_ context.Context, s wire.Snapshot) error {
	w.removed = append(w.removed, s.Time)
	return nil
}

func (w *walked) ForgetNow(ctx context.Context, s wire.Snapshot) error { return w.Forget(ctx, s) }

// The notes and files of all snapshots of a group are never in memory at a time where the
// store can tell of one after the other.
func TestGroupWalksThroughManySnapshots(t *testing.T) {
	g := wire.Group{Type: "vm", ID: "1"}
	for name, of := range map[string]func(*walked) Store{
		"to the trash": func(w *walked) Store { return w },
		"for good":     func(w *walked) Store { return ForGood(w) },
	} {
		t.Run(name, func(t *testing.T) {
			w := &walked{T: t}
			for i := range 3 {
				w.snapshots = append(w.snapshots, wire.SnapshotInfo{Snapshot: wire.Snapshot{Group: g, Time: int64(1000 + i)}})
			}
			if _, err := Group(t.Context(), of(w), g, Options{Keep: Keep{Last: 1}}); err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(w.removed, []int64{1000, 1001}) {
				t.Errorf("removed %v", w.removed)
			}
		})
	}
}
