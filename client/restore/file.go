package restore

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// file is a regular file. A new one is written beside its name and renamed when
// it is complete; an existing one is changed in place.
type file struct {
	f       *os.File
	path    string // where it is going to be
	temp    string // where it is until then; "" if changed in place
	replace bool
	size    int64
	touched bool
	pushed  int64 // up to where the kernel has been asked to write
}

// pushSize is after how many bytes the kernel is asked to begin writing, so that
// the disk works while chunks are decoded and finish has little to wait for.
const pushSize = 16 << 20

// newFile makes a sparse file of size bytes that finish will call path.
func newFile(path string, size int64, replace bool) (*file, error) {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".partial-*")
	if err != nil {
		return nil, fmt.Errorf("create target %s: %w", path, err)
	}
	t := &file{f: f, path: path, temp: f.Name(), replace: replace, size: size}
	if err := f.Truncate(size); err != nil {
		t.abort()
		return nil, t.errorf("make room for", err)
	}
	return t, nil
}

// openExisting opens a file to be changed in place into one of size bytes.
func openExisting(path string, size int64) (*file, error) {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, fmt.Errorf("open target: %w", err)
	}
	return &file{f: f, path: path, size: size}, nil
}

// errorf names the target and tells a full disk from other errors.
func (t *file) errorf(doing string, err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = fmt.Errorf("%w: %w", chunkstore.ErrNoSpace, err)
	}
	return fmt.Errorf("%s target %s: %w", doing, t.path, err)
}

func (t *file) writeAt(p []byte, off int64) error {
	t.touched = true
	if _, err := t.f.WriteAt(p, off); err != nil {
		return t.errorf("write", err)
	}
	if end := off + int64(len(p)); end-t.pushed >= pushSize {
		// Advice: finish waits for all of it and gets the errors.
		_ = unix.SyncFileRange(int(t.f.Fd()), t.pushed, end-t.pushed, unix.SYNC_FILE_RANGE_WRITE)
		t.pushed = end
	}
	return nil
}

// zero leaves a hole in a new file and punches one into an existing file.
func (t *file) zero(off, n int64) error {
	if t.temp != "" {
		return nil
	}
	t.touched = true
	err := unix.Fallocate(int(t.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if errors.Is(err, unix.EOPNOTSUPP) {
		err = writeZeros(t.f, off, n)
	}
	if err != nil {
		return t.errorf("write zeros to", err)
	}
	return nil
}

func writeZeros(w io.WriterAt, off, n int64) error {
	nul := make([]byte, min(n, 1<<20))
	for n > 0 {
		part := nul[:min(n, int64(len(nul)))]
		if _, err := w.WriteAt(part, off); err != nil {
			return err
		}
		off, n = off+int64(len(part)), n-int64(len(part))
	}
	return nil
}

func (t *file) readAt(p []byte, off int64) (int, error) {
	n, err := t.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return n, err
}

func (t *file) finish() error {
	if err := t.f.Truncate(t.size); err != nil {
		return t.errorf("set the size of", err)
	}
	if err := t.f.Sync(); err != nil {
		return t.errorf("sync", err)
	}
	if t.temp == "" {
		return t.f.Close()
	}
	if err := t.f.Chmod(0o600); err != nil {
		return t.errorf("set the mode of", err)
	}
	if err := t.f.Close(); err != nil {
		return t.errorf("close", err)
	}
	if err := t.name(); err != nil {
		return t.errorf("name", err)
	}
	t.temp = ""
	return durable.SyncDir(filepath.Dir(t.path))
}

// name gives the finished file its name; one that has appeared meanwhile is not
// replaced unless that was asked for.
func (t *file) name() error {
	if t.replace {
		return os.Rename(t.temp, t.path)
	}
	err := unix.Renameat2(unix.AT_FDCWD, t.temp, unix.AT_FDCWD, t.path, unix.RENAME_NOREPLACE)
	if !errors.Is(err, unix.EINVAL) && !errors.Is(err, unix.ENOSYS) {
		return err
	}
	// The file system does not know that rename: a hard link refuses too.
	if err := os.Link(t.temp, t.path); err != nil {
		return err
	}
	return os.Remove(t.temp)
}

func (t *file) abort() string {
	t.f.Close() // there is an error already
	switch {
	case t.temp != "" && t.replace:
		os.Remove(t.temp)
		return fmt.Sprintf("%s is as it was", t.path)
	case t.temp != "":
		os.Remove(t.temp)
		return fmt.Sprintf("%s was not created", t.path)
	case !t.touched:
		return fmt.Sprintf("%s is as it was", t.path)
	}
	if _, err := os.Stat(t.path); errors.Is(err, fs.ErrNotExist) {
		return fmt.Sprintf("%s is gone", t.path)
	}
	return fmt.Sprintf("%s holds a mixture of old and restored data: do not use it; the same command with --differential goes on from here", t.path)
}
