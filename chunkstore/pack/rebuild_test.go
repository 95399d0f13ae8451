package pack

import (
	"errors"
	"maps"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// everything is what a catalogue says.
type everything struct {
	chunks map[chunkstore.Key]catalogue.Location
	packs  map[packfile.ID]catalogue.PackInfo
}

func everythingIn(t *testing.T, s *Store) everything {
	t.Helper()
	all := everything{map[chunkstore.Key]catalogue.Location{}, map[packfile.ID]catalogue.PackInfo{}}
	if err := s.eachLocation(bg, func(k chunkstore.Key, l catalogue.Location) { all.chunks[k] = l }); err != nil {
		t.Fatal(err)
	}
	_, packs, err := s.cat.Header()
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range packs {
		all.packs[p.ID] = *p
	}
	return all
}

// manyKinds makes a store with copies of several ranks, damaged ones and claims.
func manyKinds(t *testing.T) (dir string) {
	dir = create(t)
	s := openAt(t, dir, smallPacks)
	plain := chunks(0, 40)
	fill(t, s, plain)
	fill(t, s, sealedChunks(0, 20, "alice"))
	fill(t, s, sealedChunks(0, 20, "bob"))
	se := s.newSession()
	for i, c := range plain {
		for range i % 4 {
			if _, err := se.put(bg, c, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		t.Fatal(err)
	}
	for i, c := range plain {
		if i%5 == 0 {
			_, l := where(t, s, c)
			s.mark(bg, c.Key(), l.Spot(), true)
		}
	}
	closeStore(t, s)
	return dir
}

// TestCatalogueOfParts builds the catalogue of a store from parts of several sizes. It
// must be the one that is built at once.
func TestCatalogueOfParts(t *testing.T) {
	dir := manyKinds(t)
	var first everything
	var told ReindexReport
	for i, batch := range []int{1 << 20, 1, 2, 7, 100} {
		s := openAt(t, dir, Options{PackSize: smallPacks.PackSize, rebuildBatch: batch})
		r, err := s.Reindex(bg, nil)
		if err != nil {
			t.Fatal(err)
		}
		all := everythingIn(t, s)
		closeStore(t, s)
		if i == 0 {
			first, told = all, r
			bad := 0
			for _, l := range all.chunks {
				bad += int(l.Flags & catalogue.FlagBad)
			}
			if bad < 2 || r.Duplicates < 20 || r.Chunks != uint64(len(all.chunks)) {
				t.Fatalf("%+v, and %d chunks are in the catalogue, %d of them damaged", r, len(all.chunks), bad)
			}
			continue
		}
		if r.Chunks != told.Chunks || r.Duplicates != told.Duplicates {
			t.Errorf("parts of %d: %+v, want %+v", batch, r, told)
		}
		if !maps.Equal(all.chunks, first.chunks) || !maps.Equal(all.packs, first.packs) {
			t.Errorf("parts of %d: another catalogue", batch)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
			t.Errorf("parts of %d: left behind: %v", batch, left)
		}
	}
}

// TestPartsThatCannotBeWritten are no fault of the pack that is being read: what was
// there stays.
func TestPartsThatCannotBeWritten(t *testing.T) {
	dir := manyKinds(t)
	for _, errno := range []error{unix.ENOSPC, unix.EIO} {
		var broken error
		s := openAt(t, dir, Options{PackSize: smallPacks.PackSize, rebuildBatch: 7, hook: func(op, path string, change func() error) error {
			if filepath.Base(path) == catalogue.RunsName && broken != nil {
				return broken
			}
			return change()
		}})
		before := everythingIn(t, s)
		broken = errno
		if _, err := s.Reindex(bg, nil); !errors.Is(err, errno) {
			t.Errorf("%v: %v", errno, err)
		}
		broken = nil
		if after := everythingIn(t, s); !maps.Equal(after.chunks, before.chunks) {
			t.Errorf("%v: another catalogue", errno)
		}
		if r, err := s.Reindex(bg, nil); err != nil || r.Unreadable > 0 {
			t.Errorf("%v: %+v, %v", errno, r, err)
		}
		closeStore(t, s)
	}
}
