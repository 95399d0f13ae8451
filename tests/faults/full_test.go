package faults

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"holdfast/tests/harness"
)

// disk is a small file system on a loop device.
type disk struct{ file, device, dir string }

// newDisk makes and mounts an ext4 file system of mib MiB. Nothing of it is
// reserved for root, so that full is full.
func newDisk(t *testing.T, mib int64, options ...string) disk {
	t.Helper()
	dir := t.TempDir()
	d := disk{file: filepath.Join(dir, "disk.ext4"), dir: filepath.Join(dir, "mount")}
	sparse(t, d.file, mib<<20, nil)
	harness.Tool(t, append(append([]string{"mkfs.ext4", "-q", "-m", "0"}, options...), d.file)...)
	d.device, _ = harness.Loop(t, d.file)
	if err := os.Mkdir(d.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	harness.Tool(t, "mount", d.device, d.dir)
	harness.Unmount(t, d.dir)
	return d
}

// grow makes the file system larger.
func (d disk) grow(t *testing.T, mib int64) {
	t.Helper()
	if err := os.Truncate(d.file, mib<<20); err != nil {
		t.Fatal(err)
	}
	harness.Tool(t, "umount", d.dir)
	harness.Tool(t, "losetup", "--set-capacity", d.device)
	harness.Tool(t, "e2fsck", "-f", "-y", d.device)
	harness.Tool(t, "resize2fs", d.device)
	harness.Tool(t, "mount", d.device, d.dir)
}

// fill writes a file until not one byte more fits.
func (d disk) fill(t *testing.T) (ballast string) {
	t.Helper()
	ballast = filepath.Join(d.dir, "ballast")
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for n := 1 << 20; n > 0; n /= 2 {
		for piece := make([]byte, n); err == nil; {
			_, err = f.Write(piece)
		}
		if !errors.Is(err, syscall.ENOSPC) {
			t.Fatal(err)
		}
		err = nil
	}
	if err := f.Sync(); err != nil {
		t.Fatal(err)
	}
	var st syscall.Statfs_t
	if err := syscall.Statfs(d.dir, &st); err != nil || st.Bavail != 0 {
		t.Fatalf("%d blocks are left, %v", st.Bavail, err)
	}
	return ballast
}

// fillInodes makes empty files until there is no inode for one more.
func (d disk) fillInodes(t *testing.T) (made []string) {
	t.Helper()
	for {
		name := filepath.Join(d.dir, fmt.Sprintf("ballast%d", len(made)))
		err := os.WriteFile(name, nil, 0o600)
		if errors.Is(err, syscall.ENOSPC) {
			return made
		}
		if err != nil {
			t.Fatal(err)
		}
		made = append(made, name)
	}
}

// fullDisk is a repository on a small disk, with two snapshots in it.
type fullDisk struct {
	disk
	repo
	small, big string // archives to back up: one that fits and one that does not
	sum        [32]byte
}

func newFullDisk(t *testing.T, mib int64, options ...string) *fullDisk {
	t.Helper()
	dir := t.TempDir()
	f := &fullDisk{disk: newDisk(t, mib, options...)}
	f.repo = repo{path: filepath.Join(f.dir, "store"), key: filepath.Join(dir, "key.json")}
	holdfast(t, "key", "create", "--kdf", "none", f.key).want(t, exitOK)
	holdfast(t, "init", f.path).want(t, exitOK)
	content := mixed(40, 8<<20)
	f.sum = sha256.Sum256(content)
	f.small = "disk0.img:" + write(t, filepath.Join(dir, "small.raw"), content)
	f.big = "disk0.img:" + write(t, filepath.Join(dir, "big.raw"), noise(41, 60<<20))
	for i := range int64(2) {
		f.backup(t, snap{"vm/1", i}, f.small).want(t, exitOK)
	}
	return f
}

// stillReadable fails the test unless what was there can be listed, verified and
// restored.
func (f *fullDisk) stillReadable(t *testing.T, want ...snap) {
	t.Helper()
	f.wantList(t, want...)
	f.verify(t).want(t, exitOK)
	f.verifyKeyless(t).want(t, exitOK)
	for _, s := range want {
		if s.group == "vm/1" {
			f.restored(t, s, "disk0.img", f.sum)
		}
	}
	holdfast(t, "status", "-r", f.path).want(t, exitOK)
}

// TestDiskFull fills disks. A backup that does not fit says so and leaves no
// trace, all that is there can be read at zero bytes free, and with new room
// everything goes on.
func TestDiskFull(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	if !mayUseDevices(t) {
		return
	}
	t.Run("bytes", fullOfBytes)
	t.Run("after a failed backup", fullAfterFailure)
	t.Run("inodes", fullOfInodes)
	t.Run("target", fullTarget)
	t.Run("grown while full", fullThenGrown)
	t.Run("read only", fullReadOnly)
}

// fullOfBytes lets a backup run into the end of the disk, and then fills it to
// the last byte.
func fullOfBytes(t *testing.T) {
	f := newFullDisk(t, 40)
	a, b, c := snap{"vm/1", 0}, snap{"vm/1", 1}, snap{"vm/2", 0}
	// Somebody else's file, for a failed backup keeps what it has sent: how much
	// it leaves of the disk is chance, and may be nothing.
	others := write(t, filepath.Join(f.dir, "others"), make([]byte, 4<<20))
	f.backup(t, c, f.big).want(t, exitNoSpace, "no space")
	f.stillReadable(t, a, b)
	ballast := f.fill(t)
	f.stillReadable(t, a, b)
	f.backup(t, c, f.big).want(t, exitNoSpace, "no space")
	f.stillReadable(t, a, b)
	// What frees room has to work without any.
	holdfast(t, "snapshot", "forget", "-r", f.path, a.String()).want(t, exitOK)
	f.stillReadable(t, b)
	for _, name := range []string{ballast, others} {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	f.backup(t, snap{"vm/1", 2}, f.small).want(t, exitOK)
	f.stillReadable(t, b, snap{"vm/1", 2})
	if left := glob(t, f.path, ".tmp/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// fullAfterFailure goes on without looking at the repository in between, and
// with a store that was not closed: a killed backup is all there was before.
func fullAfterFailure(t *testing.T) {
	f := newFullDisk(t, 40)
	p := start(t, command{
		args: f.backupArgs(snap{"vm/2", 0}, f.big), env: oneThread,
		wrap: strace("pwrite64", "pwrite64:signal=SIGKILL:when=6"),
	})
	if r := p.wait(t); r.Code != exitKilled && r.Code != exitNoSpace {
		t.Fatalf("should have been killed: %s", r)
	}
	f.fill(t)
	f.stillReadable(t, snap{"vm/1", 0}, snap{"vm/1", 1})
	f.backup(t, snap{"vm/1", 2}, f.big).want(t, exitNoSpace, "no space")
	f.stillReadable(t, snap{"vm/1", 0}, snap{"vm/1", 1})
}

// fullOfInodes runs out of them while there are bytes enough.
func fullOfInodes(t *testing.T) {
	f := newFullDisk(t, 100, "-N", "64")
	a, b, c := snap{"vm/1", 0}, snap{"vm/1", 1}, snap{"vm/2", 0}
	made := f.fillInodes(t)
	f.stillReadable(t, a, b)
	f.backup(t, c, f.small).want(t, exitNoSpace, "no space")
	f.stillReadable(t, a, b)
	for i, name := range made { // with every number of them free
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
		r := f.backup(t, c, f.small)
		if r.Code == exitOK {
			f.stillReadable(t, a, b, c)
			t.Logf("went well with %d inodes free", i+1)
			return
		}
		r.want(t, exitNoSpace, "no space")
		f.stillReadable(t, a, b)
	}
	t.Error("the backup never went well")
}

// fullTarget restores to a disk that is too small.
func fullTarget(t *testing.T) {
	dir := t.TempDir()
	r := newRepo(t, dir)
	content := noise(42, 30<<20)
	s := snap{"vm/1", 0}
	r.backup(t, s, "disk0.img:"+write(t, filepath.Join(dir, "disk.raw"), content)).want(t, exitOK)
	d := newDisk(t, 20)
	target := filepath.Join(d.dir, "target.raw")
	r.restore(t, s, "disk0.img", target).want(t, exitNoSpace, "no space", target, "not created")
	gone(t, target)
	write(t, target, []byte("precious"))
	r.restore(t, s, "disk0.img", target, "--overwrite").want(t, exitNoSpace, "no space", "as it was")
	if string(read(t, target)) != "precious" {
		t.Error("the old target was changed")
	}
	d.grow(t, 60)
	r.restore(t, s, "disk0.img", target, "--overwrite").want(t, exitOK)
	if sha256.Sum256(read(t, target)) != sha256.Sum256(content) {
		t.Error("came back different")
	}
}

// fullThenGrown gets a larger disk after a backup that did not fit.
func fullThenGrown(t *testing.T) {
	f := newFullDisk(t, 40)
	c := snap{"vm/2", 0}
	f.backup(t, c, f.big).want(t, exitNoSpace, "no space")
	f.grow(t, 200)
	f.backup(t, c, f.big).want(t, exitOK)
	f.stillReadable(t, snap{"vm/1", 0}, snap{"vm/1", 1}, c)
}

// fullReadOnly mounts the disk read-only, after a clean end and after a killed
// backup. Reading goes on, writing is refused.
func fullReadOnly(t *testing.T) {
	f := newFullDisk(t, 40)
	a, b, c := snap{"vm/1", 0}, snap{"vm/1", 1}, snap{"vm/2", 0}
	refused := func() {
		t.Helper()
		harness.Tool(t, "mount", "-o", "remount,ro", f.dir)
		f.stillReadable(t, a, b)
		f.backup(t, c, f.small).want(t, exitRefused, "read-only file system")
		holdfast(t, "snapshot", "forget", "-r", f.path, a.String()).want(t, exitRefused, "read-only file system")
		f.stillReadable(t, a, b)
		harness.Tool(t, "mount", "-o", "remount,rw", f.dir)
	}
	refused()
	p := start(t, command{
		args: f.backupArgs(c, f.big), env: oneThread, wrap: strace("pwrite64", "pwrite64:signal=SIGKILL:when=6"),
	})
	if r := p.wait(t); r.Code != exitKilled {
		t.Fatalf("should have been killed: %s", r)
	}
	refused()
	f.backup(t, c, f.small).want(t, exitOK)
	f.stillReadable(t, a, b, c)
}
