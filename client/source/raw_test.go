package source

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// sparseFile writes data at 1 MiB and at 3 MiB of a file of 5 MiB and some.
func sparseFile(t testing.TB, dir string) (string, []byte) {
	t.Helper()
	want := make([]byte, 5<<20+777)
	copy(want[1<<20:], bytes.Repeat([]byte{1}, 64<<10))
	copy(want[3<<20:], bytes.Repeat([]byte{2}, 64<<10))
	path := writeFile(t, filepath.Join(dir, "image.raw"), nil)
	patch(t, path, 1<<20, want[1<<20:][:64<<10])
	patch(t, path, 3<<20, want[3<<20:][:64<<10])
	if err := os.Truncate(path, int64(len(want))); err != nil {
		t.Fatal(err)
	}
	return path, want
}

// holeFolders are folders on file systems that know holes.
func holeFolders(t testing.TB) map[string]string {
	t.Helper()
	shm, err := os.MkdirTemp("/dev/shm", "source-test-")
	if err != nil {
		t.Fatalf("this test needs a tmpfs at /dev/shm: %v", err)
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(shm); err != nil {
			t.Error(err)
		}
	})
	return map[string]string{"temporary folder": t.TempDir(), "tmpfs": shm}
}

func TestRawHoles(t *testing.T) {
	for name, dir := range holeFolders(t) {
		t.Run(name, func(t *testing.T) {
			path, want := sparseFile(t, dir)
			img := mustOpen(t, path, Options{})
			if data := checkImage(t, img, want); data != 128<<10 {
				t.Errorf("%d bytes are called data, want %d", data, 128<<10)
			}
			if all := walk(t, img); len(all) != 5 {
				t.Errorf("extents %+v, want five", all)
			}
			x, err := img.Extent(1<<20 + 100)
			if want := (Extent{1<<20 + 100, 64<<10 - 100, Data}); x != want || err != nil {
				t.Errorf("extent %+v, %v, want %+v", x, err, want)
			}
		})
	}
}

func TestRawDense(t *testing.T) {
	for _, size := range []int{0, 1, 3, 4096, 300_001} {
		want := bytes.Repeat([]byte{7}, size)
		img := mustOpen(t, writeFile(t, filepath.Join(t.TempDir(), "image.raw"), want), Options{})
		if data := checkImage(t, img, want); data != int64(size) {
			t.Errorf("%d bytes are called data, want %d", data, size)
		}
	}
}

func TestExtentOutside(t *testing.T) {
	dir := t.TempDir()
	for _, path := range []string{
		writeFile(t, filepath.Join(dir, "image.raw"), []byte("abc")),
		single("1M", "")(t, dir),
	} {
		img := mustOpen(t, path, Options{})
		for _, off := range []int64{-1, img.Size(), img.Size() + 1} {
			if x, err := img.Extent(off); err == nil {
				t.Errorf("%s: extent %+v at %d, want an error", path, x, off)
			}
		}
		if n, err := img.ReadAt(make([]byte, 3), -1); n != 0 || err == nil || err == io.EOF {
			t.Errorf("%s: read at -1: %d, %v", path, n, err)
		}
		if n, err := img.ReadAt(make([]byte, 3), img.Size()); n != 0 || err != io.EOF {
			t.Errorf("%s: read at the end: %d, %v", path, n, err)
		}
	}
}

