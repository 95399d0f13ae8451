package packfile

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"

	"holdfast/crypto"
)

// scanWindow is how much of a file is searched at a time for the next record.
const scanWindow = 1 << 20

// ScanResult is what a scan has found beside the records it has handed out.
type ScanResult struct {
	End     int64 // of the last sound record, or where the scan began
	Damaged int   // records and stretches that are not sound
	Skipped int64 // bytes in them
}

// Scanner reads the records of a pack one by one, with their checksums.
type Scanner struct {
	R    io.ReaderAt
	ID   ID
	Size int64 // nothing behind this is looked at
	buf  []byte

	// sound is called for each sound record.
	Sound func(Entry) error
	// damaged, if not nil, is called for each record whose header is sound
	// and whose stored bytes are not.
	Damaged func(Entry)
}

// Scan goes through the file from off on. Where a record is damaged it goes on
// with the next one that can be found. Errors are those of reading, of sound
// and of ctx.
func (sc *Scanner) Scan(ctx context.Context, off int64) (ScanResult, error) {
	res := ScanResult{End: off}
	for off+RecordSize <= sc.Size {
		if err := ctx.Err(); err != nil {
			return res, err
		}
		e, err := sc.header(off)
		if err != nil {
			return res, err
		}
		if e == nil {
			next, err := sc.find(ctx, off+1)
			if err != nil {
				return res, err
			}
			res.Damaged++
			res.Skipped += next - off
			off = next
			continue
		}
		ok, err := sc.prove(*e)
		if err != nil {
			return res, err
		}
		off = e.End()
		if !ok {
			res.Damaged++
			res.Skipped += e.Size()
			if sc.Damaged != nil {
				sc.Damaged(*e)
			}
			continue
		}
		res.End = off
		if err := sc.Sound(*e); err != nil {
			return res, err
		}
	}
	if off < sc.Size {
		res.Damaged++
		res.Skipped += sc.Size - off
	}
	return res, nil
}

// header reads the header of the record at off. nil means that there is none,
// or not one that fits into the file.
func (sc *Scanner) header(off int64) (*Entry, error) {
	b := make([]byte, RecordSize)
	if _, err := sc.R.ReadAt(b, off); err != nil {
		return nil, err
	}
	r, err := DecodeRecord(b, sc.ID)
	if err != nil {
		return nil, nil
	}
	e := Entry{Record: r, Off: off}
	if e.End() > sc.Size {
		return nil, nil
	}
	return &e, nil
}

// prove compares the stored bytes of a record with its checksum.
func (sc *Scanner) prove(e Entry) (bool, error) {
	if e.Claim {
		return true, nil // its header is all there is
	}
	if cap(sc.buf) < int(e.Stored) {
		sc.buf = make([]byte, max(int(e.Stored), scanWindow))
	}
	b := sc.buf[:e.Stored]
	if _, err := sc.R.ReadAt(b, e.Off+RecordSize); err != nil {
		return false, err
	}
	return crypto.Sum(b) == e.Sum, nil
}

// find returns the offset of the next sound record from off on, or the size.
// Only a record with sound content is believed here.
func (sc *Scanner) find(ctx context.Context, off int64) (int64, error) {
	window := make([]byte, scanWindow)
	for off+RecordSize <= sc.Size {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b := window[:min(scanWindow, sc.Size-off)]
		if _, err := sc.R.ReadAt(b, off); err != nil {
			return 0, err
		}
		at, found, err := sc.search(b, off)
		if err != nil || found {
			return at, err
		}
		off = at
	}
	return sc.Size, nil
}

// search looks for a sound record that begins in b, which lies at off and is
// at least as long as a header. When there is none it returns the offset to
// go on from.
func (sc *Scanner) search(b []byte, off int64) (at int64, found bool, err error) {
	for i := 0; ; i++ {
		j := bytes.Index(b[i:], []byte(RecordMagic))
		if j < 0 || i+j+RecordSize > len(b) {
			// A header may lie across the end of b.
			return off + int64(len(b)) - RecordSize + 1, false, nil
		}
		i += j
		r, err := DecodeRecord(b[i:i+RecordSize], sc.ID)
		e := Entry{Record: r, Off: off + int64(i)}
		if err != nil || e.End() > sc.Size {
			continue
		}
		if ok, err := sc.prove(e); err != nil || ok {
			return e.Off, true, err
		}
	}
}

// ReadFooter reads the table of the sealed pack called id, of size bytes.
func ReadFooter(r io.ReaderAt, size int64, id ID) ([]Entry, error) {
	if size < HeaderSize+TrailerSize {
		return nil, errors.New("footer: the file is too short")
	}
	tb := make([]byte, TrailerSize)
	if _, err := r.ReadAt(tb, size-TrailerSize); err != nil {
		return nil, err
	}
	t, err := decodeTrailer(tb, size)
	if err != nil {
		return nil, err
	}
	head, table := make([]byte, HeaderSize), make([]byte, t.tableSize())
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if other, _, err := DecodeHeader(head); err == nil && other != id {
		return nil, fmt.Errorf("footer: belongs to pack %s", other)
	}
	if _, err := r.ReadAt(table, t.tableOff); err != nil {
		return nil, err
	}
	return decodeTable(t, head, table)
}

// PatchyReader reads what can be read of a file with bad sectors: blocks that
// the medium does not give come back as zeros, which no checksum agrees with.
type PatchyReader struct {
	R   io.ReaderAt
	Bad int // blocks that could not be read
}

// patch is the unit of patchyReader, in bytes.
const patch = 4096

// ReadAt implements io.ReaderAt.
func (p *PatchyReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.R.ReadAt(b, off)
	if !errors.Is(err, unix.EIO) {
		return n, err
	}
	for n = 0; n < len(b); {
		end := min(n+patch-int((off+int64(n))%patch), len(b))
		m, err := p.R.ReadAt(b[n:end], off+int64(n))
		switch {
		case errors.Is(err, unix.EIO):
			p.Bad++
			clear(b[n:end])
		case err != nil:
			return n + m, err
		}
		n = end
	}
	return n, nil
}
