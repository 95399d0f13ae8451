// Package os stands for the package of that name in the programs of the
// schedules: it has what the store uses of it, on the disk of package sim. When
// the lab cannot be built because something is missing here, the store has
// begun to use it.
//
// The package imports package sim.
package os

import (
	"io/fs"
	"path"
	"syscall"

	"holdfast/tests/faultlab/schedule/sim"
)

// What follows is named and does as in package os.
type (
	// File is that of package os.
	File = sim.File
	// FileInfo is that of package os.
	FileInfo = fs.FileInfo
	// FileMode is that of package os.
	FileMode = fs.FileMode
	// DirEntry is that of package os.
	DirEntry = fs.DirEntry
	// PathError is that of package os.
	PathError = fs.PathError
)

// Flags of OpenFile, and other numbers.
const (
	O_RDONLY = syscall.O_RDONLY
	O_WRONLY = syscall.O_WRONLY
	O_RDWR   = syscall.O_RDWR
	O_CREATE = syscall.O_CREAT
	O_EXCL   = syscall.O_EXCL
	O_TRUNC  = syscall.O_TRUNC
	O_SYNC   = syscall.O_SYNC
	ModePerm = fs.ModePerm
	ModeDir  = fs.ModeDir
)

// The errors, and the arguments of the process.
var (
	ErrNotExist   = fs.ErrNotExist
	ErrExist      = fs.ErrExist
	ErrPermission = fs.ErrPermission
	ErrClosed     = fs.ErrClosed
	Args          = []string{"schedule"}
)

// Open opens for reading.
func Open(name string) (*File, error) { return sim.Open(name, O_RDONLY, 0) }

// OpenFile opens with flags.
func OpenFile(name string, flag int, mode FileMode) (*File, error) {
	return sim.Open(name, flag, mode)
}

// Create opens an empty file for writing.
func Create(name string) (*File, error) { return sim.Open(name, O_RDWR|O_CREATE|O_TRUNC, 0o666) }

// Stat describes a file.
func Stat(name string) (FileInfo, error) { return sim.Stat(name) }

// Lstat describes a file.
func Lstat(name string) (FileInfo, error) { return sim.Stat(name) }

// ReadDir lists a directory.
func ReadDir(name string) ([]DirEntry, error) { return sim.ReadDir(name) }

// Mkdir makes a directory.
func Mkdir(name string, mode FileMode) error { return sim.Mkdir(name, mode) }

// MkdirAll makes a directory and those above it.
func MkdirAll(name string, mode FileMode) error { return sim.MkdirAll(name, mode) }

// Remove removes a file or an empty directory.
func Remove(name string) error { return sim.Remove(name) }

// RemoveAll removes a tree.
func RemoveAll(name string) error { return sim.RemoveAll(name) }

// Rename moves a file or directory.
func Rename(from, to string) error { return sim.Rename(from, to) }

// Chmod changes permissions.
func Chmod(name string, mode FileMode) error { return sim.Chmod(name, mode) }

// ReadFile reads a whole file.
func ReadFile(name string) ([]byte, error) {
	f, err := Open(name)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return readAll(f)
}

func readAll(f *File) ([]byte, error) {
	st, err := f.Stat()
	if err != nil {
		return nil, err
	}
	b := make([]byte, st.Size())
	if len(b) == 0 && !st.IsDir() {
		return b, nil
	}
	n, err := f.ReadAt(b, 0)
	return b[:n], err
}

// WriteFile makes a file hold data.
func WriteFile(name string, data []byte, mode FileMode) error {
	f, err := OpenFile(name, O_WRONLY|O_CREATE|O_TRUNC, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if cerr := f.Close(); err == nil {
		err = cerr
	}
	return err
}

// SameFile compares two descriptions.
func SameFile(a, b FileInfo) bool { return a.Sys() == b.Sys() }

// Geteuid is that of root.
func Geteuid() int { return 0 }

// CreateTemp makes a new file in a directory.
func CreateTemp(dir, pattern string) (*File, error) {
	return sim.Open(path.Join(dir, pattern+".temp"), O_RDWR|O_CREATE|O_EXCL, 0o600)
}

// Getpid is the same for every process.
func Getpid() int { return 1 }

// Getpagesize is that of the machine.
func Getpagesize() int { return 4096 }

// Exit never comes back.
func Exit(int) { panic("os.Exit") }

// Root is a directory that names are looked up in.
type Root struct{ dir string }

// OpenRoot opens a directory.
func OpenRoot(name string) (*Root, error) {
	st, err := Stat(name)
	if err == nil && !st.IsDir() {
		err = &PathError{Op: "open", Path: name, Err: syscall.ENOTDIR}
	}
	return &Root{name}, err
}

func (r *Root) path(name string) string { return path.Join(r.dir, name) }

// Name is the name of the directory.
func (r *Root) Name() string { return r.dir }

// Close does nothing.
func (r *Root) Close() error { return nil }

// Open opens for reading.
func (r *Root) Open(name string) (*File, error) { return Open(r.path(name)) }

// OpenFile opens with flags.
func (r *Root) OpenFile(name string, flag int, mode FileMode) (*File, error) {
	return OpenFile(r.path(name), flag, mode)
}

// Create opens an empty file for writing.
func (r *Root) Create(name string) (*File, error) { return Create(r.path(name)) }

// Stat describes a file.
func (r *Root) Stat(name string) (FileInfo, error) { return Stat(r.path(name)) }

// Lstat describes a file.
func (r *Root) Lstat(name string) (FileInfo, error) { return Stat(r.path(name)) }

// Mkdir makes a directory.
func (r *Root) Mkdir(name string, mode FileMode) error { return Mkdir(r.path(name), mode) }

// MkdirAll makes a directory and those above it.
func (r *Root) MkdirAll(name string, mode FileMode) error { return MkdirAll(r.path(name), mode) }

// Remove removes a file or an empty directory.
func (r *Root) Remove(name string) error { return Remove(r.path(name)) }

// RemoveAll removes a tree.
func (r *Root) RemoveAll(name string) error { return RemoveAll(r.path(name)) }

// Rename moves a file or directory.
func (r *Root) Rename(from, to string) error { return sim.RenameAt(r.path(from), r.path(to)) }

// Chmod changes permissions.
func (r *Root) Chmod(name string, mode FileMode) error { return Chmod(r.path(name), mode) }

// ReadFile reads a whole file.
func (r *Root) ReadFile(name string) ([]byte, error) { return ReadFile(r.path(name)) }

// WriteFile makes a file hold data.
func (r *Root) WriteFile(name string, data []byte, mode FileMode) error {
	return WriteFile(r.path(name), data, mode)
}

// FS is the directory as a file system.
func (r *Root) FS() fs.FS { return rootFS{r} }

type rootFS struct{ r *Root }

func (f rootFS) Open(name string) (fs.File, error)          { return f.r.Open(name) }
func (f rootFS) ReadDir(name string) ([]fs.DirEntry, error) { return ReadDir(f.r.path(name)) }
func (f rootFS) Stat(name string) (fs.FileInfo, error)      { return f.r.Stat(name) }
func (f rootFS) ReadFile(name string) ([]byte, error)       { return f.r.ReadFile(name) }
