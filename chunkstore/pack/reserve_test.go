package pack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/packfile"
)

// mountExt4 mounts a real file system of a given size on a loop device.
func mountExt4(t *testing.T, mib int64) (dir string, ok bool) {
	t.Helper()
	return mountImage(t, "ext4", mib, "mkfs.ext4", "-q", "-m", "0")
}

// mountImage mounts what mkfs makes of a file of a given size.
func mountImage(t *testing.T, kind string, mib int64, mkfs ...string) (dir string, ok bool) {
	t.Helper()
	if os.Geteuid() != 0 {
		if os.Getenv("HOLDFAST_TEST_NOROOT") != "1" {
			t.Fatal("this test mounts a small file system and needs root; set HOLDFAST_TEST_NOROOT=1 to go on without it")
		}
		t.Log("NOT TESTED: collecting on a full disk, because HOLDFAST_TEST_NOROOT=1 is set and this is not root")
		return "", false
	}
	image := filepath.Join(tempDir(t), "disk."+kind)
	if err := os.WriteFile(image, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(image, mib<<20); err != nil {
		t.Fatal(err)
	}
	dir = t.TempDir()
	for _, c := range [][]string{append(mkfs, image), {"mount", "-o", "loop", image, dir}} {
		if out, err := exec.Command(c[0], c[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %v: %s", c, err, out)
		}
	}
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount: %v: %s", err, out)
		}
	})
	return dir, true
}

// fillToTheLast takes every block of a file system.
func fillToTheLast(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n > 0; n /= 2 {
		for err == nil {
			_, err = f.Write(make([]byte, n))
		}
		if !errors.Is(err, unix.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil || st.Bavail != 0 {
		t.Fatalf("%d blocks are left, %v", st.Bavail, err)
	}
}

// TestSweepOfAFullDisk collects at zero bytes free, where no pack is without
// use: each has to be copied in part before it can go.
func TestSweepOfAFullDisk(t *testing.T) {
	mount, ok := mountExt4(t, 64)
	if !ok {
		return
	}
	dir := filepath.Join(mount, "store")
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, dir, Options{})
	if s.options.PackSize > 3<<20 {
		t.Errorf("packs of %d bytes on a disk of 64 MiB", s.options.PackSize)
	}
	var all, kept []chunkstore.Chunk
	for n := range 200 {
		all = append(all, big(n))
		if n%3 == 0 {
			kept = append(kept, big(n))
		}
	}
	fill(t, s, all)
	for round := range 3 {
		closeStore(t, s)
		s = openAt(t, dir, Options{})
		fillToTheLast(t, mount)
		if _, err := putUntilFull(t, s, 1000*(round+1)); !errors.Is(err, chunkstore.ErrNoSpace) {
			t.Fatalf("the disk is not full: %v", err)
		}
		before := packBytes(t, dir)
		keep := kept[:len(kept)-10*round]
		r := sweep(t, s, usedSet(keep), SweepOptions{Waste: 0.05})
		if after := packBytes(t, dir); after >= before || r.PacksRewritten+r.PacksRemoved == 0 || len(r.Left) > 0 {
			t.Errorf("round %d: packs took %d bytes and take %d; %+v", round, before, after, r)
		}
		holdsAll(t, s, keep)
		if st, err := os.Stat(filepath.Join(dir, reserveName)); err != nil || st.Size() == 0 {
			t.Errorf("round %d: the reserve was not taken again: %v, %v", round, st, err)
		}
	}
	closeStore(t, s)
	s = openAt(t, dir, Options{})
	holdsAll(t, s, kept[:len(kept)-20])
	if r, lost := scrubAll(t, s, ScrubOptions{}); r.PacksDamaged > 0 || len(lost) > 0 {
		t.Errorf("%+v", r)
	}
	closeStore(t, s)
}

// TestReserveIsNotForSessions gives the reserve up: until it is taken again a
// session is refused, a sweep is not.
func TestReserveIsNotForSessions(t *testing.T) {
	mount, ok := mountExt4(t, 32)
	if !ok {
		return
	}
	dir := filepath.Join(mount, "store")
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	s := openAt(t, dir, Options{})
	fill(t, s, chunks(0, 20))
	fillToTheLast(t, mount)
	take, err := s.FreeReserve(bg)
	if err != nil {
		t.Fatal(err)
	}
	if free, err := s.freeSpace(); err != nil || free < 200<<10 {
		t.Errorf("%d bytes are free, %v", free, err)
	}
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := se.Put(bg, chunks(50, 1)[0]); !errors.Is(err, chunkstore.ErrNoSpace) {
		t.Errorf("put: %v", err)
	}
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
	take()
	if free, err := s.freeSpace(); err != nil || free > 100<<10 {
		t.Errorf("%d bytes are free after the reserve was taken again, %v", free, err)
	}
	if err := os.Remove(filepath.Join(mount, "ballast")); err != nil {
		t.Fatal(err)
	}
	fill(t, s, chunks(50, 1))
	closeStore(t, s)
}

// TestSweepSealsIdlePacks sweeps a store that has never filled a pack.
func TestSweepSealsIdlePacks(t *testing.T) {
	for _, reopen := range []bool{false, true} {
		dir := create(t)
		s := openAt(t, dir, Options{})
		cs := chunks(0, 40)
		fill(t, s, cs)
		if reopen {
			closeStore(t, s)
			s = openAt(t, dir, Options{})
		}
		if r := sweep(t, s, usedSet(cs[:36]), SweepOptions{}); r.PacksRewritten > 0 || r.GarbageBytes == 0 || packsIn(t, dir)[0].State != packfile.StateOpen {
			t.Errorf("little waste: %+v", r)
		}
		before := packBytes(t, dir)
		if r := sweep(t, s, usedSet(cs[:7]), SweepOptions{DryRun: true}); r.PacksRewritten != 1 || r.BytesRemoved != uint64(before) || packBytes(t, dir) != before {
			t.Errorf("dry run: %+v", r)
		}
		r := sweep(t, s, usedSet(cs[:7]), SweepOptions{})
		if r.PacksRewritten != 1 || r.ChunksRemoved != 33 || packBytes(t, dir) > before/3 {
			t.Errorf("reopened %v: %+v, %d bytes of %d", reopen, r, packBytes(t, dir), before)
		}
		holdsAll(t, s, cs[:7])
		absent(t, s, cs[7:])
		sweep(t, s, nothing, SweepOptions{})
		if list := packsIn(t, dir); len(list) != 0 {
			t.Errorf("of nothing there are %v left", list)
		}
		fill(t, s, cs)
		holdsAll(t, s, cs)
		closeStore(t, s)
	}
}

// TestSweepLeavesChunksOfSessions has sessions that were open when the sweep
// began, with their chunks in a pack that nobody has when it runs.
func TestSweepLeavesChunksOfSessions(t *testing.T) {
	s := openAt(t, create(t), Options{})
	old := chunks(0, 5)
	fill(t, s, old)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	mine := chunks(100, 5)
	if err := putAndSync(se, mine); err != nil {
		t.Fatal(err)
	}
	sw, err := s.BeginSweep(bg)
	if err != nil {
		t.Fatal(err)
	}
	defer sw.Close()
	// It commits its snapshot now: the mark has not seen it.
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
	fill(t, s, chunks(200, 5)) // and another one begins and ends
	r, err := sw.Run(bg, nothing, SweepOptions{})
	if err != nil || r.ChunksRemoved != 5 {
		t.Errorf("%+v, %v", r, err)
	}
	absent(t, s, old)
	holdsAll(t, s, mine)
	holdsAll(t, s, chunks(200, 5))
	closeStore(t, s)
}
