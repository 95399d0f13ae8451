package restore

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
)

// device is a block device, always changed in place.
type device struct {
	f       *os.File
	path    string
	touched bool
}

// openDevice opens a block device for an archive of size bytes. One that is
// mounted or otherwise in use is refused by the kernel (O_EXCL), one that is
// too small before anything is written.
func openDevice(path string, size int64) (*device, error) {
	f, err := os.OpenFile(path, os.O_RDWR|unix.O_EXCL, 0)
	if errors.Is(err, unix.EBUSY) {
		return nil, fmt.Errorf("%s is in use, for example mounted: %w", path, ErrTarget)
	}
	if err != nil {
		return nil, fmt.Errorf("open target: %w", err)
	}
	if err := checkDevice(f); err != nil {
		f.Close() // there is an error already
		return nil, err
	}
	end, err := f.Seek(0, io.SeekEnd)
	if err == nil && end < size {
		err = fmt.Errorf("%s has %d bytes, the archive %d: %w", path, end, size, ErrTarget)
	}
	if err != nil {
		f.Close() // there is an error already
		return nil, err
	}
	readMedium(f)
	return &device{f: f, path: path}, nil
}

// checkDevice refuses what opening does not: a device that is read-only, and one
// that a machine uses.
func checkDevice(f *os.File) error {
	readOnly, err := unix.IoctlGetInt(int(f.Fd()), unix.BLKROGET)
	if err == nil && readOnly != 0 {
		return fmt.Errorf("%s is read-only: %w", f.Name(), ErrTarget)
	}
	return claim(f)
}

func (t *device) writeAt(p []byte, off int64) error {
	t.touched = true
	if _, err := t.f.WriteAt(p, off); err != nil {
		return fmt.Errorf("write target %s: %w", t.path, err)
	}
	return nil
}

// zero asks the kernel to zero a range, which thin devices do by freeing it,
// and writes zeros where it cannot.
func (t *device) zero(off, n int64) error {
	t.touched = true
	err := unix.Fallocate(int(t.f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err != nil {
		err = writeZeros(t.f, off, n)
	}
	if err != nil {
		return fmt.Errorf("write zeros to target %s: %w", t.path, err)
	}
	return nil
}

func (t *device) readAt(p []byte, off int64) (int, error) {
	n, err := t.f.ReadAt(p, off)
	if errors.Is(err, io.EOF) {
		err = fmt.Errorf("%s ended at %d: %w", t.path, off+int64(n), chunkstore.ErrInvalid)
	}
	return n, err
}

func (t *device) finish() error {
	if err := t.f.Sync(); err != nil {
		return fmt.Errorf("sync target %s: %w", t.path, cause(err))
	}
	return t.f.Close()
}

func (t *device) abort() string {
	t.f.Close() // there is an error already
	if !t.touched {
		return fmt.Sprintf("%s is as it was", t.path)
	}
	return fmt.Sprintf("%s holds incomplete data: do not use it", t.path)
}
