package gc_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"
	"time"

	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// collect collects and expects so many chunks to go, and to be left.
func collect(t *testing.T, s gc.Store, st *datastore.Store, removed, left uint64) gc.Report {
	t.Helper()
	r, err := gc.Collect(t.Context(), s, gc.Options{AllowEmpty: true})
	if err != nil || r.ChunksRemoved != removed {
		t.Errorf("%+v, %v, want %d chunks removed", r, err, removed)
	}
	if st, err := st.Status(t.Context()); err != nil || st.Chunks != left {
		t.Errorf("%d chunks are left, %v, want %d", st.Chunks, err, left)
	}
	return r
}

func TestASnapshotWithoutManifestKeepsItsChunks(t *testing.T) {
	s, path := newStore(t, 0)
	backup(t, s, snapshot("", 10), "one", "two")
	backup(t, s, snapshot("a", 10), "two", "three")
	backup(t, s, snapshot("a", 20), "four")
	s = reopened(t, s, path)
	defer func() { s.Close() }()
	for _, snap := range []wire.Snapshot{snapshot("", 10), snapshot("a", 10)} {
		dir := filepath.Join(path, "vm", "100")
		if snap.Group.NS != "" {
			dir = filepath.Join(path, "ns", "a", "vm", "100")
		}
		if err := os.Remove(filepath.Join(dir, snap.TimeString(), wire.ManifestName)); err != nil {
			t.Fatal(err)
		}
	}
	for _, snap := range []wire.Snapshot{snapshot("", 10), snapshot("a", 10)} {
		if list, err := s.Snapshots(t.Context(), snap.Group); err != nil || list[0].Snapshot != snap || list[0].Damage == "" {
			t.Errorf("listed are %+v, %v", list, err)
		}
	}
	if err := s.Forget(t.Context(), snapshot("a", 20)); err != nil {
		t.Fatal(err)
	}
	if r := collect(t, s, s, 1, 3); r.Indexes != 2 {
		t.Errorf("%+v", r)
	}
	restorable(t, s, snapshot("", 10))
	restorable(t, s, snapshot("a", 10))
}

