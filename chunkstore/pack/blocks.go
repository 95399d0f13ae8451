package pack

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"runtime/debug"

	"golang.org/x/sys/unix"
)

// blocks holds the part of a file that is being read: mapped, which saves
// copying it and is a fifth faster, or in a buffer where that does not work.
type blocks struct {
	at     int64  // offset of data in the file
	data   []byte // what can be read
	region []byte // the mapping that data is part of, nil if it is a buffer
	buf    []byte
	copies bool // do not map any more
}

// from returns what is at hand from off on.
func (bl *blocks) from(off int64) []byte {
	if i := off - bl.at; i >= 0 && i < int64(len(bl.data)) {
		return bl.data[i:]
	}
	return nil
}

// drop lets go of what is at hand.
func (bl *blocks) drop() {
	if bl.region != nil {
		_ = unix.Munmap(bl.region)
	}
	bl.region, bl.data = nil, nil
}

// buffer makes room for n bytes at off.
func (bl *blocks) buffer(off int64, n int) []byte {
	bl.drop()
	if cap(bl.buf) < n {
		bl.buf = make([]byte, scrubBlock)
	}
	bl.at, bl.data = off, bl.buf[:n]
	return bl.data
}

// errCopies says that a file is to be read, not mapped.
var errCopies = errors.New("mapping does not work here")

// mapped maps n bytes at off and has the kernel read all of them, so that what
// cannot be read is an error here. They must be touched within onFault only.
func (bl *blocks) mapped(f *os.File, off int64, n int) ([]byte, error) {
	if bl.copies {
		return nil, errCopies
	}
	bl.drop()
	start := off - off%int64(os.Getpagesize())
	region, err := unix.Mmap(int(f.Fd()), start, n+int(off-start), unix.PROT_READ, unix.MAP_SHARED)
	if err == nil {
		bl.region = region
		err = unix.Madvise(region, unix.MADV_POPULATE_READ)
	}
	if err != nil {
		bl.drop()
		bl.copies = true
		return nil, err
	}
	bl.at, bl.data = off, region[off-start:]
	return bl.data, nil
}

// onFault runs fn, which may touch a mapped file. A page that is gone or cannot
// be read is an error.
func onFault(fn func() error) (err error) {
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		if fault, ok := r.(interface {
			runtime.Error
			Addr() uintptr
		}); ok {
			err = fmt.Errorf("%w: %w", unix.EIO, fault)
			return
		}
		panic(r)
	}()
	return fn()
}
