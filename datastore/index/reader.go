package index

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"iter"

	"holdfast/chunkstore"
)

// Reader reads one index. All methods but Close are safe for concurrent use.
type Reader struct {
	r      io.ReaderAt
	kind   Kind
	count  int64
	size   uint64
	stated [32]byte // the checksum in the header
	layout layout   // of the fixed kind
}

// Open checks the header and the length of an index file of size bytes and
// returns a reader for it. The reader takes over r: if that is an io.Closer,
// Close closes it; if Open returns an error, r is still the caller's. Errors
// about the content wrap chunkstore.ErrCorrupt.
func Open(r io.ReaderAt, size int64, kind Kind) (*Reader, error) {
	if kind != Dynamic && kind != Fixed {
		return nil, fmt.Errorf("open an index: unknown %v: %w", kind, chunkstore.ErrInvalid)
	}
	x := &Reader{r: r, kind: kind}
	if err := x.open(size); err != nil {
		return nil, fmt.Errorf("open a %v index: %w", kind, err)
	}
	return x, nil
}

func (x *Reader) open(size int64) error {
	records := size - headerSize
	if records < x.kind.recordSize() {
		return corrupt("%d bytes are too few for a header of %d and one entry of %d", size, headerSize, x.kind.recordSize())
	}
	var h [chunkSizeOff + 8]byte
	if err := readAt(x.r, h[:], 0); err != nil {
		return fmt.Errorf("read the header: %w", err)
	}
	if got := string(h[magicOff:uuidOff]); got != x.kind.magic() {
		return corrupt("magic %x at byte %d, want %x", got, magicOff, x.kind.magic())
	}
	if records%x.kind.recordSize() != 0 {
		return corrupt("%d bytes of records are not a multiple of %d", records, x.kind.recordSize())
	}
	x.count = records / x.kind.recordSize()
	x.stated = [32]byte(h[csumOff:sizeOff])
	if x.kind == Fixed {
		return x.openFixed(h[:])
	}
	return x.openDynamic()
}

func (x *Reader) openFixed(h []byte) error {
	x.layout = layout{
		size:      binary.LittleEndian.Uint64(h[sizeOff:]),
		chunkSize: binary.LittleEndian.Uint64(h[chunkSizeOff:]),
	}
	if err := x.layout.check(); err != nil {
		return corrupt("header at byte %d: %w", sizeOff, err)
	}
	if want := x.layout.count(); want != uint64(x.count) {
		return corrupt("%d entries, an image of %d bytes in chunks of %d has %d", x.count, x.layout.size, x.layout.chunkSize, want)
	}
	x.size = x.layout.size
	return nil
}

func (x *Reader) openDynamic() error {
	last := x.count - 1
	end, err := x.end(last)
	if err != nil {
		return err
	}
	// Every chunk has 1..PlainSizeMax bytes, so that the count bounds the
	// size from both sides.
	if end < uint64(x.count) || end > SizeMax || (end-1)/chunkstore.PlainSizeMax >= uint64(x.count) {
		return corrupt("end offset %d of the last of %d entries at byte %d is out of range", end, x.count, x.recordOff(last))
	}
	x.size = end
	return nil
}

// corrupt makes an error about the content of an index.
func corrupt(format string, args ...any) error {
	return fmt.Errorf("%w: %w", fmt.Errorf(format, args...), chunkstore.ErrCorrupt)
}

// readAt fills b from off; fewer bytes than the file is said to have is damage.
func readAt(r io.ReaderAt, b []byte, off int64) error {
	n, err := r.ReadAt(b, off)
	switch {
	case n == len(b):
		return nil
	case err == nil || errors.Is(err, io.EOF):
		return corrupt("the file ends at byte %d", off+int64(n))
	}
	return fmt.Errorf("read %d bytes at byte %d: %w", len(b), off, err)
}

// Kind returns the kind of the index.
func (x *Reader) Kind() Kind { return x.kind }

// Count returns how many entries the index has, at least one.
func (x *Reader) Count() int64 { return x.count }

// Size returns the size of the archive in bytes, at least one.
func (x *Reader) Size() uint64 { return x.size }

// ChunkSize returns the size of the chunks of a fixed index in bytes, and 0 for
// a dynamic one.
func (x *Reader) ChunkSize() uint64 { return x.layout.chunkSize }

// CheckStated returns chunkstore.ErrCorrupt unless the header states csum, the
// checksum of the entries (see Summary). Nothing here depends on what it states,
// but other programs compare it.
func (x *Reader) CheckStated(csum [32]byte) error {
	if x.stated != csum {
		return corrupt("the header at byte %d states the checksum %x…, the entries have %x…", csumOff, x.stated[:4], csum[:4])
	}
	return nil
}

// Close closes the file underneath if it can be closed.
func (x *Reader) Close() error {
	if c, ok := x.r.(io.Closer); ok {
		return c.Close()
	}
	return nil
}

// recordOff returns where record i lies in the file.
func (x *Reader) recordOff(i int64) int64 { return headerSize + i*x.kind.recordSize() }

// end returns the end offset that record i of a dynamic index holds.
func (x *Reader) end(i int64) (uint64, error) {
	var b [endSize]byte
	if err := readAt(x.r, b[:], x.recordOff(i)); err != nil {
		return 0, fmt.Errorf("entry %d: %w", i, err)
	}
	return binary.LittleEndian.Uint64(b[:]), nil
}