func TestTheTrashKeepsItsChunks(t *testing.T) {
	s, path := newStore(t, 7)
	backup(t, s, snapshot("a", 10), "one", "two", "three")
	backup(t, s, snapshot("", 10), "three")
	s = reopened(t, s, path)
	if err := s.Forget(t.Context(), snapshot("a", 10)); err != nil {
		t.Fatal(err)
	}
	if r := collect(t, s, s, 0, 3); r.Deleted != 1 || r.Indexes != 2 || r.TrashRemoved != 0 {
		t.Errorf("%+v", r)
	}
	// What its description was lost of keeps them as well.
	entries, err := filepath.Glob(filepath.Join(path, ".trash", "*-*"))
	if err != nil || len(entries) != 1 {
		t.Fatal(entries, err)
	}
	where := filepath.Join(entries[0], "where.json")
	was, err := os.ReadFile(where)
	if err != nil {
		t.Fatal(err)
	}
	for _, change := range []func() error{
		func() error { return os.WriteFile(where, []byte("{"), 0o600) },
		func() error { return os.Remove(where) },
		func() error { return os.Rename(entries[0], filepath.Join(path, ".trash", "by hand")) },
	} {
		if err := change(); err != nil {
			t.Fatal(err)
		}
		collect(t, s, s, 0, 3)
	}
	if err := os.Rename(filepath.Join(path, ".trash", "by hand"), entries[0]); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(where, was, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := s.RestoreDeleted(t.Context(), snapshot("a", 10)); err != nil {
		t.Fatal(err)
	}
	collect(t, s, s, 0, 3)
	restorable(t, s, snapshot("a", 10))
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestTheTrashIsEmptiedInTime(t *testing.T) {
	s, path := newStore(t, 7)
	backup(t, s, snapshot("", 10), "one", "two", "three")
	backup(t, s, snapshot("", 20), "three")
	s = reopened(t, s, path)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	passed := time.Duration(0)
	s, err := datastore.Open(t.Context(), path, datastore.Options{Now: func() time.Time { return time.Now().Add(passed) }})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { s.Close() }()
	if err := s.Forget(t.Context(), snapshot("", 10)); err != nil {
		t.Fatal(err)
	}
	passed = 7*24*time.Hour - time.Minute
	collect(t, s, s, 0, 3)
	passed += 2 * time.Minute
	if r, err := gc.Collect(t.Context(), s, gc.Options{DryRun: true}); err != nil || r.TrashRemoved != 0 || r.Deleted != 1 {
		t.Errorf("dry run: %+v, %v", r, err)
	}
	if r := collect(t, s, s, 2, 1); r.TrashRemoved != 1 {
		t.Errorf("%+v", r)
	}
	restorable(t, s, snapshot("", 20))
}

// between does something to a store after its indexes were listed, and before
// each of them is opened.
type between struct {
	*datastore.Store
	listed, opened func()
}

func (b between) Indexes(ctx context.Context) ([]datastore.IndexFile, error) {
	list, err := b.Store.Indexes(ctx)
	b.listed()
	return list, err
}

func (b between) OpenIndex(ctx context.Context, f datastore.IndexFile) (*index.Reader, error) {
	b.opened()
	return b.Store.OpenIndex(ctx, f)
}

func (b between) BeginSweep(ctx context.Context) (*pack.Sweep, error) { return b.Store.BeginSweep(ctx) }

// Whatever a snapshot does while it is collected beside it, from the tree to
// the trash, back, or both, it has its chunks afterwards.
func TestSnapshotsMoveDuringACollection(t *testing.T) {
	type move func(t *testing.T, s *datastore.Store)
	ten := snapshot("", 10)
	forget := func(t *testing.T, s *datastore.Store) {
		if err := s.Forget(t.Context(), ten); err != nil {
			t.Error(err)
		}
	}
	back := func(t *testing.T, s *datastore.Store) {
		if err := s.RestoreDeleted(t.Context(), ten); err != nil {
			t.Error(err)
		}
	}
	// another takes the name of the one that has gone.
	another := func(t *testing.T, s *datastore.Store) { backup(t, s, ten, "other") }
	for name, c := range map[string]struct{ before, listed, opened, after []move }{
		"leaves after the listing":   {listed: []move{forget}, after: []move{back}},
		"leaves when it is read":     {opened: []move{forget}, after: []move{back}},
		"comes after the listing":    {before: []move{forget}, listed: []move{back}},
		"comes when it is read":      {before: []move{forget}, opened: []move{back}},
		"comes and goes":             {before: []move{forget}, listed: []move{back}, opened: []move{forget}, after: []move{back}},
		"leaves and comes":           {listed: []move{forget}, opened: []move{back}},
		"its name is taken":          {listed: []move{forget, another}, after: []move{forget, back, forget}},
		"its name is taken for long": {listed: []move{forget}, opened: []move{another}},
	} {
		t.Run(name, func(t *testing.T) {
			s, path := newStore(t, 7)
			backup(t, s, ten, "one", "two")
			s = reopened(t, s, path)
			defer func() { s.Close() }()
			all := func(moves []move) {
				for _, m := range moves {
					m(t, s)
				}
			}
			all(c.before)
			once := c.opened
			b := between{s, func() { all(c.listed) }, func() { all(once); once = nil }}
			if r, err := gc.Collect(t.Context(), b, gc.Options{Workers: 1}); err != nil || r.ChunksRemoved != 0 {
				t.Errorf("%+v, %v", r, err)
			}
			all(c.after)
			files, err := s.Indexes(t.Context())
			if err != nil || len(files) == 0 {
				t.Fatal(files, err)
			}
			for _, f := range files {
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
		})
	}
}

var _ gc.Store = between{}
