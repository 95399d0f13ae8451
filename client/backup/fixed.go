package backup

import (
	"context"
)

// fixedCutter cuts a span into pieces of fixedSize, the way of a .fidx.
type fixedCutter struct {
	src     reader
	buffers buffers
	emit    func(ctx context.Context, p piece) error
	sum     func([]byte) uint64
}

// run implements spanCutter.
func (c *fixedCutter) run(ctx context.Context, s span) (int64, error) {
	pos := s.off
	for pos < s.end {
		n, err := c.piece(ctx, pos, int(min(fixedSize, s.end-pos)))
		if err != nil {
			return 0, err
		}
		pos += int64(n)
		if n < fixedSize {
			break
		}
	}
	return pos - s.off, nil
}

// piece emits the piece of size bytes at off, and returns how many there were.
func (c *fixedCutter) piece(ctx context.Context, off int64, size int) (int, error) {
	buf, err := c.buffers.Get(ctx)
	if err != nil {
		return 0, err
	}
	n, zero, err := c.read(off, buf[:size])
	if err != nil || n == 0 || zero {
		c.buffers.Put(buf)
		if err != nil || n == 0 {
			return 0, err
		}
		return n, c.emit(ctx, piece{off: off, size: n, zero: true})
	}
	return n, c.emit(ctx, piece{off: off, size: n, buf: buf, sum: c.sum(buf[:n])})
}

// read fills p in blocks of the grid.
func (c *fixedCutter) read(off int64, p []byte) (n int, zero bool, err error) {
	zero = true
	for n < len(p) {
		block := p[n:min(n+gridSize, len(p))]
		got, z, err := c.src.fill(off+int64(n), block)
		if err != nil {
			return 0, false, err
		}
		if z {
			clear(block[:got])
		}
		zero = zero && z
		n += got
		if got < len(block) {
			break
		}
	}
	return n, zero && n > 0, nil
}
