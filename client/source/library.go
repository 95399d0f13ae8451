package source

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/flate"
	"github.com/klauspost/compress/zstd"
	"github.com/lima-vm/go-qcow2reader/image"
	"github.com/lima-vm/go-qcow2reader/image/qcow2"
	"github.com/lima-vm/go-qcow2reader/log"
)

// library reads the clusters of one qcow2 file through the qcow2 library,
// which trusts its input: it takes whatever memory the header asks for, opens
// whatever file the header names, and panics on some damage. So it never sees
// the header of the file but one written here from checked values, without a
// backing file, and its panics end here.
type library struct {
	img *qcow2.Qcow2
}

// setUpLibrary hands the library its decompressors and takes away its log,
// both of which it keeps in package variables.
var setUpLibrary = sync.OnceFunc(func() {
	qcow2.SetDecompressor(qcow2.CompressionTypeZlib, newInflate())
	qcow2.SetDecompressor(qcow2.CompressionTypeZstd, newUnzstd())
	log.SetWarnFunc(nil)
})

func openLibrary(f *file, h *header) (l *library, err error) {
	setUpLibrary()
	defer recoverInto(&err)
	img, err := qcow2.Open(&masked{head: plainHeader(h), file: f}, refuseBacking)
	if err == nil {
		err = img.Readable()
	}
	if err != nil {
		return nil, fmt.Errorf("open with the qcow2 library: %w", err)
	}
	return &library{img: img}, nil
}

// refuseBacking is what the library would open backing files with. The header
// that it is shown names none.
func refuseBacking(io.ReaderAt, image.Type) (image.Image, error) {
	return nil, ErrBacking
}

// readAt fills p with what is at off of the disk.
func (l *library) readAt(p []byte, off int64) (err error) {
	defer recoverInto(&err)
	n, err := l.img.ReadAt(p, off)
	// The library calls the end of the disk io.EOF even if p is filled.
	if n == len(p) && (err == nil || errors.Is(err, io.EOF)) {
		return nil
	}
	if err == nil || errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: %w", ErrDamaged, io.ErrUnexpectedEOF)
	}
	return err
}

// recoverInto makes an error of a panic.
func recoverInto(err *error) {
	if v := recover(); v != nil {
		*err = fmt.Errorf("the qcow2 library panicked: %v: %w", v, ErrDamaged)
	}
}

// plainHeaderSize is the fixed part of a version 3 header with a compression
// type, and the end of the header extensions.
const plainHeaderSize = headerSizeV3 + 8 + 8

// plainHeader writes a version 3 header with what is needed to read clusters.
func plainHeader(h *header) []byte {
	b := make([]byte, plainHeaderSize)
	copy(b, qcow2Magic)
	binary.BigEndian.PutUint32(b[4:], 3)
	binary.BigEndian.PutUint32(b[20:], h.clusterBits)
	binary.BigEndian.PutUint64(b[24:], uint64(h.size))
	binary.BigEndian.PutUint32(b[36:], uint32(h.l1Count))
	binary.BigEndian.PutUint64(b[40:], uint64(h.l1Off))
	binary.BigEndian.PutUint64(b[72:], h.features&(1<<bitCompression|1<<bitExtendedL2))
	binary.BigEndian.PutUint32(b[96:], 4) // refcount order, not used
	binary.BigEndian.PutUint32(b[100:], headerSizeV3+8)
	b[headerSizeV3] = h.compression
	return b
}

// masked is a file that begins with other bytes.
type masked struct {
	head []byte
	file *file
}

// ReadAt implements io.ReaderAt.
func (m *masked) ReadAt(p []byte, off int64) (int, error) {
	n, err := m.file.ReadAt(p, off)
	if off >= 0 && off < int64(len(m.head)) {
		copy(p[:n], m.head[off:])
	}
	return n, err
}

// decompressBuffer is how much compressed data is read at once, in bytes.
const decompressBuffer = 32 << 10

// zstdWindowMax bounds the memory that a zstd frame can ask for, in bytes. A
// cluster has 2 MiB at most.
const zstdWindowMax = 8 << 20

// decompressor opens one compressed cluster for the library. The library takes
// a short read for the whole cluster's end or starts over, so Read fills its
// buffer or fails.
type decompressor struct {
	in   *bufio.Reader
	out  io.Reader
	done func(*decompressor)
}

// Read fills p or returns an error.
func (d *decompressor) Read(p []byte) (int, error) {
	n, err := io.ReadFull(d.out, p)
	if err != nil {
		return n, fmt.Errorf("decompress cluster: %w: %w", err, ErrDamaged)
	}
	return n, nil
}

// Close gives the decompressor back for the next cluster.
func (d *decompressor) Close() error {
	d.done(d)
	return nil
}

func newInflate() qcow2.Decompressor {
	pool := &sync.Pool{}
	pool.New = func() any {
		in := bufio.NewReaderSize(nil, decompressBuffer)
		return &decompressor{in: in, out: flate.NewReader(in), done: func(d *decompressor) { pool.Put(d) }}
	}
	return func(r io.Reader) (io.ReadCloser, error) {
		d := pool.Get().(*decompressor)
		d.in.Reset(r)
		return d, d.out.(flate.Resetter).Reset(d.in, nil)
	}
}

func newUnzstd() qcow2.Decompressor {
	pool := &sync.Pool{}
	return func(r io.Reader) (io.ReadCloser, error) {
		d, ok := pool.Get().(*decompressor)
		if !ok {
			// One goroutine: decoding ahead would run into the padding that
			// follows the frame.
			z, err := zstd.NewReader(nil, zstd.WithDecoderConcurrency(1), zstd.WithDecoderLowmem(true),
				zstd.WithDecoderMaxWindow(zstdWindowMax))
			if err != nil {
				return nil, err
			}
			in := bufio.NewReaderSize(nil, decompressBuffer)
			d = &decompressor{in: in, out: z, done: func(d *decompressor) { pool.Put(d) }}
		}
		d.in.Reset(r)
		if err := d.out.(*zstd.Decoder).Reset(d.in); err != nil {
			return nil, err
		}
		return d, nil
	}
}