// At returns entry i, 0 <= i < Count. An entry that breaks the format is
// chunkstore.ErrCorrupt; the error names its number and its byte offset.
func (x *Reader) At(i int64) (Entry, error) {
	if i < 0 || i >= x.count {
		return Entry{}, fmt.Errorf("index entry %d of %d: %w", i, x.count, chunkstore.ErrInvalid)
	}
	// The record before holds where this one begins.
	first := i
	if x.kind == Dynamic && i > 0 {
		first--
	}
	var b [2 * recordSizeMax]byte
	n := (i - first + 1) * x.kind.recordSize()
	if err := readAt(x.r, b[:n], x.recordOff(first)); err != nil {
		return Entry{}, fmt.Errorf("index entry %d: %w", i, err)
	}
	var start uint64
	if first < i {
		start = binary.LittleEndian.Uint64(b[:])
	}
	return x.decode(i, start, b[n-x.kind.recordSize():n])
}

// decode reads record i, which begins at offset start of the archive.
func (x *Reader) decode(i int64, start uint64, rec []byte) (Entry, error) {
	e := Entry{Off: start}
	if x.kind == Fixed {
		e.Off, e.Size = x.layout.at(uint64(i))
	} else {
		end := binary.LittleEndian.Uint64(rec)
		if end <= start || end-start > chunkstore.PlainSizeMax || end > x.size {
			return Entry{}, x.corruptEntry(i, fmt.Errorf("chunk from offset %d to %d, archive of %d", start, end, x.size))
		}
		e.Size = uint32(end - start)
		rec = rec[endSize:]
	}
	e.ID = chunkstore.ID(rec)
	if err := checkEntry(e); err != nil {
		return Entry{}, x.corruptEntry(i, err)
	}
	return e, nil
}

func (x *Reader) corruptEntry(i int64, err error) error {
	return corrupt("index entry %d at byte %d: %w", i, x.recordOff(i), err)
}

// Find returns the number of the entry that covers offset off of the archive,
// 0 <= off < Size.
func (x *Reader) Find(off uint64) (int64, error) {
	if off >= x.size {
		return 0, fmt.Errorf("find offset %d in an archive of %d bytes: %w", off, x.size, chunkstore.ErrInvalid)
	}
	if x.kind == Fixed {
		return int64(off / x.layout.chunkSize), nil
	}
	// The first entry that ends behind off; the last one does.
	lo, hi := int64(0), x.count-1
	for lo < hi {
		mid := lo + (hi-lo)/2
		end, err := x.end(mid)
		if err != nil {
			return 0, fmt.Errorf("find offset %d: %w", off, err)
		}
		if end > off {
			hi = mid
		} else {
			lo = mid + 1
		}
	}
	// In a damaged index the search may have gone astray.
	e, err := x.At(lo)
	if err != nil {
		return 0, fmt.Errorf("find offset %d: %w", off, err)
	}
	if off < e.Off || off-e.Off >= uint64(e.Size) {
		return 0, x.corruptEntry(lo, fmt.Errorf("the end offsets before it do not increase"))
	}
	return lo, nil
}

// All yields the entries from number from on, in order, reading ahead through a
// buffer. After an error, which is as from At, it yields nothing more.
func (x *Reader) All(from int64) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		if from < 0 || from > x.count {
			yield(Entry{}, fmt.Errorf("index entries from %d of %d: %w", from, x.count, chunkstore.ErrInvalid))
			return
		}
		var start uint64
		if x.kind == Dynamic && from > 0 {
			var err error
			if start, err = x.end(from - 1); err != nil {
				yield(Entry{}, err)
				return
			}
		}
		x.scan(from, start, yield)
	}
}

// scan yields the entries from number i on; the first begins at offset start.
func (x *Reader) scan(i int64, start uint64, yield func(Entry, error) bool) {
	size := x.kind.recordSize()
	buf := make([]byte, min(bufferSize/size, x.count-i)*size)
	for i < x.count {
		part := buf[:min(int64(len(buf)), (x.count-i)*size)]
		if err := readAt(x.r, part, x.recordOff(i)); err != nil {
			yield(Entry{}, fmt.Errorf("index entries from %d on: %w", i, err))
			return
		}
		for ; len(part) > 0; part = part[size:] {
			e, err := x.decode(i, start, part[:size])
			if !yield(e, err) || err != nil {
				return
			}
			start = e.Off + uint64(e.Size)
			i++
		}
	}
}

// Summary reads all entries and computes the summary that the manifest must
// agree with.
func (x *Reader) Summary() (Summary, error) {
	s := NewSummer(x.kind)
	for e, err := range x.All(0) {
		if err != nil {
			return Summary{}, err
		}
		s.Add(e)
	}
	return s.Summary(), nil
}

// Distinct yields all entries in the order of the file, many at a time, and of a run of
// entries of one chunk only the first. The slice is valid until the next.
func (x *Reader) Distinct() iter.Seq2[[]Entry, error] {
	return func(yield func([]Entry, error) bool) {
		batch := make([]Entry, 0, min(x.count, distinctMost))
		var last Entry
		for e, err := range x.All(0) {
			if err != nil {
				yield(nil, err)
				return
			}
			if e.ID == last.ID && e.Size == last.Size {
				continue
			}
			last = e
			if batch = append(batch, e); len(batch) < distinctMost {
				continue
			}
			if !yield(batch, nil) {
				return
			}
			batch = batch[:0]
		}
		if len(batch) > 0 {
			yield(batch, nil)
		}
	}
}

// distinctMost is how many entries Distinct yields at once.
const distinctMost = 8192
