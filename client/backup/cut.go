package backup

import (
	"bytes"
	"context"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/chunker"
)

// Sizes of the cutting, in bytes. All but the chunker's own are part of what
// decides where a cut falls, so they stand in cutName.
const (
	// gridSize is the unit of reading and of zero detection: a block of the
	// grid that holds only zeros is never part of a data chunk.
	gridSize = 256 << 10
	// regionSize is where an image is split so that several cores can cut it;
	// every region begins and ends with a cut.
	regionSize = 64 << 20
	// fixedSize is the size of chunks of a fixed index, and of the largest
	// zero chunk of a dynamic one.
	fixedSize = 4 << 20
)

// cutName names this way of cutting, so that a later version knows whether the
// boundaries of an earlier backup are ones it would have chosen itself.
func cutName(p chunker.Params, region int64) string {
	return fmt.Sprintf("%s-zero-%d-%d-region-%d", p, gridSize, fixedSize, region)
}

// piece is a chunk that has been cut and not yet stored.
type piece struct {
	off  int64
	size int
	zero bool
	// buf holds the bytes of a data piece; whoever takes the piece gives the
	// buffer back. nil for zero and for unchanged pieces.
	buf []byte
	// sum is over buf as it was read, so that a bit that flips later is seen.
	sum uint64
	// same says that the previous snapshot has the piece, called id, at the
	// same place.
	same bool
	id   chunkstore.ID
}

// reader is where a cutter's bytes come from.
type reader interface {
	// fill reads n bytes at off, fewer than len(p) only where a stream ends.
	// zero says that they are all zero; p need not be written then.
	fill(off int64, p []byte) (n int, zero bool, err error)
}

// span is a part of an archive, in bytes: [off, end).
type span struct{ off, end int64 }

// cutter cuts one span at a time into pieces. It is used by one goroutine.
//
// buf[:n] are the bytes of the chunk being built, which begins at start; of
// them the first scanned have been through the chunker.
type cutter struct {
	src     reader
	chunks  *chunker.Chunker
	replay  *replay // nil without a previous snapshot to compare with
	buffers buffers
	emit    func(ctx context.Context, p piece) error

	buf     []byte
	n       int
	scanned int
	start   int64
	want    before   // what the previous snapshot has at start, if expected
	zeros   span     // a run of zero blocks not yet emitted
	end     int64    // of the span
	name    nameFunc // for replay
	sum     func([]byte) uint64
}

// buffers is the pool that a cutter takes its memory from; each buffer holds
// the largest chunk and one block of the grid.
type buffers interface {
	Get(ctx context.Context) ([]byte, error)
	Put(buf []byte)
}

type nameFunc func(chunkstore.Plain) chunkstore.ID

// run cuts s and returns how many bytes of it there were: fewer than its length
// if a stream ended. Whatever happens it gives its buffer back.
func (c *cutter) run(ctx context.Context, s span) (length int64, err error) {
	if c.buf, err = c.buffers.Get(ctx); err != nil {
		return 0, err
	}
	defer func() {
		c.buffers.Put(c.buf)
		c.buf = nil
		c.chunks.Reset()
	}()
	c.end, c.zeros = s.end, span{s.off, s.off}
	c.n = 0
	c.begin(s.off)
	pos := s.off
	for ended := false; pos < s.end && !ended; {
		size := int(min(gridSize-pos%gridSize, s.end-pos))
		n, zero, err := c.src.fill(pos, c.buf[c.n:c.n+size])
		if err != nil {
			return 0, err
		}
		ended = n < size
		pos += int64(n)
		if err := c.take(ctx, pos, n, zero); err != nil {
			return 0, err
		}
	}
	if err := c.flush(ctx); err != nil {
		return 0, err
	}
	return pos - s.off, c.flushZeros(ctx)
}

// take adds the block of size bytes that ends at pos to what is being built.
func (c *cutter) take(ctx context.Context, pos int64, size int, zero bool) error {
	if zero {
		if err := c.flush(ctx); err != nil {
			return err
		}
		c.zeros.end = pos
		c.begin(pos)
		if c.zeros.end-c.zeros.off < fixedSize {
			return nil
		}
		return c.flushZeros(ctx)
	}
	if err := c.flushZeros(ctx); err != nil {
		return err
	}
	c.n += size
	if err := c.advance(ctx); err != nil {
		return err
	}
	c.zeros = span{pos, pos}
	return nil
}

