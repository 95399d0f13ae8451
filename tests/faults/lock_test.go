package faults

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// held is a backup from standard input that goes on for as long as the test
// keeps the pipe open.
type held struct {
	*process
	pipe *os.File
}

// hold starts a backup and waits until it has the repository.
func (r repo) hold(t *testing.T, s snap) *held {
	t.Helper()
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	h := &held{start(t, command{args: r.backupArgs(s, "disk0.img:-"), stdin: from}), to}
	from.Close()
	t.Cleanup(func() { to.Close() })
	if _, err := to.Write(mixed(60, 64<<10)); err != nil {
		t.Fatal(err)
	}
	pid := fmt.Sprintf("pid %d ", h.Pid())
	harness.Eventually(t, "the lock of "+pid, func() bool {
		b, err := os.ReadFile(filepath.Join(r.path, ".chunks", "lock"))
		return err == nil && strings.HasPrefix(string(b), pid)
	})
	return h
}

// release lets the backup come to its end.
func (h *held) release(t *testing.T) result {
	t.Helper()
	if err := h.pipe.Close(); err != nil {
		t.Fatal(err)
	}
	return h.wait(t)
}

// TestLock runs two processes on one repository.
func TestLock(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	image := "disk0.img:" + write(t, filepath.Join(dir, "disk.raw"), mixed(61, 2<<20))
	for name, test := range map[string]func(*testing.T, repo, string){
		"second backup is refused": lockRefused, "second backup waits": lockWaits,
		"waiting ends": lockWaitEnds, "holder is killed": lockHolderKilled, "reader and reader": lockReaders,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := newRepo(t, t.TempDir())
			r.backup(t, snap{"vm/1", 0}, image).want(t, exitOK)
			test(t, r, image)
		})
	}
}

// lockRefused tries everything beside a backup that has been stopped.
func lockRefused(t *testing.T, r repo, image string) {
	h := r.hold(t, snap{"vm/2", 1})
	pid := h.Pid()
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	who := fmt.Sprintf("pid %d ", pid)
	r.backup(t, snap{"vm/3", 2}, image).want(t, exitLocked, who, "--lock-wait")
	r.wantList(t, snap{"vm/1", 0})
	target := filepath.Join(t.TempDir(), "target.raw")
	r.restore(t, snap{"vm/1", 0}, "disk0.img", target).want(t, exitLocked, who)
	gone(t, target)
	r.verify(t).want(t, exitLocked, who)
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	h.release(t).want(t, exitOK)
	r.backup(t, snap{"vm/3", 2}, image).want(t, exitOK)
	r.wantList(t, snap{"vm/1", 0}, snap{"vm/2", 1}, snap{"vm/3", 2})
	r.verify(t).want(t, exitOK)
}

// lockWaits lets a second backup and a restore wait for the first.
func lockWaits(t *testing.T, r repo, image string) {
	h := r.hold(t, snap{"vm/2", 1})
	var out bytes.Buffer
	waiting := []*process{
		start(t, command{args: r.backupArgs(snap{"vm/3", 2}, "--lock-wait", "55s", image)}),
		start(t, command{
			args:   []string{"restore", "-r", r.path, "--keyfile", r.key, "--lock-wait", "55s", snap{"vm/1", 0}.String(), "disk0.img", "-"},
			stdout: io.Writer(&out),
		}),
	}
	// They have to be there and wait; how long does not matter.
	lock := filepath.Join(r.path, ".chunks", "lock")
	for _, p := range waiting {
		harness.Eventually(t, "a process that waits", func() bool { return hasOpen(p.Pid(), lock) })
	}
	time.Sleep(200 * time.Millisecond)
	r.wantList(t, snap{"vm/1", 0})
	h.release(t).want(t, exitOK)
	for _, p := range waiting {
		p.wait(t).want(t, exitOK)
	}
	if sha256.Sum256(out.Bytes()) != sha256.Sum256(mixed(61, 2<<20)) {
		t.Error("the restore that waited came back different")
	}
	r.wantList(t, snap{"vm/1", 0}, snap{"vm/2", 1}, snap{"vm/3", 2})
	r.verify(t).want(t, exitOK)
}

// hasOpen reports whether a process has a file open.
func hasOpen(pid int, path string) bool {
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	for _, l := range links {
		if to, err := os.Readlink(l); err == nil && to == path {
			return true
		}
	}
	return false
}

// lockWaitEnds waits for less time than the first backup takes.
func lockWaitEnds(t *testing.T, r repo, image string) {
	h := r.hold(t, snap{"vm/2", 1})
	r.backup(t, snap{"vm/3", 2}, "--lock-wait", "100ms", image).want(t, exitLocked, fmt.Sprint("pid ", h.Pid()))
	p := start(t, command{args: r.backupArgs(snap{"vm/3", 2}, "--lock-wait", "55s", image)})
	harness.Eventually(t, "a process that waits", func() bool {
		return hasOpen(p.Pid(), filepath.Join(r.path, ".chunks", "lock"))
	})
	_ = p.Signal(syscall.SIGINT)
	p.wait(t).want(t, exitInterrupted)
	h.release(t).want(t, exitOK)
	r.wantList(t, snap{"vm/1", 0}, snap{"vm/2", 1})
}

// lockHolderKilled leaves a lock file that nobody holds.
func lockHolderKilled(t *testing.T, r repo, image string) {
	h := r.hold(t, snap{"vm/2", 1})
	_ = h.Signal(syscall.SIGKILL)
	if got := h.wait(t); got.Code != exitKilled {
		t.Fatalf("should have been killed: %s", got)
	}
	r.wantList(t, snap{"vm/1", 0})
	r.verify(t).want(t, exitOK)
	r.backup(t, snap{"vm/2", 1}, image).want(t, exitOK)
	r.verify(t).want(t, exitOK)
}

// lockReaders runs many readers at once, the first of them on a repository whose
// catalogue they have to build.
func lockReaders(t *testing.T, r repo, _ string) {
	if err := os.Remove(filepath.Join(r.path, ".chunks", "catalogue.db")); err != nil {
		t.Fatal(err)
	}
	var all []*process
	for range 6 {
		all = append(all, start(t, command{args: []string{"verify", "-r", r.path, "--keyfile", r.key, "--lock-wait", "30s"}}))
	}
	for _, p := range all {
		p.wait(t).want(t, exitOK)
	}
}
