// Package durable makes files that survive a power cut. It is the only place
// where the order of system calls that this takes is written down:
//
//	a new file            open(temporary name, O_CREAT|O_EXCL), write, fsync,
//	                      close, rename to the name, fsync of the directory
//	a new directory       mkdir, fsync of the directory that holds it
//	a rename              rename, fsync of the new parent, fsync of the old one
//	a removal             unlink, fsync of the directory
//
// Before the rename a reader finds the old file or none, after it the new one,
// and never a part of either. When a function returns nil, the change is on
// the medium as far as the kernel knows; when it returns an error, the
// temporary file is gone and the old state stands, except that a failed fsync
// of a directory leaves open which of the two states a power cut would show.
//
// An fsync that fails is never tried again: the kernel may have dropped the
// pages and would call the second one a success.
//
// It also opens what must be a file, so that nothing else that has its name holds a
// caller up; has the door through which a store changes its files, where a test can let
// each change fail; and knows what the errors of a disk mean.
package durable

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"syscall"
)

// WriteFile makes path hold data, replacing a file of that name. mode is set
// exactly, whatever the umask.
func WriteFile(path string, data []byte, mode fs.FileMode) error {
	t, err := create(path, mode)
	if err != nil {
		return err
	}
	if _, err := t.Write(data); err != nil {
		t.abort()
		return err
	}
	return t.commit()
}

// ErrLost is wrapped by the error of an fsync: what was written before it may be gone,
// although reading still shows it, and the next fsync would say that all is well. Such
// an error is final, even when it says that the disk is full.
var ErrLost = errors.New("what was written may be lost")

// SyncFile forces the content and the size of f to the medium.
func SyncFile(f *os.File) error {
	if err := f.Sync(); err != nil {
		return fmt.Errorf("%w: sync %s: %w", ErrLost, f.Name(), unwrapPath(err))
	}
	return nil
}

// SyncDir forces the entries of a directory to the medium. File systems that
// cannot sync a directory at all write their entries through or not at all;
// their EINVAL and ENOTSUP are no error.
func SyncDir(path string) error {
	d, err := OpenDir(path)
	if err != nil {
		return fmt.Errorf("sync directory: %w", err)
	}
	err = d.Sync()
	if errors.Is(err, syscall.EINVAL) || errors.Is(err, syscall.ENOTSUP) {
		err = nil
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return fmt.Errorf("%w: sync directory %s: %w", ErrLost, path, unwrapPath(err))
	}
	return nil
}

// Rename moves a file or directory within one file system. What was called
// newPath is replaced as rename(2) does. The content must be synced already.
func Rename(oldPath, newPath string) error {
	if err := os.Rename(oldPath, newPath); err != nil {
		return fmt.Errorf("rename: %w", err)
	}
	to, from := filepath.Dir(newPath), filepath.Dir(oldPath)
	if err := SyncDir(to); err != nil {
		return err
	}
	if from == to {
		return nil
	}
	return SyncDir(from)
}

// Remove unlinks a file or an empty directory. One that is not there is no
// error.
func Remove(path string) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("remove: %w", err)
	}
	return SyncDir(filepath.Dir(path))
}

// MkdirAll makes a directory and those above it that are missing, and syncs
// the parent of each one made. A directory that is there already is no error; its
// parent is synced all the same, because whoever makes it may not be that far. One
// whose making the medium did not take is gone again.
func MkdirAll(path string, mode fs.FileMode) error { return mkdirAll(path, mode, SyncDir) }

func mkdirAll(path string, mode fs.FileMode, syncDir func(string) error) error {
	path = filepath.Clean(path)
	st, err := os.Stat(path)
	if err == nil {
		if !st.IsDir() {
			return fmt.Errorf("make directory %s: %w", path, syscall.ENOTDIR)
		}
		// Those above were synced before it was made. Who may not read the
		// parent, or write to the disk, has not made it and cannot do more.
		err = syncDir(filepath.Dir(path))
		if errors.Is(err, fs.ErrPermission) || errors.Is(err, syscall.EROFS) {
			return nil
		}
		return err
	}
	if !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("make directory: %w", err)
	}
	parent := filepath.Dir(path)
	if parent != path {
		if err := mkdirAll(parent, mode, syncDir); err != nil {
			return err
		}
	}
	made := os.Mkdir(path, mode)
	if made != nil && !errors.Is(made, fs.ErrExist) {
		return fmt.Errorf("make directory: %w", made)
	}
	err = syncDir(parent)
	if err != nil && made == nil {
		// Or the next caller would find it, and be told by the next fsync that it
		// is on the medium.
		_ = os.Remove(path)
	}
	return err
}

// unwrapPath drops the name from an error whose caller names the file.
func unwrapPath(err error) error {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		return pe.Err
	}
	return err
}
