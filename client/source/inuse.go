package source

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// How QEMU's programs tell each other what they do with an image: for each
// thing that one does it holds a shared lock on the byte permBase + bit, and
// for each thing that others must not do one on sharedBase + bit. Nobody locks
// exclusively, so that a holder is found by asking whether that could be done.
const (
	permBase   = 100
	sharedBase = 200
)

// use is a set of things that can be done with an image, in QEMU's bits.
type use uint8

const (
	consistentRead use = 1 << iota
	write
	writeUnchanged
	resize
)

// allUses are the bits that QEMU has or had.
const allUses use = 1<<5 - 1

// has reports whether a bit is in the set.
func (u use) has(bit int) bool { return u>>bit&1 != 0 }

// name is what QEMU's own messages call a bit.
func (u use) name(bit int) string {
	switch use(1) << bit {
	case consistentRead:
		return "consistent read"
	case write:
		return "write"
	case writeUnchanged:
		return "write unchanged"
	case resize:
		return "resize"
	}
	return fmt.Sprintf("permission %d", bit)
}

// shareLock makes f known to QEMU as read by somebody who wants nobody to
// write meanwhile, and refuses an image that somebody does write to. It holds
// until f is closed.
func shareLock(f *os.File) error {
	return imageLock(f, consistentRead, write|resize, true)
}

// ClaimTarget refuses the image or device f if a program that keeps to QEMU's
// image locks has it open for whatever purpose. Unless f is on a file system
// where locks would hinder the holder too, it is locked against such programs until it
// is closed. f must be readable. The error wraps ErrInUse.
func ClaimTarget(f *os.File) error {
	return imageLock(f, consistentRead|write|resize, allUses, !mandatoryLocks(f))
}

// imageLock takes the locks for doing what does says and for letting nobody do
// what denied says, if hold, and refuses if somebody else is in the way. File
// systems without locks have no holders to find.
func imageLock(f *os.File, does, denied use, hold bool) error {
	if hold {
		if err := errors.Join(takeLocks(f, permBase, does), takeLocks(f, sharedBase, denied)); err != nil {
			return err
		}
	}
	for bit := range 8 {
		if denied.has(bit) && lockedByOther(f, permBase+int64(bit)) {
			return inUse(f, denied.name(bit), "uses")
		}
		if does.has(bit) && lockedByOther(f, sharedBase+int64(bit)) {
			return inUse(f, does.name(bit), "permits nobody to use")
		}
	}
	return nil
}

// takeLocks locks a byte for each bit of set.
func takeLocks(f *os.File, base int64, set use) error {
	for bit := range 8 {
		if !set.has(bit) {
			continue
		}
		if err := takeLock(f, base+int64(bit)); err != nil {
			return err
		}
	}
	return nil
}

func inUse(f *os.File, what, how string) error {
	return fmt.Errorf("%s: QEMU or another program has it open (it %s \"%s\" by an image lock): %w", f.Name(), how, what, ErrInUse)
}

// takeLock locks one byte shared. Where locks are not known there are none.
func takeLock(f *os.File, off int64) error {
	l := unix.Flock_t{Type: unix.F_RDLCK, Whence: io.SeekStart, Start: off, Len: 1}
	err := control(f, func(fd uintptr) error { return unix.FcntlFlock(fd, unix.F_OFD_SETLK, &l) })
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EACCES) {
		return fmt.Errorf("%s: another program has locked it: %w", f.Name(), ErrInUse)
	}
	return nil
}

// lockedByOther reports whether an exclusive lock of one byte would meet a lock
// of somebody else.
func lockedByOther(f *os.File, off int64) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: off, Len: 1}
	err := control(f, func(fd uintptr) error { return unix.FcntlFlock(fd, unix.F_OFD_GETLK, &l) })
	return err == nil && l.Type != unix.F_UNLCK
}

// mandatoryLocks reports whether a shared lock keeps its own holder from
// writing, as on file servers of Windows.
func mandatoryLocks(f *os.File) bool {
	var st unix.Statfs_t
	err := control(f, func(fd uintptr) error { return unix.Fstatfs(int(fd), &st) })
	switch uint32(st.Type) {
	case unix.CIFS_SUPER_MAGIC, unix.SMB2_SUPER_MAGIC, unix.SMB_SUPER_MAGIC:
		return err == nil
	}
	return false
}

// control calls do with the descriptor of f.
func control(f *os.File, do func(fd uintptr) error) error {
	conn, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var inner error
	if err := conn.Control(func(fd uintptr) { inner = do(fd) }); err != nil {
		return err
	}
	return inner
}
