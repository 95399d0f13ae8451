package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"holdfast/chunkstore"
)

// bufferSize is how many bytes of records a sequential read holds.
const bufferSize = 64 << 10

// pendingSize is how many bytes of records a Writer holds. There may be thousands of them.
const pendingSize = 8 << 10

// Options say what index to write.
type Options struct {
	Kind Kind
	// Size is the size of the image in bytes and ChunkSize the size of all
	// its chunks but the last, a power of two; both for the fixed kind only.
	Size      uint64
	ChunkSize uint64
	// Grow says that the size of the image of a fixed index is not known;
	// Size is 0 then and entries are put by WriteAt. The image ends with the
	// last chunk.
	Grow bool
	// UUID and Ctime (Unix seconds) go into the header; nothing depends on
	// them.
	UUID  [16]byte
	Ctime int64
}

// errClosed is returned for the use of a closed Writer.
var errClosed = errors.New("the writer is closed")

// Writer writes one index. It is not safe for concurrent use.
type Writer struct {
	w      io.WriterAt
	o      Options
	layout layout
	sum    *Summer
	buf    []byte
	off    int64 // where buf goes in the file
	err    error // first error; nothing is written after it

	placed  bool // entries came by WriteAt, so that sum is of no use
	growing bool // the size of the image is not known yet
}

// NewWriter begins an index in w, which must be empty. The writer does not
// close w.
func NewWriter(w io.WriterAt, o Options) (*Writer, error) {
	l := layout{o.Size, o.ChunkSize}
	switch o.Kind {
	case Dynamic:
		if o.Size != 0 || o.ChunkSize != 0 || o.Grow {
			return nil, fmt.Errorf("create a dynamic index: size and chunk size belong to the fixed kind: %w", chunkstore.ErrInvalid)
		}
	case Fixed:
		if o.Grow && o.Size != 0 {
			return nil, fmt.Errorf("create a fixed index: it has a size and is to grow: %w", chunkstore.ErrInvalid)
		}
		checked := l
		if o.Grow {
			checked.size = 1
		}
		if err := checked.check(); err != nil {
			return nil, fmt.Errorf("create a fixed index: %w: %w", err, chunkstore.ErrInvalid)
		}
	default:
		return nil, fmt.Errorf("create an index: unknown %v: %w", o.Kind, chunkstore.ErrInvalid)
	}
	return &Writer{
		w: w, o: o, layout: l,
		sum: NewSummer(o.Kind),
		off: headerSize,

		placed: o.Grow, growing: o.Grow,
	}, nil
}

// Append adds entries that follow the last one without a gap. Entries of a
// fixed index must have its chunk size, but for the last. An entry that does
// not fit is chunkstore.ErrInvalid and is not added, while those before it
// are; after an error of the file underneath nothing more can be added. After
// WriteAt, Append is the same as that.
func (w *Writer) Append(entries ...Entry) error {
	if w.placed {
		return w.WriteAt(entries...)
	}
	for _, e := range entries {
		if w.err != nil {
			return w.err
		}
		if err := w.check(e); err != nil {
			return fmt.Errorf("append entry %d at offset %d: %w: %w", w.sum.sum.Count, e.Off, err, chunkstore.ErrInvalid)
		}
		w.sum.Add(e)
		w.buf = appendRecord(w.buf, w.o.Kind, e)
		if len(w.buf)+recordSizeMax > pendingSize {
			w.flush()
		}
	}
	return w.err
}

func (w *Writer) check(e Entry) error {
	if err := checkEntry(e); err != nil {
		return err
	}
	if e.Off != w.sum.sum.Size {
		return fmt.Errorf("the archive has %d bytes so far", w.sum.sum.Size)
	}
	if w.o.Kind != Fixed {
		return nil
	}
	if w.sum.sum.Count >= w.layout.count() {
		return fmt.Errorf("the image of %d bytes is complete", w.layout.size)
	}
	if _, size := w.layout.at(w.sum.sum.Count); e.Size != size {
		return fmt.Errorf("chunk of %d bytes, want %d", e.Size, size)
	}
	return nil
}

func (w *Writer) flush() {
	if w.err != nil || len(w.buf) == 0 {
		return
	}
	if _, err := w.w.WriteAt(w.buf, w.off); err != nil {
		w.err = fmt.Errorf("write index records at byte %d: %w", w.off, err)
		return
	}
	w.off += int64(len(w.buf))
	w.buf = w.buf[:0]
}

// Close writes what is left and then the header. An index without entries, or
// a fixed one that does not reach the end of its image, is
// chunkstore.ErrInvalid and stays without header. Close neither syncs nor
// closes the file underneath; the writer cannot be used afterwards.
func (w *Writer) Close() (Summary, error) {
	if w.err != nil {
		return Summary{}, w.err
	}
	sum, err := w.summary()
	if err != nil {
		w.err = errClosed
		return Summary{}, fmt.Errorf("close the index: %w", err)
	}
	w.flush()
	if w.err != nil {
		return Summary{}, w.err
	}
	if _, err := w.w.WriteAt(w.header(sum), 0); err != nil {
		w.err = fmt.Errorf("write the index header: %w", err)
		return Summary{}, w.err
	}
	w.err = errClosed
	return sum, nil
}

// summary describes the entries if they are complete.
func (w *Writer) summary() (Summary, error) {
	if w.placed {
		return w.placedSummary()
	}
	sum := w.sum.Summary()
	if sum.Count == 0 {
		return Summary{}, fmt.Errorf("it has no entries: %w", chunkstore.ErrInvalid)
	}
	if w.o.Kind == Fixed && sum.Size != w.layout.size {
		return Summary{}, fmt.Errorf("%d of %d bytes of the image are there: %w", sum.Size, w.layout.size, chunkstore.ErrInvalid)
	}
	return sum, nil
}

func (w *Writer) header(sum Summary) []byte {
	h := make([]byte, headerSize)
	copy(h[magicOff:], w.o.Kind.magic())
	copy(h[uuidOff:], w.o.UUID[:])
	binary.LittleEndian.PutUint64(h[ctimeOff:], uint64(w.o.Ctime))
	copy(h[csumOff:], sum.Csum[:])
	if w.o.Kind == Fixed {
		binary.LittleEndian.PutUint64(h[sizeOff:], w.layout.size)
		binary.LittleEndian.PutUint64(h[chunkSizeOff:], w.layout.chunkSize)
	}
	return h
}
