// Package unix stands for golang.org/x/sys/unix and for package syscall in the
// programs of the schedules: it has what the store and bbolt use of them.
//
// The package imports package sim, golang.org/x/sys/unix and the standard
// library.
package unix

import (
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"holdfast/tests/faultlab/schedule/sim"
)

// Numbers, as the kernel has them.
const (
	LOCK_SH = unix.LOCK_SH
	LOCK_EX = unix.LOCK_EX
	LOCK_NB = unix.LOCK_NB
	LOCK_UN = unix.LOCK_UN

	EIO         = unix.EIO
	EWOULDBLOCK = unix.EWOULDBLOCK
	EINTR       = unix.EINTR
	EINVAL      = unix.EINVAL
	EMFILE      = unix.EMFILE
	ENFILE      = unix.ENFILE
	ENOMEM      = unix.ENOMEM
	ENOSPC      = unix.ENOSPC
	ENOSYS      = unix.ENOSYS
	ENOTDIR     = unix.ENOTDIR
	ENOTSUP     = unix.ENOTSUP
	EOPNOTSUPP  = unix.EOPNOTSUPP
	EDQUOT      = unix.EDQUOT
	EFBIG       = unix.EFBIG
	EROFS       = unix.EROFS

	FADV_DONTNEED   = unix.FADV_DONTNEED
	FADV_SEQUENTIAL = unix.FADV_SEQUENTIAL
	FADV_WILLNEED   = unix.FADV_WILLNEED
	PROT_READ       = unix.PROT_READ
	MAP_SHARED      = unix.MAP_SHARED
	MADV_RANDOM     = unix.MADV_RANDOM

	MADV_POPULATE_READ = unix.MADV_POPULATE_READ
)

// Errno is that of the kernel.
type Errno = syscall.Errno

// Flock takes or gives back the lock of an open file. It never waits.
func Flock(fd, how int) error {
	f := sim.ByFd(fd)
	if f == nil {
		return unix.EBADF
	}
	return f.Lock(how&LOCK_EX != 0, how&LOCK_UN != 0)
}

// Stat_t has what the store looks at.
type Stat_t struct {
	Nlink  uint64
	Size   int64
	Blocks int64
}

// Fstat describes an open file.
func Fstat(fd int, st *Stat_t) error {
	f := sim.ByFd(fd)
	if f == nil {
		return unix.EBADF
	}
	links, size := f.Links()
	st.Nlink, st.Size, st.Blocks = uint64(max(links, 0)), size, (size+511)/512
	return nil
}

// Fadvise does nothing.
func Fadvise(int, int64, int64, int) error { return nil }

// Fdatasync makes the content of a file durable.
func Fdatasync(fd int) error {
	f := sim.ByFd(fd)
	if f == nil {
		return unix.EBADF
	}
	return f.Sync()
}

// Syncfs does nothing: no space is counted here.
func Syncfs(int) error { return nil }

// Fallocate makes a file that long.
func Fallocate(fd int, _ uint32, off, size int64) error {
	f := sim.ByFd(fd)
	if f == nil {
		return unix.EBADF
	}
	if _, now := f.Links(); now < off+size {
		return f.Truncate(off + size)
	}
	return nil
}

// Statfs_t has what the store looks at.
type Statfs_t struct {
	Bsize                 int64
	Blocks, Bfree, Bavail uint64
	Files, Ffree          uint64
}

// Statfs tells of a large empty disk that does not count inodes.
func Statfs(_ string, st *Statfs_t) error {
	*st = Statfs_t{Bsize: 4096, Blocks: 1 << 30, Bfree: 1 << 29, Bavail: 1 << 29}
	return nil
}

// Mmap maps the beginning of a file of bbolt, however it is asked to. Others can
// only be read.
func Mmap(fd int, _ int64, size int, _ ...int) ([]byte, error) {
	f := sim.ByFd(fd)
	if f == nil {
		return nil, unix.EBADF
	}
	if !strings.Contains(f.Name(), "catalogue.db") {
		return nil, unix.ENODEV
	}
	return f.Map(size)
}

// Munmap does nothing: the memory goes when nobody has it.
func Munmap([]byte) error { return nil }

// Madvise does nothing.
func Madvise([]byte, int) error { return nil }

// Mlock does nothing.
func Mlock([]byte) error { return nil }

// Munlock does nothing.
func Munlock([]byte) error { return nil }
