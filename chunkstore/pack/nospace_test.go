package pack

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

// mountSmall mounts a file system in memory of a given size, in bytes and
// inodes. That takes root; without it the tests that need a mount fail, unless
// HOLDFAST_TEST_NOROOT=1 says that this is known.
func mountSmall(t *testing.T, options string) (dir string, ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("HOLDFAST_TEST_NOROOT") != "1" {
			t.Fatal("this test mounts a small file system and needs root; set HOLDFAST_TEST_NOROOT=1 to go on without it")
		}
		t.Log("NOT TESTED: full disks and read-only disks, because HOLDFAST_TEST_NOROOT=1 is set and this is not root")
		return "", false
	}
	dir = t.TempDir()
	if err := unix.Mount("holdfast-test", dir, "tmpfs", 0, options); err != nil {
		t.Fatalf("mount a small file system: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Errorf("unmount %s: %v", dir, err)
		}
	})
	return dir, true
}

// big is a chunk of 100,000 bytes.
func big(n int) chunkstore.Chunk { return storetest.Chunk(uint64(n), 100_000) }

// putUntilFull puts big chunks from first on until one is refused, syncing now
// and then, and returns which were synced.
func putUntilFull(t *testing.T, s *Store, first int) (synced []chunkstore.Chunk, err error) {
	t.Helper()
	se, err := s.Begin(bg)
	if err != nil {
		return nil, err
	}
	defer se.Close()
	var put []chunkstore.Chunk
	for n := first; n < first+1000; n++ {
		if _, err = se.Put(bg, big(n)); err != nil {
			return synced, err
		}
		put = append(put, big(n))
		if n%7 != 0 {
			continue
		}
		if err = se.Sync(bg); err != nil {
			return synced, err
		}
		synced = append(synced, put...)
		put = nil
	}
	t.Fatal("the disk did not fill up")
	return nil, nil
}

// fillDisk takes the last bytes, and returns a function that gives them back.
func fillDisk(t *testing.T, dir string) func() {
	t.Helper()
	path := filepath.Join(dir, "filler")
	f, err := os.Create(path)
	if err != nil && !errors.Is(err, unix.ENOSPC) {
		t.Fatal(err)
	}
	if err != nil {
		return func() {}
	}
	for size := 1 << 16; size > 0; size /= 2 {
		for err = nil; err == nil; {
			_, err = f.Write(make([]byte, size))
		}
	}
	if err := errors.Join(ignoreFull(err), f.Close()); err != nil {
		t.Fatal(err)
	}
	return func() { remove(t, path) }
}

func ignoreFull(err error) error {
	if durable.IsFull(err) {
		return nil
	}
	return err
}

// TestDiskFull fills a real disk, of bytes and of inodes: bug museum M28. At
// no free byte a store must open, for reading and for writing, and hand out
// everything; when there is room again it goes on.
func TestDiskFull(t *testing.T) {
	for _, options := range []string{"size=8m", "size=7m", "size=64m,nr_inodes=14"} {
		t.Run(options, func(t *testing.T) {
			dir, ok := mountSmall(t, options)
			if !ok {
				return
			}
			o := Options{PackSize: 500_000}
			root := filepath.Join(dir, "store")
			if err := Create(root); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, root, o)
			held, err := putUntilFull(t, s, 0)
			if !errors.Is(err, chunkstore.ErrNoSpace) {
				t.Fatalf("on a full disk: %v", err)
			}
			if len(held) < 20 {
				t.Fatalf("only %d chunks fit", len(held))
			}
			free := fillDisk(t, dir)
			holdsAll(t, s, held)
			if _, err := putUntilFull(t, s, 2000); !errors.Is(err, chunkstore.ErrNoSpace) {
				t.Errorf("a second session on a full disk: %v", err)
			}
			if err := s.Close(); err != nil && !errors.Is(err, chunkstore.ErrNoSpace) {
				t.Errorf("close on a full disk: %v", err)
			}
			for _, readOnly := range []bool{true, false, true} {
				o.ReadOnly = readOnly
				s := openAt(t, root, o)
				holdsAll(t, s, held)
				if err := s.Close(); err != nil && !errors.Is(err, chunkstore.ErrNoSpace) {
					t.Errorf("close on a full disk: %v", err)
				}
			}
			free()
			roomAgain(t, root, held)
		})
	}
}

// roomAgain makes room by removing a sealed pack, as a sweep would, and wants
// the store to go on.
func roomAgain(t *testing.T, root string, held []chunkstore.Chunk) {
	t.Helper()
	for _, p := range packsIn(t, root) {
		if p.State == packfile.StateSealed {
			remove(t, packPath(root, p))
			break
		}
	}
	s := openAt(t, root, Options{PackSize: 500_000})
	fill(t, s, held[:3])
	holdsAll(t, s, held[:3])
	for _, c := range held {
		got, err := s.Get(bg, c.Key())
		if err == nil && !bytes.Equal(got, c.Blob) || err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("chunk %s: %v", c.ID.Short(), err)
		}
	}
	closeStore(t, s)
}

// TestReadOnlyDisk opens stores on a disk that cannot be written: after a
// clean close, after a kill, and with packs that the catalogue does not know.
func TestReadOnlyDisk(t *testing.T) {
	for _, tc := range []struct {
		name string
		end  func(*testing.T, *Store)
		opts string // left out of the store before
	}{
		{"closed", func(t *testing.T, s *Store) { closeStore(t, s) }, ""},
		{"killed", func(t *testing.T, s *Store) {
			se, err := s.Begin(bg)
			if err != nil {
				t.Fatal(err)
			}
			for _, c := range chunks(100, 30) {
				if _, err := se.Put(bg, c); err != nil {
					t.Fatal(err)
				}
			}
			kill(t, s)
		}, ""},
		{"no lock file", func(t *testing.T, s *Store) { closeStore(t, s) }, "lock"},
		{"no checksum", func(t *testing.T, s *Store) { closeStore(t, s) }, catalogue.SumName},
		{"no epoch", func(t *testing.T, s *Store) { closeStore(t, s) }, "epoch"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			dir, ok := mountSmall(t, "size=16m")
			if !ok {
				return
			}
			root := filepath.Join(dir, "store")
			if err := Create(root); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, root, smallPacks)
			fill(t, s, chunks(0, 25))
			tc.end(t, s)
			if tc.opts != "" {
				remove(t, filepath.Join(root, tc.opts))
			}
			if err := unix.Mount("", dir, "", unix.MS_REMOUNT|unix.MS_RDONLY, "size=16m"); err != nil {
				t.Fatalf("remount: %v", err)
			}
			a := openAt(t, root, Options{ReadOnly: true})
			b := openAt(t, root, Options{ReadOnly: true})
			holdsAll(t, a, chunks(0, 25))
			holdsAll(t, b, chunks(0, 25))
			closeStore(t, a)
			closeStore(t, b)
			if _, err := Open(bg, root, Options{}); !errors.Is(err, unix.EROFS) {
				t.Errorf("open for writing: %v", err)
			}
		})
	}
}
