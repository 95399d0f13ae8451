package pack

import (
	"errors"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/packfile"
)

func salvageAll(t testing.TB, s *Store) SalvageReport {
	t.Helper()
	r, err := s.Salvage(bg)
	if err != nil {
		t.Fatalf("salvage: %v", err)
	}
	return r
}

// replaceSame stores the same bytes of chunks once more.
func replaceSame(t testing.TB, s *Store, cs []chunkstore.Chunk) {
	t.Helper()
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		if err := replace(se, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		t.Fatal(err)
	}
	s.sealDone.Wait()
}

// hurtRecord flips a bit at an offset within the record of a chunk.
func hurtRecord(t testing.TB, s *Store, c chunkstore.Chunk, at int64) {
	t.Helper()
	p, l := where(t, s, c)
	flipAt(t, rawFile(t, packPath(s.dir, p)), l.Off+at, 2)
}

// TestSalvage damages a store of 25 chunks; the first ten lie in a sealed pack.
func TestSalvage(t *testing.T) {
	for name, c := range map[string]struct {
		damage func(t *testing.T, s *Store, cs []chunkstore.Chunk)
		want   SalvageReport
		gone   []int
	}{
		"nothing": {func(*testing.T, *Store, []chunkstore.Chunk) {}, SalvageReport{}, nil},
		"bytes of a record": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			hurtRecord(t, s, cs[2], packfile.RecordSize+9)
		}, SalvageReport{Lost: 1}, []int{2}},
		"header of a record": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			hurtRecord(t, s, cs[2], 50)
		}, SalvageReport{Lost: 1, Rescued: 1}, nil},
		"both": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			hurtRecord(t, s, cs[2], 50)
			hurtRecord(t, s, cs[2], 150)
		}, SalvageReport{Lost: 1}, []int{2}},
		"the newer of two copies": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			replaceSame(t, s, cs[2:4])
			hurtRecord(t, s, cs[2], packfile.RecordSize+9)
		}, SalvageReport{Lost: 1, Rescued: 1}, nil},
		"both copies": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			hurtRecord(t, s, cs[2], packfile.RecordSize+9)
			replaceSame(t, s, cs[2:4])
			hurtRecord(t, s, cs[2], packfile.RecordSize+9)
		}, SalvageReport{Lost: 1}, []int{2}},
		"a copy with other bytes": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			other := cs[2]
			other.Blob = append(chunkstore.Blob(nil), other.Blob...)
			other.Blob[0] ^= 1
			replaceSame(t, s, []chunkstore.Chunk{other})
			hurtRecord(t, s, cs[2], packfile.RecordSize+9)
		}, SalvageReport{Lost: 1}, []int{2}},
		"a table": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			p, _ := where(t, s, cs[0])
			flipAt(t, rawFile(t, packPath(s.dir, p)), packsOf(t, s.dir, p).Size-packfile.TrailerSize-30, 2)
		}, SalvageReport{Renewed: 1, Moved: 10}, nil},
		"a file header": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			p, _ := where(t, s, cs[0])
			flipAt(t, rawFile(t, packPath(s.dir, p)), 20, 2)
		}, SalvageReport{Renewed: 1, Moved: 10}, nil},
		"a table and a record": {func(t *testing.T, s *Store, cs []chunkstore.Chunk) {
			p, _ := where(t, s, cs[0])
			flipAt(t, rawFile(t, packPath(s.dir, p)), packsOf(t, s.dir, p).Size-9, 2)
			hurtRecord(t, s, cs[2], packfile.RecordSize+9)
		}, SalvageReport{Lost: 1, Renewed: 1, Moved: 9}, []int{2}},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, create(t), smallPacks)
			cs := chunks(0, 25)
			fill(t, s, cs)
			c.damage(t, s, cs)
			files := packsIn(t, s.dir)
			scrubAll(t, s, ScrubOptions{})
			r := salvageAll(t, s)
			if r != c.want {
				t.Errorf("%+v, want %+v", r, c.want)
			}
			gone := make(map[int]bool)
			for _, n := range c.gone {
				gone[n] = true
				absent(t, s, cs[n:n+1])
			}
			for n := range cs {
				if name == "a copy with other bytes" && n == 2 {
					continue
				}
				if !gone[n] {
					holdsAll(t, s, cs[n:n+1])
				}
			}
			for _, f := range files {
				packsOf(t, s.dir, f) // nothing is removed
			}
			if again := salvageAll(t, s); again.Rescued > 0 || again.Moved > 0 {
				t.Errorf("the second time: %+v", again)
			}
			if _, err := s.Reindex(bg, nil); err != nil {
				t.Fatal(err)
			}
			for n := range cs {
				if !gone[n] {
					holdsAll(t, s, cs[n:n+1])
				}
			}
			closeStore(t, s)
		})
	}
}

