package durable

import (
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
)

// tempMark is in the name of every temporary file, so that what a crash has
// left behind can be told from everything else.
const tempMark = ".tmp-"

// temp is a file being written under a temporary name beside its final one.
// It ends with commit or abort; both may be called more than once, the first
// call counts. It is not safe for concurrent use.
type temp struct {
	f    *os.File
	path string
	done bool
}

// Chmod sets the mode of a file exactly. File systems that keep no modes, or let
// nobody change them, refuse: a file has the mode it was made with there, and
// that is no error.
func Chmod(f *os.File, mode fs.FileMode) error {
	err := f.Chmod(mode)
	if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.ENOTSUP) || errors.Is(err, syscall.ENOSYS) {
		return nil
	}
	return err
}

// create begins a file that will be called path. mode is set exactly, where
// the file system can; before, and where it cannot, only the owner may read it.
func create(path string, mode fs.FileMode) (*temp, error) {
	var r [8]byte
	if _, err := rand.Read(r[:]); err != nil {
		return nil, fmt.Errorf("create %s: %w", path, err)
	}
	name := filepath.Join(filepath.Dir(path), "."+filepath.Base(path)+tempMark+hex.EncodeToString(r[:]))
	f, err := OpenFile(name, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return nil, fmt.Errorf("create %s: %w", path, unwrapPath(err))
	}
	t := &temp{f: f, path: path}
	if err := Chmod(f, mode); err != nil {
		t.abort()
		return nil, fmt.Errorf("create %s: %w", path, unwrapPath(err))
	}
	return t, nil
}

// IsTemp reports whether name, without a directory, is one that create gives
// to temporary files. Such a file that no process is writing may be removed.
func IsTemp(name string) bool {
	return strings.HasPrefix(name, ".") && strings.Contains(name, tempMark)
}

// Write appends to the file. It keeps nothing of p.
func (t *temp) Write(p []byte) (int, error) {
	n, err := t.f.Write(p)
	if err != nil {
		return n, fmt.Errorf("write %s: %w", t.path, unwrapPath(err))
	}
	return n, nil
}

// commit makes the file exist under its name, durably. After an error the file
// is as if it had never been begun.
func (t *temp) commit() error {
	if t.done {
		return nil
	}
	if err := SyncFile(t.f); err != nil {
		t.abort()
		return fmt.Errorf("write %s: %w", t.path, err)
	}
	if err := t.f.Close(); err != nil {
		t.abort()
		return fmt.Errorf("write %s: %w", t.path, unwrapPath(err))
	}
	if err := Rename(t.f.Name(), t.path); err != nil {
		t.abort()
		return err
	}
	t.done = true
	return nil
}

// abort gives the file up. After commit it does nothing.
func (t *temp) abort() {
	if t.done {
		return
	}
	t.done = true
	// The name may be gone already when only the sync of the directory has
	// failed; nothing can be done about any of these errors.
	_ = errors.Join(t.f.Close(), os.Remove(t.f.Name()))
}
