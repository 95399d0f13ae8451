package sim

import (
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
	"time"
)

// File is an open file or directory. It stands for os.File.
type File struct {
	node   *node
	name   string
	fd     int
	off    int64
	writes bool
	closed bool
	listed bool
}

// errDown is the answer to whatever the clean-up of a crashed task still
// tries.
const errDown = syscall.EIO

// begin is the first thing of every call: the scheduler may stop the task here.
func begin(op, name string) (*Disk, error) {
	if !Point(op, name) {
		return nil, errDown
	}
	return The().Disk, nil
}

func pathError(op, name string, err error) error {
	if err == nil {
		return nil
	}
	return &fs.PathError{Op: op, Path: name, Err: err}
}

// The flags of OpenFile, as the kernel has them.
const (
	access = syscall.O_RDONLY | syscall.O_WRONLY | syscall.O_RDWR
	create = syscall.O_CREAT
)

// Open opens a file as os.OpenFile does.
func Open(name string, flag int, mode fs.FileMode) (*File, error) {
	d, err := begin("open", name)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	n, err := d.open(path.Clean(name), flag, mode)
	if err != nil {
		return nil, pathError("open", name, err)
	}
	f := &File{node: n, name: name, fd: len(d.files), writes: flag&access != syscall.O_RDONLY}
	d.files = append(d.files, f)
	return f, nil
}

func (d *Disk) open(name string, flag int, mode fs.FileMode) (*node, error) {
	n, err := d.find(name)
	writes := flag&access != syscall.O_RDONLY
	switch {
	case err == syscall.ENOENT && flag&create != 0:
		dir, base, err := d.parent(name)
		if err != nil {
			return nil, err
		}
		n = &node{mode: mode.Perm(), links: 1}
		d.do(move{to: dir, toName: base, what: n})
		return n, nil
	case err != nil:
		return nil, err
	case flag&create != 0 && flag&syscall.O_EXCL != 0:
		return nil, syscall.EEXIST
	case n.dir && writes:
		return nil, syscall.EISDIR
	case writes && n.mode&0o200 == 0:
		return nil, syscall.EACCES // nobody here is root
	}
	if flag&syscall.O_TRUNC != 0 {
		d.truncate(n, 0)
	}
	return n, nil
}

// Name returns the name that the file was opened with.
func (f *File) Name() string { return f.name }

// Fd returns a number that ByFd finds the file by.
func (f *File) Fd() uintptr { return uintptr(f.fd) }

// ByFd finds an open file.
func ByFd(fd int) *File {
	d := The().Disk
	if fd < 0 || fd >= len(d.files) {
		return nil
	}
	return d.files[fd]
}

func (f *File) begin(op string) (*Disk, error) {
	d, err := begin(op, f.name)
	if err == nil && f.closed {
		err = fs.ErrClosed
	}
	return d, err
}

