package main

import (
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/restic/chunker"
	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
)

const (
	kib = 1 << 10
	mib = 1 << 20
	gib = 1 << 30

	// zeroBlock is the unit in which zeros are left out before cutting.
	zeroBlock = 256 * kib
	// cutBuffer is how much of an image the simulation holds.
	cutBuffer = 64 * mib
	// cutPolynomial is the one that a test of the library uses; any
	// irreducible one does.
	cutPolynomial = chunker.Pol(0x3DA3358B4DC173)
)

// cutSet is one choice of where to cut. Fixed is a size in bytes, or 0 for
// cutting by content.
type cutSet struct {
	min, max uint
	bits     int
	fixed    int64
}

// String names the set as the table does: min/bits/max in KiB.
func (c cutSet) String() string {
	if c.fixed > 0 {
		return fmt.Sprintf("fixed %d", c.fixed/kib)
	}
	return fmt.Sprintf("%d/%d/%d", c.min/kib, c.bits, c.max/kib)
}

// cutSets is what the table compares.
func cutSets() []cutSet {
	content := [][3]int{
		{256, 20, 4096}, {512, 20, 4096}, {512, 20, 8192}, {1024, 20, 4096},
		{512, 19, 4096}, {256, 19, 4096}, {128, 19, 2048}, {128, 18, 2048},
		{64, 18, 1024}, {1024, 21, 8192}, {256, 18, 2048}, {512, 18, 2048}, {384, 18, 2048},
	}
	sets := make([]cutSet, 0, len(content)+2)
	for _, c := range content {
		sets = append(sets, cutSet{min: uint(c[0]) * kib, bits: c[1], max: uint(c[2]) * kib})
	}
	return append(sets, cutSet{fixed: 4 * mib}, cutSet{fixed: mib})
}

// stretch is a part of an image, in bytes.
type stretch struct{ off, len int64 }

// dataRuns finds what of an image is neither a hole nor an aligned block of
// zeros.
func dataRuns(f *os.File, size int64) ([]stretch, error) {
	var runs []stretch
	buf := make([]byte, zeroBlock)
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(f.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return runs, nil
		}
		if err != nil {
			return nil, fmt.Errorf("find data in %s: %w", f.Name(), err)
		}
		off = max(off, data-data%zeroBlock)
		b := buf[:min(int64(len(buf)), size-off)]
		if _, err := f.ReadAt(b, off); err != nil {
			return nil, fmt.Errorf("read %s: %w", f.Name(), err)
		}
		if !isZero(b) {
			runs = appendRun(runs, stretch{off, int64(len(b))})
		}
		off += int64(len(b))
	}
	return runs, nil
}

// appendRun adds r, joined with the last run if they touch.
func appendRun(runs []stretch, r stretch) []stretch {
	if n := len(runs); n > 0 && runs[n-1].off+runs[n-1].len == r.off {
		runs[n-1].len += r.len
		return runs
	}
	return append(runs, r)
}

func isZero(b []byte) bool {
	for len(b) >= 8 {
		if b[0]|b[1]|b[2]|b[3]|b[4]|b[5]|b[6]|b[7] != 0 {
			return false
		}
		b = b[8:]
	}
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// dedup is a chunk store that keeps nothing but the names and sizes.
type dedup struct {
	seen   map[chunkstore.ID]struct{}
	codec  *blob.Codec
	out    []byte
	totals totals
}

// totals is what a dedup holds. Sizes are in bytes.
type totals struct {
	refs, chunks  int64
	plain, stored int64
	cut, cutBytes int64 // nanoseconds of CPU time spent cutting, over how many bytes
}

func newDedup() (*dedup, error) {
	key, err := crypto.NewKey(make([]byte, 32))
	if err != nil {
		return nil, err
	}
	codec, err := blob.NewCodec(blob.Options{Key: key, Encrypt: true, Workers: 1})
	if err != nil {
		return nil, err
	}
	return &dedup{seen: map[chunkstore.ID]struct{}{}, codec: codec}, nil
}

// add puts one chunk, sealed as a backup seals it.
func (d *dedup) add(chunk []byte) error {
	d.totals.refs++
	id := d.codec.Name(chunk)
	if _, ok := d.seen[id]; ok {
		return nil
	}
	d.seen[id] = struct{}{}
	raw, err := d.codec.Encode(d.out, chunk)
	if err != nil {
		return err
	}
	d.out = raw
	d.totals.chunks++
	d.totals.plain += int64(len(chunk))
	d.totals.stored += int64(len(raw))
	return nil
}

// cutImage puts the chunks of one image into d.
func cutImage(d *dedup, f *os.File, runs []stretch, set cutSet) error {
	if set.fixed > 0 {
		return cutFixed(d, f, runs, set.fixed)
	}
	buf := make([]byte, cutBuffer)
	for _, r := range runs {
		if err := cutRun(d, newCutter(set), r, source{f, buf}); err != nil {
			return err
		}
	}
	return nil
}

// newCutter is at the beginning of a chunk.
func newCutter(set cutSet) *chunker.BaseChunker {
	return chunker.NewBase(cutPolynomial, chunker.WithBaseBoundaries(set.min, set.max),
		chunker.WithBaseAverageBits(set.bits))
}

// source is a file and the buffer it is read into.
type source struct {
	f   *os.File
	buf []byte
}

// cutRun cuts one run by content. A run's end is a chunk's end.
func cutRun(d *dedup, c *chunker.BaseChunker, r stretch, src source) error {
	held := 0 // bytes of the unfinished chunk at the start of the buffer
	for off := r.off; off < r.off+r.len; {
		n := min(int64(len(src.buf)-held), r.off+r.len-off)
		b := src.buf[:held+int(n)]
		if _, err := src.f.ReadAt(b[held:], off); err != nil {
			return fmt.Errorf("read %s: %w", src.f.Name(), err)
		}
		off += n
		begin, next := 0, held
		for next < len(b) {
			t := threadTime()
			cut := c.NextSplitPoint(b[next:])
			d.totals.cut += threadTime() - t
			if cut < 0 {
				break
			}
			if err := d.add(b[begin : next+cut]); err != nil {
				return err
			}
			next += cut
			begin = next
		}
		d.totals.cutBytes += n
		held = copy(src.buf, b[begin:])
	}
	if held > 0 {
		return d.add(src.buf[:held])
	}
	return nil
}

// cutFixed puts every chunk of a fixed grid that is not wholly zero.
func cutFixed(d *dedup, f *os.File, runs []stretch, size int64) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	buf := make([]byte, size)
	done := int64(-1)
	for _, r := range runs {
		for cell := max(r.off/size, done+1); cell*size < r.off+r.len; cell++ {
			b := buf[:min(size, info.Size()-cell*size)]
			if _, err := f.ReadAt(b, cell*size); err != nil {
				return fmt.Errorf("read %s: %w", f.Name(), err)
			}
			if err := d.add(b); err != nil {
				return err
			}
			done = cell
		}
	}
	return nil
}

// threadTime is the CPU time of this thread in nanoseconds; the caller has
// locked the goroutine to it. It is not disturbed by other work on the machine
// as wall time is.
func threadTime() int64 {
	var ts unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &ts) != nil {
		return time.Now().UnixNano()
	}
	return ts.Nano()
}
