package durable

import (
	"errors"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/chunkstore"
)

// places put something that is no file in the place of one.
var places = []struct {
	kind string
	put  func(path string) error
}{
	{"a named pipe", func(path string) error { return syscall.Mkfifo(path, 0o600) }},
	{"a directory", func(path string) error { return os.Mkdir(path, 0o700) }},
	{"a socket", func(path string) error {
		l, err := net.Listen("unix", path)
		if err == nil {
			l.(*net.UnixListener).SetUnlinkOnClose(false)
			err = l.Close()
		}
		return err
	}},
}

// TestOpenDoesNotWait opens what is no file, in every way. With a plain open each of
// those of a named pipe waits for ever.
func TestOpenDoesNotWait(t *testing.T) {
	for _, p := range places {
		t.Run(p.kind, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "f")
			if err := p.put(path); err != nil {
				t.Fatal(err)
			}
			for _, flag := range []int{os.O_RDONLY, os.O_WRONLY, os.O_RDWR, os.O_RDWR | os.O_CREATE, os.O_WRONLY | os.O_CREATE | os.O_TRUNC} {
				refused(t, path, p.kind, flag)
			}
		})
	}
	t.Run("a symbolic link", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "f")
		if err := os.Symlink("/etc/passwd", path); err != nil {
			t.Fatal(err)
		}
		refused(t, path, "a symbolic link", os.O_RDONLY)
	})
}

// refused opens a path with flags, as itself and below its directory.
func refused(t *testing.T, path, kind string, flag int) {
	t.Helper()
	root, err := os.OpenRoot(filepath.Dir(path))
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	_, err = OpenFile(path, flag, 0o600)
	_, rootErr := OpenFileIn(root, filepath.Base(path), flag, 0o600)
	for _, err := range []error{err, rootErr} {
		if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), "f is "+kind) {
			t.Errorf("opened with %#x: %v, want damage that names the file and %s", flag, err, kind)
		}
	}
}

func TestOpenFiles(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if _, err := Open(filepath.Join(dir, "none")); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is missing: %v", err)
	}
	if _, err := OpenIn(root, "none"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("one that is missing below a root: %v", err)
	}
	if err := WriteIn(root, "f", []byte("text"), 0o600); err != nil {
		t.Fatal(err)
	}
	if b, err := ReadFile(filepath.Join(dir, "f"), 4); err != nil || string(b) != "text" {
		t.Errorf("got %q, %v", b, err)
	}
	if _, err := ReadFile(filepath.Join(dir, "f"), 3); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("one that is too long: %v", err)
	}
}

// TestDirsDoNotWait lists and syncs what is no directory.
func TestDirsDoNotWait(t *testing.T) {
	dir := t.TempDir()
	root, err := os.OpenRoot(dir)
	if err != nil {
		t.Fatal(err)
	}
	defer root.Close()
	if err := syscall.Mkfifo(filepath.Join(dir, "d"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadDirIn(root, "d"); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("list: %v", err)
	}
	if err := SyncDir(filepath.Join(dir, "d")); !errors.Is(err, syscall.ENOTDIR) {
		t.Errorf("sync: %v", err)
	}
	if names, err := ReadDirIn(root, "."); err != nil || len(names) != 1 {
		t.Errorf("the directory itself: %v, %v", names, err)
	}
}
