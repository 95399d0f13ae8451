package gc_test

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

// newStore makes a store that removes snapshots at once, or that keeps them for
// some days.
func newStore(t *testing.T, trashDays int) (*datastore.Store, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	if err := datastore.Create(path, datastore.CreateOptions{TrashDays: trashDays}); err != nil {
		t.Fatal(err)
	}
	return open(t, path), path
}

func open(t *testing.T, path string) *datastore.Store {
	t.Helper()
	s, err := datastore.Open(t.Context(), path, datastore.Options{})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func snapshot(ns wire.Namespace, time int64) wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{NS: ns, Type: "vm", ID: "100"}, Time: time}
}

func backup(t *testing.T, s *datastore.Store, snap wire.Snapshot, chunks ...string) {
	t.Helper()
	wiretest.Store(t, s, wiretest.Content{Snapshot: snap, Chunks: chunks})
}

// restorable reads every chunk of a snapshot.
func restorable(t *testing.T, s *datastore.Store, snap wire.Snapshot) {
	t.Helper()
	files, err := s.Indexes(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range files {
		if f.Snapshot != snap {
			continue
		}
		idx, err := s.OpenIndex(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		for e, err := range idx.All(0) {
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Check(t.Context(), s.Scope(t.Context(), f).Key(e)); err != nil {
				t.Errorf("%s: %v", f, err)
			}
		}
		idx.Close()
	}
}

// reopened closes and kills the session's pack, so that it is sealed and may be
// swept.
func reopened(t *testing.T, s *datastore.Store, path string) *datastore.Store {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(path, ".chunks", "epoch")); err != nil {
		t.Fatal(err)
	}
	return open(t, path)
}

func TestCollect(t *testing.T) {
	s, path := newStore(t, 0)
	backup(t, s, snapshot("", 10), "one", "two", "three")
	s = reopened(t, s, path)
	backup(t, s, snapshot("", 20), "two", "four", "five")
	backup(t, s, snapshot("a/b", 30), "six")
	s = reopened(t, s, path)
	defer func() { s.Close() }()
	if err := s.Forget(t.Context(), snapshot("", 10)); err != nil {
		t.Fatal(err)
	}
	before, err := s.Status(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	dry, err := gc.Collect(t.Context(), s, gc.Options{DryRun: true})
	if err != nil || dry.ChunksRemoved != 2 || dry.References != 4 || dry.Indexes != 2 {
		t.Errorf("dry run: %+v, %v", dry, err)
	}
	var p gc.Progress
	r, err := gc.Collect(t.Context(), s, gc.Options{Progress: &p})
	if err != nil || r.ChunksRemoved != 2 || r.PacksRewritten != 1 {
		t.Errorf("%+v, %v", r, err)
	}
	if p.IndexesRun.Load() != 2 || p.PacksDone.Load() != 1 {
		t.Errorf("progress: %d indexes, %d packs", p.IndexesRun.Load(), p.PacksDone.Load())
	}
	after, err := s.Status(t.Context())
	if err != nil || after.Chunks != before.Chunks-2 {
		t.Errorf("chunks: %d before, %d after, %v", before.Chunks, after.Chunks, err)
	}
	restorable(t, s, snapshot("", 20))
	restorable(t, s, snapshot("a/b", 30))
}

func TestCollectStopsOnDoubt(t *testing.T) {
	s, path := newStore(t, 0)
	backup(t, s, snapshot("", 10), "one", "two")
	s = reopened(t, s, path)
	defer func() { s.Close() }()
	dir := filepath.Join(path, "vm", "100", "1970-01-01T00:00:10Z")
	names, err := filepath.Glob(filepath.Join(dir, "*.?idx"))
	if err != nil || len(names) != 1 {
		t.Fatal(names, err)
	}
	whole, err := os.ReadFile(names[0])
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(names[0], whole[:len(whole)-7], 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := gc.Collect(t.Context(), s, gc.Options{AllowEmpty: true}); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("with a damaged index: %v", err)
	}
	if err := os.RemoveAll(filepath.Join(path, "vm")); err != nil {
		t.Fatal(err)
	}
	if _, err := gc.Collect(t.Context(), s, gc.Options{}); !errors.Is(err, gc.ErrNothingFound) {
		t.Errorf("without snapshots: %v", err)
	}
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := gc.Collect(cancelled, s, gc.Options{AllowEmpty: true}); !errors.Is(err, context.Canceled) {
		t.Errorf("interrupted: %v", err)
	}
	st, err := s.Status(t.Context())
	if err != nil || st.Chunks != 2 {
		t.Errorf("%d chunks are left, %v", st.Chunks, err)
	}
	if r, err := gc.Collect(t.Context(), s, gc.Options{AllowEmpty: true}); err != nil || r.ChunksRemoved != 2 {
		t.Errorf("with leave: %+v, %v", r, err)
	}
}