// begin starts a chunk at off, with the n bytes that buf holds already.
func (c *cutter) begin(off int64) {
	c.start, c.scanned = off, 0
	c.want = before{}
	if c.replay != nil {
		c.want = c.replay.at(off, c.end)
	}
}

// advance emits every chunk that is complete in buf[:n].
func (c *cutter) advance(ctx context.Context) error {
	for {
		if c.want.size > 0 {
			done, err := c.compare(ctx)
			if err != nil {
				return err
			}
			if !done {
				return nil
			}
			continue
		}
		cut := c.chunks.Next(c.buf[c.scanned:c.n])
		if cut < 0 {
			c.scanned = c.n
			return nil
		}
		if err := c.emitData(ctx, c.scanned+cut); err != nil {
			return err
		}
	}
}

// compare holds the bytes at hand against the chunk that the previous snapshot
// has at the same place. It returns false if it needs more bytes to decide.
func (c *cutter) compare(ctx context.Context) (decided bool, err error) {
	size := c.want.size
	// A cut that was made because zeros followed is one only if they still
	// do: flush sees that. So wait for one more block.
	if c.n < size || c.n == size && c.want.forced {
		return false, nil
	}
	if c.want.forced {
		c.want = before{}
		return true, nil
	}
	return true, c.settle(ctx)
}

// settle names the first want.size bytes and either emits them as unchanged or
// gives up the expectation, so that they are cut anew.
func (c *cutter) settle(ctx context.Context) error {
	want := c.want
	c.want = before{}
	id := c.name(c.buf[:want.size])
	if id != want.id {
		return nil
	}
	same := piece{off: c.start, size: want.size, id: id, same: true}
	if !c.replay.stored(ctx, same) {
		return c.emitData(ctx, want.size)
	}
	if err := c.emit(ctx, same); err != nil {
		return err
	}
	c.n = copy(c.buf, c.buf[want.size:c.n])
	c.begin(c.start + int64(want.size))
	return nil
}

// emitData emits the first size bytes of buf as a piece, buffer and all, and
// goes on with the rest in a new one.
func (c *cutter) emitData(ctx context.Context, size int) error {
	next, err := c.buffers.Get(ctx)
	if err != nil {
		return err
	}
	p := piece{off: c.start, size: size, buf: c.buf}
	p.sum = c.sum(p.buf[:size])
	c.n = copy(next, c.buf[size:c.n])
	c.buf = next
	c.begin(p.off + int64(size))
	return c.emit(ctx, p)
}

// flush ends the chunk being built where it is: zeros follow, or the span ends.
func (c *cutter) flush(ctx context.Context) error {
	for c.n > 0 {
		if c.want.size > 0 && c.want.size == c.n {
			if err := c.settle(ctx); err != nil {
				return err
			}
			continue
		}
		if c.want.size > 0 { // longer than what there is: it has changed
			c.want = before{}
			if err := c.advance(ctx); err != nil {
				return err
			}
			continue
		}
		if c.scanned < c.n {
			if err := c.advance(ctx); err != nil {
				return err
			}
			continue
		}
		if err := c.emitData(ctx, c.n); err != nil {
			return err
		}
		c.chunks.Reset()
	}
	return nil
}

// flushZeros emits the pending run of zeros in pieces of at most fixedSize.
func (c *cutter) flushZeros(ctx context.Context) error {
	for c.zeros.off < c.zeros.end {
		size := min(c.zeros.end-c.zeros.off, fixedSize)
		p := piece{off: c.zeros.off, size: int(size), zero: true}
		if err := c.emit(ctx, p); err != nil {
			return err
		}
		c.zeros.off += size
	}
	return nil
}

// allZero reports whether b holds only zeros.
func allZero(b []byte) bool {
	if len(b) == 0 || b[0] != 0 {
		return len(b) == 0
	}
	return bytes.Equal(b[1:], b[:len(b)-1])
}
