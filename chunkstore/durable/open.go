package durable

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"slices"
	"syscall"

	"holdfast/chunkstore"
)

// asFile goes with every open of a file: a FIFO that nobody writes to, or a line
// that nobody answers on, must not hold the caller up. Regular files do not mind.
// A link is not followed, and no program started later inherits the file.
const asFile = syscall.O_NONBLOCK | syscall.O_NOFOLLOW | syscall.O_CLOEXEC

// Open opens the regular file at path for reading. Anything else that has its name
// is chunkstore.ErrCorrupt, and the error says what it is. It never waits for
// another process. The caller closes the file.
func Open(path string) (*os.File, error) { return OpenFile(path, os.O_RDONLY, 0) }

// OpenFile is Open with the flags and the mode of os.OpenFile.
func OpenFile(path string, flag int, mode fs.FileMode) (*os.File, error) {
	f, err := os.OpenFile(path, flag|asFile, mode)
	if errors.Is(err, syscall.EWOULDBLOCK) && isRegular(os.Lstat(path)) {
		// Another program holds a lease on it, which it gives back when it is
		// asked to, or loses.
		f, err = os.OpenFile(path, flag|asFile&^syscall.O_NONBLOCK, mode)
	}
	return regular(f, err, path, func() (fs.FileInfo, error) { return os.Lstat(path) })
}

// OpenIn is Open for a file below root. A link that stays below root is followed.
func OpenIn(root *os.Root, name string) (*os.File, error) {
	return OpenFileIn(root, name, os.O_RDONLY, 0)
}

// OpenFileIn is OpenFile for a file below root. A link that stays below root is
// followed.
func OpenFileIn(root *os.Root, name string, flag int, mode fs.FileMode) (*os.File, error) {
	f, err := root.OpenFile(name, flag|asFile, mode)
	if errors.Is(err, syscall.EWOULDBLOCK) && isRegular(root.Lstat(name)) {
		f, err = root.OpenFile(name, flag|asFile&^syscall.O_NONBLOCK, mode) // a lease
	}
	var errno syscall.Errno
	switch {
	case errors.Is(err, syscall.ELOOP):
		return nil, err // links that lead nowhere may be the disk's fault
	case err != nil && !errors.As(err, &errno):
		if st, serr := root.Lstat(name); serr == nil && st.Mode()&fs.ModeSymlink != 0 {
			return nil, irregular(name, st.Mode()) // it leads out of root
		}
	}
	return regular(f, err, name, func() (fs.FileInfo, error) { return root.Lstat(name) })
}

// regular gives f back if it is a regular file. err is that of the open, stat
// describes what could not be opened.
func regular(f *os.File, err error, name string, stat func() (fs.FileInfo, error)) (*os.File, error) {
	switch {
	case errors.Is(err, syscall.ELOOP), errors.Is(err, syscall.ENXIO), errors.Is(err, syscall.ENODEV),
		errors.Is(err, syscall.EISDIR), errors.Is(err, syscall.EWOULDBLOCK):
		if st, serr := stat(); serr == nil && !st.Mode().IsRegular() {
			return nil, irregular(name, st.Mode())
		}
		return nil, err
	case err != nil:
		return nil, err
	}
	st, err := f.Stat()
	if err == nil && !st.Mode().IsRegular() {
		err = irregular(name, st.Mode())
	}
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

func isRegular(st fs.FileInfo, err error) bool { return err == nil && st.Mode().IsRegular() }

// irregular is the error for a thing that has the place of a file.
func irregular(name string, mode fs.FileMode) error {
	return fmt.Errorf("%s is %s and no file: %w", name, kind(mode), chunkstore.ErrCorrupt)
}

func kind(mode fs.FileMode) string {
	switch {
	case mode&fs.ModeDir != 0:
		return "a directory"
	case mode&fs.ModeSymlink != 0:
		return "a symbolic link"
	case mode&fs.ModeNamedPipe != 0:
		return "a named pipe"
	case mode&fs.ModeSocket != 0:
		return "a socket"
	case mode&fs.ModeDevice != 0:
		return "a device"
	}
	return "something else"
}

// ReadFile reads the regular file at path whole; one of more than limit bytes is
// chunkstore.ErrCorrupt.
func ReadFile(path string, limit int64) ([]byte, error) {
	f, err := Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return ReadCapped(f, limit)
}

// ReadCapped reads an open file from where it stands to its end, unless it is
// larger than limit bytes: that is chunkstore.ErrCorrupt.
func ReadCapped(f *os.File, limit int64) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if st.Size() > limit {
		return nil, fmt.Errorf("%s: not a file of at most %d bytes: %w", f.Name(), limit, chunkstore.ErrCorrupt)
	}
	b, err := io.ReadAll(io.LimitReader(f, limit+1))
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name(), err)
	}
	return b, nil
}

// OpenDir opens a directory, to list or to sync it. Anything else is ENOTDIR. It
// never waits for another process.
func OpenDir(path string) (*os.File, error) {
	return os.OpenFile(path, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
}

// OpenDirIn is OpenDir for a directory below root.
func OpenDirIn(root *os.Root, name string) (*os.File, error) {
	return root.OpenFile(name, os.O_RDONLY|syscall.O_DIRECTORY|syscall.O_CLOEXEC, 0)
}

// ReadDirIn lists a directory below root, by name.
func ReadDirIn(root *os.Root, name string) ([]fs.DirEntry, error) {
	d, err := OpenDirIn(root, name)
	if err != nil {
		return nil, err
	}
	defer d.Close()
	names, err := d.ReadDir(-1)
	slices.SortFunc(names, func(a, b fs.DirEntry) int { return cmp.Compare(a.Name(), b.Name()) })
	return names, err
}

// WriteIn makes a file below root hold data, as os.Root.WriteFile does. Nothing is
// synced, and a reader may see a part: it is for what the caller alone knows of.
func WriteIn(root *os.Root, name string, data []byte, mode fs.FileMode) error {
	f, err := OpenFileIn(root, name, os.O_WRONLY|os.O_CREATE|os.O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	return errors.Join(err, f.Close())
}
