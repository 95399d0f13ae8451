package faults

import (
	"crypto/sha256"
	"path/filepath"
	"syscall"
	"testing"

	"holdfast/tests/harness"
)

// TestInterrupt sends signals to backups and restores under way. They end with
// status 128 and the signal's number, say how things stand, and leave nothing half done behind.
func TestInterrupt(t *testing.T) {
	t.Parallel()
	harness.HearHangups(t)
	dir := t.TempDir()
	r := newRepo(t, dir)
	content := mixed(50, 30<<20)
	image := write(t, filepath.Join(dir, "disk.raw"), content)
	base := snap{"vm/1", 0}
	r.backup(t, base, "disk0.img:"+image).want(t, exitOK)

	changed := mixed(51, 30<<20)
	other := write(t, filepath.Join(dir, "other.raw"), changed)
	for i, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		s := snap{"vm/1", int64(i + 1)}
		got := signalled(t, r.backupArgs(s, "disk0.img:"+other), stop{"pread64", 9, other}, sig)
		got.want(t, 128+int(sig), "interrupted", "no snapshot was made")
		r.wantList(t, base)
	}
	t.Run("restore", func(t *testing.T) { interruptedRestore(t, r, base, content) })
	t.Run("waiting for standard input", func(t *testing.T) { interruptedStdin(t, r, base) })
	s := snap{"vm/1", 10}
	r.backup(t, s, "disk0.img:"+other).want(t, exitOK)
	r.verify(t).want(t, exitOK)
	r.restored(t, s, "disk0.img", sha256.Sum256(changed))
	if left := glob(t, r.path, ".tmp/*"); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// signalled stops a command at a system call and lets it go on with a signal
// pending, so that exactly one reaches it in the middle of its work.
func signalled(t *testing.T, args []string, at stop, sig syscall.Signal) result {
	t.Helper()
	return stoppedAt(t, args, at, func(pid int) {
		if err := syscall.Kill(pid, sig); err != nil {
			t.Fatal(err)
		}
	})
}

// interruptedRestore stops restores to a new file, over an old one, and in place.
func interruptedRestore(t *testing.T, r repo, s snap, content []byte) {
	target := filepath.Join(t.TempDir(), "target.raw")
	sig := syscall.SIGINT
	interrupted := func(more ...string) result {
		t.Helper()
		args := append([]string{"restore", "-r", r.path, "--keyfile", r.key, s.String(), "disk0.img", target}, more...)
		return signalled(t, args, stop{"pwrite64", 2, ""}, sig).want(t, 128+int(sig), "interrupted", target)
	}
	for _, sig = range []syscall.Signal{syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT} {
		interrupted().says(t, "not created")
		gone(t, target)
	}
	write(t, target, []byte("precious"))
	interrupted("--overwrite").says(t, "as it was")
	if string(read(t, target)) != "precious" {
		t.Error("the old target was changed")
	}
	// In place there is no way back, but a way on.
	write(t, target, mixed(52, len(content)))
	interrupted("--differential").says(t, "do not use it", "--differential")
	r.restore(t, s, "disk0.img", target, "--differential").want(t, exitOK)
	if sha256.Sum256(read(t, target)) != sha256.Sum256(content) {
		t.Error("came back different")
	}
}

// interruptedStdin stops a backup while it waits for its source.
func interruptedStdin(t *testing.T, r repo, base snap) {
	h := r.hold(t, snap{"vm/2", 5})
	if err := h.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	h.wait(t).want(t, exitInterrupted, "interrupted")
	r.wantList(t, base)
}