// TestRawOption reads a disk onto which a guest has written a qcow2 header.
func TestRawOption(t *testing.T) {
	path := single("1M", "", "write -P 1 0 64k")(t, t.TempDir())
	want, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	checkImage(t, mustOpen(t, path, Options{Format: Raw}), want)
	named := filepath.Join(t.TempDir(), "disk.raw")
	if err := os.WriteFile(named, want, 0o600); err != nil {
		t.Fatal(err)
	}
	checkImage(t, mustOpen(t, named, Options{}), want)
	if os.Getuid() == 0 {
		checkImage(t, mustOpen(t, loopDevice(t, named), Options{}), want)
	}
	if img, err := Open(named, Options{Format: Qcow2}); err != nil {
		t.Errorf("asked for qcow2: %v", err)
	} else if err := img.Close(); err != nil {
		t.Error(err)
	}
	if err := os.WriteFile(named, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = Open(named, Options{Format: Qcow2})
	wantError(t, err, ErrUnsupported, "no qcow2 image")
}

func TestShrunkFile(t *testing.T) {
	path, _ := sparseFile(t, t.TempDir())
	img := mustOpen(t, path, Options{})
	if err := os.Truncate(path, 1<<20+100); err != nil {
		t.Fatal(err)
	}
	n, err := img.ReadAt(make([]byte, 4096), 1<<20)
	if n != 100 {
		t.Errorf("%d bytes, want 100", n)
	}
	wantError(t, err, ErrChanged, path+": ended at 1048676 of 5243657 bytes: changed while it was read")
	_, err = img.Extent(2 << 20)
	wantError(t, err, ErrChanged)
	wantError(t, img.Verify(), ErrChanged, "was 5243657 bytes long, is 1048676")
}

func TestVerify(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(path string) error
		want   error
	}{
		{"nothing", func(string) error { return nil }, nil},
		{"content", func(p string) error { return os.WriteFile(p, []byte("other bytes"), 0o644) }, nil},
		{"grown", func(p string) error { return os.Truncate(p, 20) }, ErrChanged},
		{"shrunk", func(p string) error { return os.Truncate(p, 5) }, ErrChanged},
		{"removed", os.Remove, fs.ErrNotExist},
		{"replaced", func(p string) error {
			if err := os.WriteFile(p+".new", []byte("hello world"), 0o644); err != nil {
				return err
			}
			return os.Rename(p+".new", p)
		}, ErrChanged},
		{"folder in its place", func(p string) error { return errors.Join(os.Remove(p), os.Mkdir(p, 0o755)) }, ErrChanged},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := writeFile(t, filepath.Join(t.TempDir(), "image.raw"), []byte("hello world"))
			img := mustOpen(t, path, Options{})
			if err := c.change(path); err != nil {
				t.Fatal(err)
			}
			err := img.Verify()
			if c.want == nil && err != nil {
				t.Fatal(err)
			}
			if c.want != nil {
				wantError(t, err, c.want, path)
				wantError(t, err, ErrChanged)
			}
		})
	}
}

func TestRefusedSources(t *testing.T) {
	dir := t.TempDir()
	pipe := filepath.Join(dir, "pipe")
	if err := unix.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	socket := filepath.Join(dir, "socket")
	l, err := net.Listen("unix", socket)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for _, c := range []struct {
		path string
		want error
		say  string
	}{
		{filepath.Join(dir, "nothing"), fs.ErrNotExist, "open source " + dir},
		{filepath.Join(pipe, "below"), unix.ENOTDIR, "not a directory"},
		{dir, ErrUnsupported, "is a directory"},
		{pipe, ErrUnsupported, `is a pipe: give "-"`},
		{socket, ErrUnsupported, "is a socket"},
		{"/dev/null", ErrUnsupported, "is a character device"},
	} {
		img, err := Open(c.path, Options{})
		if img != nil {
			t.Errorf("%s: opened", c.path)
		}
		wantError(t, err, c.want, c.say)
	}
}

// TestUnreadableFile opens a file without the right to. Root has every right,
// so this thread gives them up for the while.
func TestUnreadableFile(t *testing.T) {
	path := writeFile(t, filepath.Join(t.TempDir(), "image.raw"), []byte("secret"))
	if err := os.Chmod(path, 0); err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if os.Geteuid() == 0 {
		if err := unix.Setfsuid(65534); err != nil {
			t.Fatal(err)
		}
		defer func() {
			if err := unix.Setfsuid(0); err != nil {
				t.Error(err)
			}
		}()
	}
	_, err := Open(path, Options{})
	wantError(t, err, fs.ErrPermission, "open source "+path, "permission denied")
}

func TestKindString(t *testing.T) {
	for k, want := range map[Kind]string{Data: "data", Zero: "zero", 9: "kind 9"} {
		if got := k.String(); got != want {
			t.Errorf("%q, want %q", got, want)
		}
	}
}
