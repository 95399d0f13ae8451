package durable

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
)

// IsFinal reports whether nothing may be written any more after err.
func IsFinal(err error) bool {
	switch {
	case err == nil, errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded):
		return false
	case errors.Is(err, ErrLost):
		return true
	}
	return !errors.Is(err, chunkstore.ErrNoSpace) && !IsShortage(err)
}

// IsShortage reports whether err says that the process or the system has no more
// descriptors: nothing has been written, and a moment later it may go.
func IsShortage(err error) bool {
	return errors.Is(err, syscall.EMFILE) || errors.Is(err, syscall.ENFILE)
}

// Door is what changes go through. The zero value lets all of them pass.
type Door struct {
	// Hook is nil except in tests, which let a change fail before or after it has
	// happened.
	Hook func(op, path string, change func() error) error
}

// Do makes one change. op is the word for it in an error.
func (d Door) Do(op, path string, change func() error) error {
	run := change
	if d.Hook != nil {
		run = func() error { return d.Hook(op, path, change) }
	}
	err := run()
	if err == nil {
		return nil
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	if IsFull(err) {
		return fmt.Errorf("%s %s: %w: %w", op, path, chunkstore.ErrNoSpace, err)
	}
	return fmt.Errorf("%s %s: %w", op, path, err)
}

// IsFull reports whether err says that there is no room: a full disk, no more
// inodes, a quota or a limit on the size of files.
func IsFull(err error) bool {
	return errors.Is(err, syscall.ENOSPC) || errors.Is(err, syscall.EDQUOT) || errors.Is(err, syscall.EFBIG)
}

// IsReadOnly reports whether err says that this process may not write here.
func IsReadOnly(err error) bool {
	return errors.Is(err, syscall.EROFS) || errors.Is(err, fs.ErrPermission)
}

// Size returns the size of a regular file, in bytes.
func Size(f *os.File) (int64, error) {
	st, err := f.Stat()
	if err != nil {
		return 0, err
	}
	if !st.Mode().IsRegular() {
		return 0, fmt.Errorf("%s: not a regular file", f.Name())
	}
	return st.Size(), nil
}

// DropCache makes reading f mean reading the medium, as far as the kernel
// takes the advice. After a failed fsync the cache may show what the medium
// never got.
func DropCache(f *os.File) {
	_ = unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_DONTNEED)
}

// IsDamage reports whether an error of reading a pack is the pack's fault: a
// bad sector or a file shorter than it was a moment ago.
func IsDamage(err error) bool {
	return errors.Is(err, unix.EIO) || errors.Is(err, io.EOF) || errors.Is(err, chunkstore.ErrCorrupt)
}

// IgnoreMissing is err, unless that says that a file is not there.
func IgnoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
