package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"

	"holdfast/crypto"

	"golang.org/x/sys/unix"
)

// scanWindow is how much of a file is searched at a time for the next record.
const scanWindow = 1 << 20

// scanResult is what a scan has found beside the records it has handed out.
type scanResult struct {
	end     int64 // of the last sound record, or where the scan began
	damaged int   // records and stretches that are not sound
	skipped int64 // bytes in them
}

// scanner reads the records of a pack one by one, with their checksums.
type scanner struct {
	r    io.ReaderAt
	id   packID
	size int64 // nothing behind this is looked at
	buf  []byte

	// sound is called for each sound record.
	sound func(entry) error
	// damaged, if not nil, is called for each record whose header is sound
	// and whose stored bytes are not.
	damaged func(entry)
}

// scan goes through the file from off on. Where a record is damaged it goes on
// with the next one that can be found. Errors are those of reading, of sound
// and of ctx.
func (sc *scanner) scan(ctx context.Context, off int64) (scanResult, error) {
	res := scanResult{end: off}
	for off+recordSize <= sc.size {
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
			res.damaged++
			res.skipped += next - off
			off = next
			continue
		}
		ok, err := sc.prove(*e)
		if err != nil {
			return res, err
		}
		off = e.end()
		if !ok {
			res.damaged++
			res.skipped += e.size()
			if sc.damaged != nil {
				sc.damaged(*e)
			}
			continue
		}
		res.end = off
		if err := sc.sound(*e); err != nil {
			return res, err
		}
	}
	if off < sc.size {
		res.damaged++
		res.skipped += sc.size - off
	}
	return res, nil
}

// header reads the header of the record at off. nil means that there is none,
// or not one that fits into the file.
func (sc *scanner) header(off int64) (*entry, error) {
	b := make([]byte, recordSize)
	if _, err := sc.r.ReadAt(b, off); err != nil {
		return nil, err
	}
	r, err := decodeRecord(b, sc.id)
	if err != nil {
		return nil, nil
	}
	e := entry{record: r, off: off}
	if e.end() > sc.size {
		return nil, nil
	}
	return &e, nil
}

// prove compares the stored bytes of a record with its checksum.
func (sc *scanner) prove(e entry) (bool, error) {
	if e.claim {
		return true, nil // its header is all there is
	}
	if cap(sc.buf) < int(e.stored) {
		sc.buf = make([]byte, max(int(e.stored), scanWindow))
	}
	b := sc.buf[:e.stored]
	if _, err := sc.r.ReadAt(b, e.off+recordSize); err != nil {
		return false, err
	}
	return crypto.Sum(b) == e.sum, nil
}

// find returns the offset of the next sound record from off on, or the size.
// Only a record with sound content is believed here.
func (sc *scanner) find(ctx context.Context, off int64) (int64, error) {
	window := make([]byte, scanWindow)
	for off+recordSize <= sc.size {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
		b := window[:min(scanWindow, sc.size-off)]
		if _, err := sc.r.ReadAt(b, off); err != nil {
			return 0, err
		}
		at, found, err := sc.search(b, off)
		if err != nil || found {
			return at, err
		}
		off = at
	}
	return sc.size, nil
}

// search looks for a sound record that begins in b, which lies at off and is
// at least as long as a header. When there is none it returns the offset to
// go on from.
func (sc *scanner) search(b []byte, off int64) (at int64, found bool, err error) {
	for i := 0; ; i++ {
		j := bytes.Index(b[i:], []byte(recordMagic))
		if j < 0 || i+j+recordSize > len(b) {
			// A header may lie across the end of b.
			return off + int64(len(b)) - recordSize + 1, false, nil
		}
		i += j
		r, err := decodeRecord(b[i:i+recordSize], sc.id)
		e := entry{record: r, off: off + int64(i)}
		if err != nil || e.end() > sc.size {
			continue
		}
		if ok, err := sc.prove(e); err != nil || ok {
			return e.off, true, err
		}
	}
}

// readFooter reads the table of the sealed pack called id, of size bytes.
func readFooter(r io.ReaderAt, size int64, id packID) ([]entry, error) {
	if size < headerSize+trailerSize {
		return nil, errors.New("footer: the file is too short")
	}
	tb := make([]byte, trailerSize)
	if _, err := r.ReadAt(tb, size-trailerSize); err != nil {
		return nil, err
	}
	t, err := decodeTrailer(tb, size)
	if err != nil {
		return nil, err
	}
	head, table := make([]byte, headerSize), make([]byte, t.tableSize())
	if _, err := r.ReadAt(head, 0); err != nil {
		return nil, err
	}
	if other, _, err := decodeHeader(head); err == nil && other != id {
		return nil, fmt.Errorf("footer: belongs to pack %s", other)
	}
	if _, err := r.ReadAt(table, t.tableOff); err != nil {
		return nil, err
	}
	return decodeTable(t, head, table)
}

// patchyReader reads what can be read of a file with bad sectors: blocks that
// the medium does not give come back as zeros, which no checksum agrees with.
type patchyReader struct {
	r   io.ReaderAt
	bad int // blocks that could not be read
}

// patch is the unit of patchyReader, in bytes.
const patch = 4096

// ReadAt implements io.ReaderAt.
func (p *patchyReader) ReadAt(b []byte, off int64) (int, error) {
	n, err := p.r.ReadAt(b, off)
	if !errors.Is(err, unix.EIO) {
		return n, err
	}
	for n = 0; n < len(b); {
		end := min(n+patch-int((off+int64(n))%patch), len(b))
		m, err := p.r.ReadAt(b[n:end], off+int64(n))
		switch {
		case errors.Is(err, unix.EIO):
			p.bad++
			clear(b[n:end])
		case err != nil:
			return n + m, err
		}
		n = end
	}
	return n, nil
}
