package source

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// qcow2Magic is what a qcow2 file begins with.
const qcow2Magic = "QFI\xfb"

// file is an open regular file or block device whose size was taken when it
// was opened. Its methods are safe for concurrent use.
type file struct {
	f      *os.File
	path   string
	length int64 // bytes
	id     identity
}

// identity tells one file or device from another.
type identity struct {
	block    bool
	dev, ino uint64 // of a block device: its number, 0
}

func identify(info fs.FileInfo) (identity, error) {
	st, ok := info.Sys().(*syscall.Stat_t)
	if !ok {
		return identity{}, fmt.Errorf("%s: no inode known", info.Name())
	}
	if isBlock(info.Mode()) {
		return identity{block: true, dev: uint64(st.Rdev)}, nil
	}
	return identity{dev: uint64(st.Dev), ino: st.Ino}, nil
}

func isBlock(m fs.FileMode) bool {
	return m&fs.ModeDevice != 0 && m&fs.ModeCharDevice == 0
}

// openFile opens path for reading. flags are added to O_RDONLY.
func openFile(path string, flags int) (*file, error) {
	// Asked before opening because opening a pipe waits for its writer.
	info, err := os.Stat(path)
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", path, cause(err))
	}
	if err := checkType(path, info.Mode()); err != nil {
		return nil, err
	}
	osFile, err := os.OpenFile(path, os.O_RDONLY|flags, 0)
	if err != nil {
		return nil, fmt.Errorf("open source %s: %w", path, cause(err))
	}
	f := &file{f: osFile, path: path}
	if err := f.measure(); err != nil {
		return nil, errors.Join(err, osFile.Close())
	}
	return f, nil
}

// measure fills in what the open file itself says of type, size and identity.
func (f *file) measure() error {
	info, err := f.f.Stat()
	if err != nil {
		return fmt.Errorf("open source %s: %w", f.path, cause(err))
	}
	if err := checkType(f.path, info.Mode()); err != nil {
		return err
	}
	if f.id, err = identify(info); err != nil {
		return err
	}
	f.length, err = f.lengthNow()
	return err
}

// checkType refuses what has no size and cannot be read at any offset.
func checkType(path string, m fs.FileMode) error {
	what := ""
	switch {
	case m.IsRegular(), isBlock(m):
		return nil
	case m.IsDir():
		what = "is a directory, not a disk image"
	case m&fs.ModeNamedPipe != 0:
		what = `is a pipe: give "-" as the source and feed it to standard input`
	case m&fs.ModeSocket != 0:
		what = "is a socket, not a disk image"
	case m&fs.ModeCharDevice != 0:
		what = "is a character device, not a block device"
	default:
		what = "is neither a regular file nor a block device"
	}
	return fmt.Errorf("source %s %s: %w", path, what, ErrUnsupported)
}

// lengthNow asks the system for the size in bytes.
func (f *file) lengthNow() (int64, error) {
	if f.id.block {
		return blockSize(f.f)
	}
	info, err := f.f.Stat()
	if err != nil {
		return 0, fmt.Errorf("size of %s: %w", f.path, cause(err))
	}
	return info.Size(), nil
}

// blockSize asks a block device for its size in bytes.
func blockSize(f *os.File) (int64, error) {
	conn, err := f.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("size of device %s: %w", f.Name(), err)
	}
	// The kernel writes 64 bits whatever the word size of the machine.
	var size uint64
	var errno unix.Errno
	err = conn.Control(func(fd uintptr) {
		_, _, errno = unix.Syscall(unix.SYS_IOCTL, fd, unix.BLKGETSIZE64, uintptr(unsafe.Pointer(&size)))
	})
	if err == nil && errno != 0 {
		err = errno
	}
	if err == nil && int64(size) < 0 {
		err = fmt.Errorf("%d bytes: %w", size, ErrUnsupported)
	}
	if err != nil {
		return 0, fmt.Errorf("size of device %s: %w", f.Name(), err)
	}
	return int64(size), nil
}

// adviseSequential asks for a longer read-ahead. It is advice only, so its
// error tells nothing that reading would not.
func (f *file) adviseSequential() {
	conn, err := f.f.SyscallConn()
	if err != nil {
		return
	}
	_ = conn.Control(func(fd uintptr) {
		_ = unix.Fadvise(int(fd), 0, 0, unix.FADV_SEQUENTIAL)
	})
}

// ReadAt implements io.ReaderAt over the size that the file had when it was
// opened.
func (f *file) ReadAt(p []byte, off int64) (int, error) {
	p, eof := clip(p, off, f.length)
	if len(p) == 0 {
		return 0, eof
	}
	n, err := f.f.ReadAt(p, off)
	switch {
	case n == len(p):
		return n, eof
	case errors.Is(err, io.EOF):
		return n, fmt.Errorf("%s: ended at %d of %d bytes: %w", f.path, off+int64(n), f.length, ErrChanged)
	}
	return n, fmt.Errorf("read %s at %d: %w", f.path, off+int64(n), cause(err))
}

// checkLength tells whether the size is still what it was.
func (f *file) checkLength() error {
	now, err := f.lengthNow()
	if err != nil {
		return err
	}
	if now != f.length {
		return fmt.Errorf("%s: was %d bytes long, is %d: %w", f.path, f.length, now, ErrChanged)
	}
	return f.checkEnd()
}

// checkEnd looks for content behind the end that the size tells: some file
// systems do not know the size of a file, or know an old one.
func (f *file) checkEnd() error {
	if f.id.block {
		return nil
	}
	if n, _ := f.f.ReadAt(make([]byte, 1), f.length); n > 0 {
		return fmt.Errorf("%s: has more than the %d bytes of its size: %w", f.path, f.length, ErrChanged)
	}
	return nil
}

// verify tells whether the file is still there under its name, the same one,
// and of the same size.
func (f *file) verify() error {
	if err := f.checkLength(); err != nil {
		return err
	}
	info, err := os.Stat(f.path)
	if err != nil {
		return fmt.Errorf("%s: is gone: %w: %w", f.path, cause(err), ErrChanged)
	}
	id, err := identify(info)
	if err != nil {
		return err
	}
	if id != f.id {
		return fmt.Errorf("%s: another file has taken its name: %w", f.path, ErrChanged)
	}
	return nil
}

// Close closes the file.
func (f *file) Close() error { return f.f.Close() }

// cause strips operation and path from an error of package os: the messages
// here name both themselves.
func cause(err error) error {
	var p *fs.PathError
	if errors.As(err, &p) {
		return p.Err
	}
	return err
}
