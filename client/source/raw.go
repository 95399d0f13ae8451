package source

import (
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// raw is a file or block device whose bytes are the disk. It is an image by
// itself and can be the lowest layer of a chain.
type raw struct {
	*file
}

// Size implements Image.
func (r *raw) Size() int64 { return r.length }

// Extent implements Image.
func (r *raw) Extent(off int64) (Extent, error) {
	if off < 0 || off >= r.length {
		return Extent{}, fmt.Errorf("%s: extent at %d is not within 0..%d", r.path, off, r.length-1)
	}
	found, err := r.look(off, r.length-off)
	if err != nil {
		return Extent{}, err
	}
	return Extent{Off: off, Len: found.n, Kind: kindOf(found.at)}, nil
}

// kindOf is the kind of a run that has been looked for in every layer.
func kindOf(at place) Kind {
	if at == here {
		return Data
	}
	return Zero
}

// Verify implements Image.
func (r *raw) Verify() error { return r.verify() }

func (r *raw) size() int64 { return r.length }

// holeRaced is how much is called data, in bytes, when a hole was punched
// between two questions about it. Reading is right in any case.
const holeRaced = 4096

// look asks the file system for holes. Its answer moves the position of the
// open file, which nothing here uses.
func (r *raw) look(off, most int64) (run, error) {
	if r.id.block {
		return run{most, here}, nil
	}
	data, err := r.f.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO):
		// A hole to the end; but the end may have come nearer.
		return run{most, zero}, r.checkLength()
	case noHoles(err):
		return run{most, here}, nil
	case err != nil:
		return run{}, fmt.Errorf("find data of %s at %d: %w", r.path, off, cause(err))
	case data > off:
		return run{min(data-off, most), zero}, nil
	}
	hole, err := r.f.Seek(off, unix.SEEK_HOLE)
	switch {
	case errors.Is(err, unix.ENXIO):
		return run{min(holeRaced, most), here}, r.checkLength()
	case noHoles(err):
		return run{most, here}, nil
	case err != nil:
		return run{}, fmt.Errorf("find hole of %s at %d: %w", r.path, off, cause(err))
	case hole <= off:
		return run{min(holeRaced, most), here}, nil
	}
	return run{min(hole-off, most), here}, nil
}

// noHoles reports whether the file system cannot tell of holes.
func noHoles(err error) bool {
	return errors.Is(err, unix.EINVAL) || errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS)
}

func (r *raw) readAt(p []byte, off int64) error {
	n, err := r.ReadAt(p, off)
	if n == len(p) {
		return nil
	}
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}
