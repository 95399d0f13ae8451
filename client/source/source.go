// Package source opens what can be backed up as an image: a raw file, a block
// device, or a qcow2 file with its backing chain; and it runs a command whose
// output is a stream to back up.
//
// The nouns:
//
//   - Image: a disk as its guest sees it, readable at any offset.
//   - Extent: a piece of an image that is either data or known to be zero, so
//     that zeros need not be read.
//   - layer: one file of an image. A raw image is one layer; a qcow2 image is
//     one for each file of its backing chain, composed here.
//
// It promises that the extents of an image cover it without gap or overlap,
// that what is called zero reads as zero, that a read which cannot be
// completed is an error and never silence, and that no file is opened other
// than the one asked for and those backing files that Options permits, that a
// file which is known not to be a disk is refused, and that nobody who keeps to
// QEMU's image locks writes to an image while it is open here. An
// image file is foreign input: every number in it is checked before it is
// used, and what memory it can claim is bounded: for each layer 64 MiB of L1
// tables (the largest that qemu accepts, held twice), 4 to 8 MiB of L2 tables
// here and 16 L2 tables of one cluster each in the qcow2 library.
//
// The package may import the standard library, x/sys, the qcow2 library and
// the decompressors it needs; no other package of this module.
package source

import (
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// Errors of this package, matched with errors.Is.
var (
	// ErrChanged is returned when the source is no longer what was opened:
	// another size, another file under its name, or moved qcow2 tables.
	ErrChanged = errors.New("changed while it was read")
	// ErrDamaged is returned for a qcow2 file that contradicts its format.
	ErrDamaged = errors.New("damaged image")
	// ErrUnsupported is returned for a sound source of a kind that cannot be
	// read: an encrypted image, a directory, a pipe, a foreign format.
	ErrUnsupported = errors.New("not supported")
	// ErrBacking is returned when a backing file may not be followed.
	ErrBacking = errors.New("backing file refused")
	// ErrForeign is returned for a file that is no disk but has one in it, in a
	// format that is not read here: its bytes would restore as a file that no
	// machine boots from.
	ErrForeign = errors.New("foreign image format")
	// ErrInUse is returned for an image that another program writes to.
	ErrInUse = errors.New("image in use")
	// ErrEmpty is returned by those who back up for a source without a byte,
	// which is seldom what was meant: whoever was to write it has failed.
	ErrEmpty = errors.New("empty source")
	// ErrSizeless is returned for a file that has content though its size is 0, as
	// those of /proc are.
	ErrSizeless = errors.New("source without a size")
	// ErrCommand is returned when the command that makes a stream has failed.
	ErrCommand = errors.New("its output may be incomplete")
)

// Kind tells what an extent is made of.
type Kind int

const (
	// Data has to be read to know what it is.
	Data Kind = iota
	// Zero reads as zero bytes and need not be read.
	Zero
)

// String returns "data" or "zero".
func (k Kind) String() string {
	switch k {
	case Data:
		return "data"
	case Zero:
		return "zero"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Extent is a piece of an image. Off and Len are in bytes.
type Extent struct {
	Off, Len int64
	Kind     Kind
}

// Image is a disk to back up. All methods but Close are safe for concurrent
// use.
type Image interface {
	// Size is the length of the image in bytes, fixed when it was opened.
	Size() int64
	// Extent returns the extent that begins at off, which must be within
	// 0..Size-1. It is at least one byte long, ends at Size or before, and is
	// as long as is cheap to tell: the next one may be of the same kind.
	Extent(off int64) (Extent, error)
	// ReaderAt keeps to the contract of io.ReaderAt: io.EOF only at Size. A
	// source that ends before is an error that wraps ErrChanged. p belongs to
	// the caller.
	io.ReaderAt
	// Verify is to be called after everything was read. It tells whether the
	// source is still the one that was opened, with the same size; if not,
	// the error wraps ErrChanged. That its content or time stamps have
	// changed is no error.
	Verify() error
	io.Closer
}

// Options say how to open a source. The zero value is the safe choice.
type Options struct {
	// AllowBacking follows the backing file of a qcow2 image wherever it is.
	// Without it only one that lies beside the image is followed.
	AllowBacking bool
	// Format is how to read the source.
	Format Format
	// ForceShare reads an image that another program has open for writing, and
	// keeps nobody from opening it meanwhile. Without it an image that QEMU
	// writes to is refused, as by QEMU's own tools, and QEMU is kept from opening
	// the image for writing until it is closed here.
	ForceShare bool
}

// Format is how the bytes of a source make an image.
type Format int

const (
	// Auto reads a file that begins with the qcow2 magic as qcow2, refuses what
	// Recognise knows, and takes all else as raw. A guest can write such a
	// beginning onto its own raw disk, and name a neighbour's image in it; so a
	// block device, and a file called *.raw, are raw whatever they begin with.
	Auto Format = iota
	// Raw takes the bytes as they are.
	Raw
	// Qcow2 takes nothing else.
	Qcow2
)

// ParseFormat reads "auto", "raw" or "qcow2".
func ParseFormat(s string) (Format, error) {
	for f, name := range map[Format]string{Auto: "auto", Raw: "raw", Qcow2: "qcow2"} {
		if s == name {
			return f, nil
		}
	}
	return 0, fmt.Errorf("source format %q: want auto, raw or qcow2: %w", s, ErrUnsupported)
}

// Open opens the regular file or block device at path. A missing source is an
// error that wraps fs.ErrNotExist.
func Open(path string, o Options) (Image, error) {
	f, err := openFile(path, 0)
	if err != nil {
		return nil, err
	}
	isQcow2, err := f.check(o)
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	if !isQcow2 {
		f.adviseSequential()
		return &raw{file: f}, nil
	}
	return openChain(f, o)
}

// check refuses what is not to be read, and tells how to read the rest.
func (f *file) check(o Options) (isQcow2 bool, err error) {
	if err := f.prepare(o); err != nil {
		return false, err
	}
	return f.isQcow2(o.Format)
}

// prepare refuses a file that somebody writes to and one that hides its
// content.
func (f *file) prepare(o Options) error {
	if !o.ForceShare {
		if err := shareLock(f.f); err != nil {
			return fmt.Errorf("source %w", err)
		}
	}
	return f.checkContent()
}

// isQcow2 decides how to read a file.
func (f *file) isQcow2(format Format) (bool, error) {
	if format == Raw || format == Auto && f.alwaysRaw() {
		return false, nil
	}
	r, found, err := f.recognise()
	switch {
	case err != nil:
		return false, err
	case found && r.way == asItIs:
		return true, nil
	case found:
		return false, r.refuse(f.path)
	case format == Qcow2:
		return false, fmt.Errorf("%s: no qcow2 image: %w", f.path, ErrUnsupported)
	}
	return false, nil
}

// alwaysRaw reports whether the file is raw whatever it begins with.
func (f *file) alwaysRaw() bool {
	return f.id.block || strings.EqualFold(filepath.Ext(f.path), ".raw")
}

// place says where the bytes of a run are.
type place int

const (
	here  place = iota // in the layer that was asked
	zero               // nowhere: they are zero
	below              // in the backing file, if there is one, else zero
)

// run is a number of bytes, all in the same place.
type run struct {
	n  int64
	at place
}

// layer is one file of an image. look tells of the run that begins at off, at
// least 1 and at most most bytes; off+most must not exceed size. readAt reads
// bytes that look placed here. Both are safe for concurrent use.
type layer interface {
	size() int64
	look(off, most int64) (run, error)
	readAt(p []byte, off int64) error
	verify() error
	io.Closer
}

// clip cuts p so that it ends at size. A read of the rest must return eof when
// it is complete.
func clip(p []byte, off, size int64) (rest []byte, eof error) {
	if off < 0 {
		return nil, fmt.Errorf("read at negative offset %d", off)
	}
	if off >= size {
		return nil, io.EOF
	}
	if int64(len(p)) > size-off {
		return p[:size-off], io.EOF
	}
	return p, nil
}