// TestSalvageOfAMissingPack finds older copies of what was in it.
func TestSalvageOfAMissingPack(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 10)
	fill(t, s, cs)
	fill(t, s, chunks(50, 10)) // so that the copies lie in a pack of their own
	replaceSame(t, s, cs)
	p, _ := where(t, s, cs[3])
	if _, l := where(t, s, cs[0]); l.Rank != 1 {
		t.Fatalf("%+v", l)
	}
	if err := os.Remove(packPath(s.dir, p)); err != nil {
		t.Fatal(err)
	}
	scrubAll(t, s, ScrubOptions{})
	if r := salvageAll(t, s); r.Lost != 10 || r.Rescued != 10 {
		t.Errorf("%+v", r)
	}
	holdsAll(t, s, cs)
	closeStore(t, s)
}

// TestRenewedPacksAreCollected lets a sweep remove what a salvage has left.
func TestRenewedPacksAreCollected(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 25)
	fill(t, s, cs)
	p, _ := where(t, s, cs[0])
	flipAt(t, rawFile(t, packPath(s.dir, p)), packsOf(t, s.dir, p).Size-9, 2)
	salvageAll(t, s)
	if r := sweep(t, s, usedSet(cs), SweepOptions{}); r.PacksRemoved != 1 {
		t.Errorf("%+v", r)
	}
	if r, _ := scrubAll(t, s, ScrubOptions{}); r.PacksDamaged > 0 {
		t.Errorf("%+v", r)
	}
	holdsAll(t, s, cs)
	closeStore(t, s)
}

// TestSalvageFaults fails each change to the disk that a salvage makes: what
// could be read can be read.
func TestSalvageFaults(t *testing.T) {
	base := create(t)
	s := openAt(t, base, smallPacks)
	cs := chunks(0, 25)
	fill(t, s, cs)
	hurtRecord(t, s, cs[2], 50)
	p, _ := where(t, s, cs[15])
	flipAt(t, rawFile(t, packPath(s.dir, p)), packsOf(t, s.dir, p).Size-9, 2)
	scrubAll(t, s, ScrubOptions{})
	closeStore(t, s)
	for _, fault := range []error{unix.EIO, unix.ENOSPC} {
		for n := 0; ; n++ {
			dir, count, armed, hit := copyTree(t, base), 0, false, false
			o, mu := smallPacks, sync.Mutex{}
			o.hook = func(op, path string, change func() error) error {
				mu.Lock() // packs are sealed in the background
				defer mu.Unlock()
				if armed && !hit {
					if count++; count > n {
						hit = true
						return &os.PathError{Op: op, Path: path, Err: fault}
					}
				}
				return change()
			}
			s := openAt(t, dir, o)
			armed = true
			_, err := s.Salvage(bg)
			if cerr := s.Close(); hit && fault == unix.EIO && errors.Join(err, cerr) == nil {
				t.Errorf("%v at change %d: nobody was told", fault, n)
			}
			s = openAt(t, dir, smallPacks)
			holdsAll(t, s, cs[:2])
			holdsAll(t, s, cs[3:])
			salvageAll(t, s)
			holdsAll(t, s, cs)
			closeStore(t, s)
			if !hit {
				if n < 5 {
					t.Errorf("only %d changes were made", n)
				}
				break
			}
		}
	}
}

func TestSalvageOfAReaderIsRefused(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	fill(t, s, chunks(0, 3))
	closeStore(t, s)
	s = openAt(t, dir, Options{ReadOnly: true})
	if _, err := s.Salvage(bg); !errors.Is(err, chunkstore.ErrReadOnly) {
		t.Errorf("%v", err)
	}
	closeStore(t, s)
	if _, err := os.Stat(filepath.Join(dir, quarantineName)); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("a list of nothing: %v", err)
	}
}