// ReadAt implements io.ReaderAt.
func (f *File) ReadAt(b []byte, off int64) (int, error) {
	_, err := f.begin("read")
	if err == nil && f.node.dir {
		err = syscall.EISDIR
	}
	if err != nil {
		return 0, pathError("read", f.name, err)
	}
	if off >= int64(len(f.node.data)) {
		return 0, io.EOF
	}
	n := copy(b, f.node.data[off:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

// Read implements io.Reader.
func (f *File) Read(b []byte) (int, error) {
	if len(b) == 0 {
		return 0, nil
	}
	n, err := f.ReadAt(b, f.off)
	f.off += int64(n)
	if n > 0 && err == io.EOF {
		err = nil
	}
	return n, err
}

// WriteAt implements io.WriterAt.
func (f *File) WriteAt(b []byte, off int64) (int, error) {
	d, err := f.begin("write")
	if err == nil && !f.writes {
		err = syscall.EBADF
	}
	if err != nil {
		return 0, pathError("write", f.name, err)
	}
	d.write(f.node, b, off)
	return len(b), nil
}

// Write implements io.Writer.
func (f *File) Write(b []byte) (int, error) {
	n, err := f.WriteAt(b, f.off)
	f.off += int64(n)
	return n, err
}

// Seek implements io.Seeker.
func (f *File) Seek(off int64, whence int) (int64, error) {
	switch whence {
	case io.SeekCurrent:
		off += f.off
	case io.SeekEnd:
		off += int64(len(f.node.data))
	}
	if off < 0 {
		return 0, pathError("seek", f.name, syscall.EINVAL)
	}
	f.off = off
	return off, nil
}

// Sync makes the file, or the entries of the directory, durable.
func (f *File) Sync() error {
	d, err := f.begin("sync")
	if err != nil {
		return pathError("sync", f.name, err)
	}
	if f.node.dir {
		d.syncDir(f.node)
	} else {
		f.node.sync()
	}
	return nil
}

// Truncate changes the size.
func (f *File) Truncate(size int64) error {
	d, err := f.begin("truncate")
	if err == nil && !f.writes {
		err = syscall.EINVAL
	}
	if err != nil {
		return pathError("truncate", f.name, err)
	}
	d.truncate(f.node, size)
	return nil
}

// Chmod changes the permissions, which are durable at once.
func (f *File) Chmod(mode fs.FileMode) error {
	if _, err := f.begin("chmod"); err != nil {
		return pathError("chmod", f.name, err)
	}
	f.node.mode = mode.Perm()
	return nil
}

// Stat describes the file.
func (f *File) Stat() (fs.FileInfo, error) {
	if _, err := f.begin("stat"); err != nil {
		return nil, pathError("stat", f.name, err)
	}
	return f.node.info(f.name), nil
}

// Close ends the use. It drops the locks, too.
func (f *File) Close() error {
	if f.closed {
		return pathError("close", f.name, fs.ErrClosed)
	}
	if _, alive := hold(); !alive {
		return nil
	}
	f.closed = true
	delete(f.node.locks, f)
	return nil
}

// ReadDir lists a directory. Only all of it at once can be had.
func (f *File) ReadDir(int) ([]fs.DirEntry, error) {
	if _, err := f.begin("readdir"); err != nil {
		return nil, pathError("readdir", f.name, err)
	}
	if f.listed {
		return nil, io.EOF
	}
	f.listed = true
	return f.node.list()
}

func (n *node) list() ([]fs.DirEntry, error) {
	if !n.dir {
		return nil, syscall.ENOTDIR
	}
	list := make([]fs.DirEntry, 0, len(n.entries))
	for name, e := range n.entries {
		list = append(list, fs.FileInfoToDirEntry(e.info(name)))
	}
	slices.SortFunc(list, func(a, b fs.DirEntry) int { return strings.Compare(a.Name(), b.Name()) })
	return list, nil
}

// info implements fs.FileInfo.
type info struct {
	name string
	size int64
	mode fs.FileMode
	node *node
}

func (n *node) info(name string) fs.FileInfo {
	i := info{name: path.Base(name), size: int64(len(n.data)), mode: n.mode, node: n}
	if n.dir {
		i.mode |= fs.ModeDir
	}
	return i
}

func (i info) Name() string       { return i.name }
func (i info) Size() int64        { return i.size }
func (i info) Mode() fs.FileMode  { return i.mode }
func (i info) ModTime() time.Time { return time.Unix(0, 0) }
func (i info) IsDir() bool        { return i.mode.IsDir() }
func (i info) Sys() any           { return i.node }

// Links returns the number of names a file has, and its size.
func (f *File) Links() (links int, size int64) { return f.node.links, int64(len(f.node.data)) }

// Map returns the first size bytes of the file as memory in which later
// writes show.
func (f *File) Map(size int) ([]byte, error) {
	d, err := f.begin("map")
	if err != nil {
		return nil, err
	}
	if size > mapMax {
		return nil, fmt.Errorf("map %d bytes: %w", size, syscall.ENOMEM)
	}
	return d.mapping(f.node, size), nil
}

// Lock takes or gives back an advisory lock, without waiting.
func (f *File) Lock(alone, unlock bool) error {
	if _, err := f.begin("lock"); err != nil {
		return err
	}
	if unlock {
		delete(f.node.locks, f)
		return nil
	}
	for other, itsAlone := range f.node.locks {
		if other != f && (alone || itsAlone) {
			return syscall.EWOULDBLOCK
		}
	}
	if f.node.locks == nil {
		f.node.locks = make(map[*File]bool)
	}
	f.node.locks[f] = alone
	return nil
}
