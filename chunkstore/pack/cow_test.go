package pack

import (
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
)

// mountBtrfs mounts a file system that copies on write.
func mountBtrfs(t *testing.T, mib int64) (dir string, ok bool) {
	t.Helper()
	return mountImage(t, "btrfs", mib, "mkfs.btrfs", "-q", "--mixed")
}

// takeAll takes what room there is, in ever smaller files: a file system that
// copies on write says that it is full long before its last block is taken.
func takeAll(t *testing.T, dir string) {
	t.Helper()
	f, err := os.OpenFile(filepath.Join(dir, "ballast"), os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n >= 4096; n /= 2 {
		for err = nil; err == nil; err = f.Sync() {
			if _, err = f.Write(make([]byte, n)); err != nil {
				break
			}
		}
		if !errors.Is(err, unix.ENOSPC) && !errors.Is(err, unix.EDQUOT) {
			t.Fatal(err)
		}
	}
}

// TestOpenAFullDiskThatCopiesOnWrite opens a store where even a file that is
// written over needs a new block, and sweeps it. The room for that is the
// reserve's, also where a quota is what is full and the numbers of the file
// system show room.
func TestOpenAFullDiskThatCopiesOnWrite(t *testing.T) {
	for _, c := range []struct {
		name  string
		quota bool
	}{{"full", false}, {"at its quota", true}} {
		t.Run(c.name, func(t *testing.T) {
			mount, ok := mountBtrfs(t, 128)
			if !ok {
				return
			}
			root := filepath.Join(mount, "sub")
			run(t, "btrfs", "subvolume", "create", root)
			if c.quota {
				run(t, "btrfs", "quota", "enable", mount)
				run(t, "btrfs", "qgroup", "limit", "48M", root)
			}
			dir := filepath.Join(root, "store")
			if err := Create(dir); err != nil {
				t.Fatal(err)
			}
			s := openAt(t, dir, Options{})
			var all []chunkstore.Chunk
			for n := range 100 {
				all = append(all, big(n))
			}
			fill(t, s, all)
			closeStore(t, s)
			closeStore(t, openAt(t, dir, Options{})) // takes the reserve
			takeAll(t, root)

			s = openAt(t, dir, Options{})
			if st, err := os.Stat(filepath.Join(dir, reserveName)); err != nil || st.Size() == 0 {
				t.Errorf("the reserve was not taken again: %v, %v", st, err)
			}
			keep := all[:len(all)/2]
			before := packBytes(t, dir)
			r := sweep(t, s, usedSet(keep), SweepOptions{Waste: 0.05})
			if after := packBytes(t, dir); after >= before || len(r.Left) > 0 {
				t.Errorf("packs took %d bytes and take %d; %+v", before, after, r)
			}
			holdsAll(t, s, keep)
			closeStore(t, s)
		})
	}
}

func run(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%v: %v: %s", args, err, out)
	}
}
