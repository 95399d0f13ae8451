package source

import (
	"bufio"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// holdOpen opens an image with qemu-io, as a machine has it open, until the
// function it returns is called.
func holdOpen(t *testing.T, path, format string, args ...string) (release func()) {
	t.Helper()
	program, err := exec.LookPath("qemu-io")
	if err != nil {
		t.Fatalf("this test needs the program qemu-io: %v", err)
	}
	cmd := exec.Command(program, append(append([]string{"-f", format}, args...), path)...)
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	release = func() { in.Close(); cmd.Wait() }
	t.Cleanup(release)
	io.WriteString(in, "length\n")
	line := bufio.NewReader(out)
	for {
		s, err := line.ReadString('\n')
		if err != nil {
			t.Fatalf("qemu-io does not open %s: %v", path, err)
		}
		if strings.Contains(s, "MiB") {
			return release
		}
	}
}

// An image that a machine writes to is refused, as by QEMU's own tools; one that
// is only read, or that is free again, is not.
func TestImagesInUseAreRefused(t *testing.T) {
	for _, format := range []string{"qcow2", "raw"} {
		t.Run(format, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			qemuImg(t, "create", "-q", "-f", format, path, "1M")
			release := holdOpen(t, path, format)
			_, err := Open(path, Options{})
			wantError(t, err, ErrInUse, path, `"write"`)
			mustOpen(t, path, Options{ForceShare: true})
			release()
			openClose(t, path)
			release = holdOpen(t, path, format, "-r")
			openClose(t, path)
			f := mustOpenFile(t, path)
			wantError(t, ClaimTarget(f), ErrInUse, path)
			release()
		})
	}
}

// The base of a running machine's overlay is not written to, the overlay is.
func TestBackingInUse(t *testing.T) {
	dir := t.TempDir()
	base := create(t, filepath.Join(dir, "base.qcow2"), "1M", "")
	top := create(t, filepath.Join(dir, "top.qcow2"), "1M", "backing_file=base.qcow2,backing_fmt=qcow2")
	holdOpen(t, top, "qcow2")
	mustOpen(t, base, Options{})
	_, err := Open(top, Options{})
	wantError(t, err, ErrInUse, top)
}

// The image below an overlay counts as much as the overlay.
func TestBackingWrittenTo(t *testing.T) {
	dir := t.TempDir()
	base := create(t, filepath.Join(dir, "base.qcow2"), "1M", "")
	top := create(t, filepath.Join(dir, "top.qcow2"), "1M", "backing_file=base.qcow2,backing_fmt=qcow2")
	holdOpen(t, base, "qcow2")
	_, err := Open(top, Options{})
	wantError(t, err, ErrInUse, base)
}

// Nobody begins to write to an image while it is read here, and whoever shares
// it by force keeps nobody off.
func TestOpenImagesAreKeptStill(t *testing.T) {
	path := create(t, filepath.Join(t.TempDir(), "disk.qcow2"), "1M", "")
	img, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	openClose(t, path) // two backups do not hinder each other
	out, err := exec.Command("qemu-io", "-c", "write 0 64k", path).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "lock") {
		t.Errorf("qemu-io writes to an image that is being read: %v\n%s", err, out)
	}
	img.Close()
	mustOpen(t, path, Options{ForceShare: true})
	qemuIO(t, path, "write 0 64k")
}

// Whoever claims a target has it alone.
func TestClaimedTargetsAreAlone(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "disk.raw"), make([]byte, 1<<20))
	if err := ClaimTarget(mustOpenFile(t, path)); err != nil {
		t.Fatal(err)
	}
	wantError(t, ClaimTarget(mustOpenFile(t, path)), ErrInUse, path)
	_, err := Open(path, Options{})
	wantError(t, err, ErrInUse, path)
	if out, err := exec.Command("qemu-io", "-f", "raw", "-r", "-c", "read 0 1", path).CombinedOutput(); err == nil {
		t.Errorf("qemu-io reads what is being written:\n%s", out)
	}
}

// A program that locks as programs do that are not QEMU is one, too.
func TestExclusiveLock(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "disk.raw"), make([]byte, 1<<20))
	f := mustOpenFile(t, path)
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart}
	if err := unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &l); err != nil {
		t.Fatal(err)
	}
	_, err := Open(path, Options{})
	wantError(t, err, ErrInUse, path, "locked")
}

func openClose(t *testing.T, path string) {
	t.Helper()
	img, err := Open(path, Options{})
	if err != nil {
		t.Fatal(err)
	}
	img.Close()
}

func mustOpenFile(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}
