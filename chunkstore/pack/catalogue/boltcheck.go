package catalogue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
)

// bbolt trusts its file: a page that points to one above itself makes it
// recurse until the process dies, and its own checker does the same. So a
// catalogue that was not closed cleanly is walked here first, page by page
// and through no mapping, with every number in it checked before it is used.
//
// The layout of the file, as bbolt writes it (integers in the byte order of
// the machine, which is little-endian on all machines this runs on):
//
//	page     id u64, flags u16, count u16, overflow u32, then elements
//	branch   element: key offset u32, key size u32, page u64
//	leaf     element: flags u32, key offset u32, key size u32, value size u32
//	meta     magic u32, version u32, page size u32, flags u32, root page u64,
//	         sequence u64, freelist page u64, page count u64, transaction u64,
//	         FNV-1a-64 of the bytes before it
//	freelist page numbers u64; a count of 0xffff means that the first of them
//	         is the count
//
// Key offsets count from the element. The value of a bucket is its root page
// u64 and a sequence u64; root page 0 means that a page follows inline.
const (
	boltPageHeader = 16
	boltElement    = 16
	boltMetaSize   = 64
	boltMagic      = 0xED0CDAED
	boltVersion    = 2

	boltBranch   = 0x01
	boltLeaf     = 0x02
	boltMeta     = 0x04
	boltFreelist = 0x10

	boltBucketFlag = 1
	boltNoFreelist = ^uint64(0)
	boltDepthMax   = 40
	// boltOverflowMax bounds the memory for one page: the freelist is the
	// longest of them, and this one could speak of 32 million free pages.
	boltOverflowMax = 64 << 10
)

// boltChecker walks a bbolt file.
type boltChecker struct {
	r        io.ReaderAt
	pageSize int64
	pages    uint64 // in use, from the meta page
	seen     []bool // by page number
}

type boltMetaPage struct {
	pageSize             uint32
	root, freelist, next uint64
	txid                 uint64
}

// checkBolt reads a whole catalogue of size bytes and returns ErrDoubt
// unless every page and every value in it is sound.
func checkBolt(r io.ReaderAt, size int64) error {
	m, err := readBoltMeta(r, size)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDoubt, err)
	}
	c := &boltChecker{r: r, pageSize: int64(m.pageSize), pages: m.next}
	c.seen = make([]bool, m.next)
	c.seen[0], c.seen[1] = true, true
	err = c.page(boltSpan{no: m.root}, c.bucket)
	if err == nil {
		err = c.freelist(m.freelist)
	}
	if err != nil {
		return fmt.Errorf("%w: %w", ErrDoubt, err)
	}
	return nil
}

// readBoltMeta returns the newer of the two meta pages that is valid.
func readBoltMeta(r io.ReaderAt, size int64) (boltMetaPage, error) {
	var best boltMetaPage
	first, err := decodeBoltMeta(r, 0, size)
	if errors.Is(err, errBoltMeta) {
		return best, err
	}
	if err == nil {
		best = first
	}
	sizes := []int64{int64(best.pageSize)}
	if err != nil {
		// Without the first page the size of pages must be guessed.
		sizes = []int64{1 << 12, 1 << 13, 1 << 14, 1 << 15, 1 << 16}
	}
	for _, off := range sizes {
		m, err := decodeBoltMeta(r, off, size)
		if errors.Is(err, errBoltMeta) {
			return best, err
		}
		// Of two alike bbolt takes the first.
		if err == nil && int64(m.pageSize) == off && (best.pageSize == 0 || m.txid > best.txid) {
			best = m
		}
	}
	if best.pageSize == 0 {
		return best, errors.New("neither meta page is valid")
	}
	return best, nil
}

// errBoltMeta is returned for a meta page that bbolt would believe, but should
// not. Taking the other one instead would check what bbolt does not read.
var errBoltMeta = errors.New("the meta page cannot be right")

func decodeBoltMeta(r io.ReaderAt, off, size int64) (boltMetaPage, error) {
	var m boltMetaPage
	b := make([]byte, boltPageHeader+boltMetaSize)
	if _, err := r.ReadAt(b, off); err != nil {
		return m, fmt.Errorf("meta page at %d: %w", off, err)
	}
	flags := binary.LittleEndian.Uint16(b[8:])
	b = b[boltPageHeader:]
	h := fnv.New64a()
	h.Write(b[:56])
	if binary.LittleEndian.Uint32(b) != boltMagic ||
		binary.LittleEndian.Uint32(b[4:]) != boltVersion || binary.LittleEndian.Uint64(b[56:]) != h.Sum64() {
		return m, fmt.Errorf("meta page at %d is not valid", off)
	}
	if flags != boltMeta {
		return m, fmt.Errorf("%w: at %d it has the flags %#x", errBoltMeta, off, flags)
	}
	m = boltMetaPage{
		pageSize: binary.LittleEndian.Uint32(b[8:]),
		root:     binary.LittleEndian.Uint64(b[16:]),
		freelist: binary.LittleEndian.Uint64(b[32:]),
		next:     binary.LittleEndian.Uint64(b[40:]),
		txid:     binary.LittleEndian.Uint64(b[48:]),
	}
	if m.pageSize < 1<<9 || m.pageSize > 1<<16 || m.pageSize&(m.pageSize-1) != 0 {
		return m, fmt.Errorf("%w: at %d it tells of pages of %d bytes", errBoltMeta, off, m.pageSize)
	}
	if m.next < 4 || m.next > uint64(size)/uint64(m.pageSize) {
		return m, fmt.Errorf("%w: at %d it tells of %d pages in a file of %d bytes", errBoltMeta, off, m.next, size)
	}
	return m, nil
}

// read reads page no with its overflow and marks it as seen.
func (c *boltChecker) read(no uint64) ([]byte, error) {
	if no < 2 || no >= c.pages {
		return nil, fmt.Errorf("page %d does not exist", no)
	}
	head := make([]byte, boltPageHeader)
	if _, err := c.r.ReadAt(head, int64(no)*c.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", no, err)
	}
	over := uint64(binary.LittleEndian.Uint32(head[12:]))
	if binary.LittleEndian.Uint64(head) != no || over > boltOverflowMax || no+over >= c.pages {
		return nil, fmt.Errorf("page %d: header is damaged", no)
	}
	for i := no; i <= no+over; i++ {
		if c.seen[i] {
			return nil, fmt.Errorf("page %d is used twice", i)
		}
		c.seen[i] = true
	}
	b := make([]byte, (int64(over)+1)*c.pageSize)
	if _, err := c.r.ReadAt(b, int64(no)*c.pageSize); err != nil {
		return nil, fmt.Errorf("page %d: %w", no, err)
	}
	return b, nil
}

// boltSpan is a page and the keys that may be in it: from lo on, below hi.
// nil means no bound.
type boltSpan struct {
	no     uint64
	lo, hi []byte
	depth  int
}

// page checks a page and all below it, and calls leaf for each pair.
func (c *boltChecker) page(at boltSpan, leaf boltLeafFunc) error {
	if at.depth > boltDepthMax {
		return fmt.Errorf("page %d lies too deep", at.no)
	}
	b, err := c.read(at.no)
	if err != nil {
		return err
	}
	return c.elements(b, at, leaf)
}

// boltLeafFunc is given each pair of a bucket. bucket says that the value is
// one. The slices are valid only during the call.
type boltLeafFunc func(key, value []byte, bucket bool) error

func (c *boltChecker) elements(b []byte, at boltSpan, leaf boltLeafFunc) error {
	flags, count := binary.LittleEndian.Uint16(b[8:]), int(binary.LittleEndian.Uint16(b[10:]))
	if boltPageHeader+count*boltElement > len(b) {
		return fmt.Errorf("page %d: %d elements do not fit", at.no, count)
	}
	switch flags {
	case boltLeaf:
		return c.leaf(b, count, at, leaf)
	case boltBranch:
		return c.branch(b, count, at, leaf)
	}
	return fmt.Errorf("page %d: unexpected flags %#x", at.no, flags)
}

// field returns the bytes from off of an element on.
func field(b []byte, element, off, size uint64) ([]byte, bool) {
	start := element + off
	if start+size > uint64(len(b)) || off < boltElement {
		return nil, false
	}
	return b[start : start+size], true
}

func (at boltSpan) holds(key, last []byte) bool {
	return len(key) > 0 && (at.lo == nil || bytes.Compare(key, at.lo) >= 0) &&
		(at.hi == nil || bytes.Compare(key, at.hi) < 0) && (last == nil || bytes.Compare(key, last) > 0)
}

// begins reports whether the key of element i fits the one that the page is known by
// above: bbolt finds a page that it writes anew by its first key, and where it does
// not find that it adds the page once more.
func (at boltSpan) begins(key []byte, i int) bool {
	return i > 0 || at.lo == nil || bytes.Equal(key, at.lo)
}

func (c *boltChecker) leaf(b []byte, count int, at boltSpan, leaf boltLeafFunc) error {
	var last []byte
	for i := range count {
		el := uint64(boltPageHeader + i*boltElement)
		e := b[el:]
		kind, pos := binary.LittleEndian.Uint32(e), uint64(binary.LittleEndian.Uint32(e[4:]))
		ksize, vsize := uint64(binary.LittleEndian.Uint32(e[8:])), uint64(binary.LittleEndian.Uint32(e[12:]))
		kv, ok := field(b, el, pos, ksize+vsize)
		if !ok || kind > boltBucketFlag || !at.holds(kv[:ksize], last) || !at.begins(kv[:ksize], i) {
			return fmt.Errorf("page %d: element %d is damaged", at.no, i)
		}
		last = kv[:ksize]
		if err := leaf(kv[:ksize], kv[ksize:], kind == boltBucketFlag); err != nil {
			return err
		}
	}
	return nil
}

func (c *boltChecker) branch(b []byte, count int, at boltSpan, leaf boltLeafFunc) error {
	type child struct {
		key []byte
		no  uint64
	}
	if count == 0 {
		return fmt.Errorf("page %d: branch without elements", at.no)
	}
	children := make([]child, 0, count)
	var last []byte
	for i := range count {
		el := uint64(boltPageHeader + i*boltElement)
		e := b[el:]
		key, ok := field(b, el, uint64(binary.LittleEndian.Uint32(e)), uint64(binary.LittleEndian.Uint32(e[4:])))
		if !ok || !at.holds(key, last) || !at.begins(key, i) {
			return fmt.Errorf("page %d: element %d is damaged", at.no, i)
		}
		last = key
		children = append(children, child{key: key, no: binary.LittleEndian.Uint64(e[8:])})
	}
	for i, ch := range children {
		below := boltSpan{no: ch.no, lo: ch.key, hi: at.hi, depth: at.depth + 1}
		if i+1 < len(children) {
			below.hi = children[i+1].key
		}
		if err := c.page(below, leaf); err != nil {
			return err
		}
	}
	return nil
}

// bucket checks one pair of the root: one of the three buckets.
func (c *boltChecker) bucket(key, value []byte, isBucket bool) error {
	if !isBucket || len(value) < 16 {
		return fmt.Errorf("root: %q is no bucket", key)
	}
	leaf := checkMetaPair
	switch {
	case bytes.Equal(key, bucketChunks):
		leaf = checkChunkPair
	case bytes.Equal(key, bucketPacks):
		leaf = checkPackPair
	}
	pair := func(k, v []byte, isBucket bool) error {
		if isBucket {
			return fmt.Errorf("bucket %s holds a bucket", key)
		}
		return leaf(k, v)
	}
	root := binary.LittleEndian.Uint64(value)
	if root != 0 {
		return c.page(boltSpan{no: root}, pair)
	}
	inline := value[16:]
	if len(inline) < boltPageHeader || binary.LittleEndian.Uint16(inline[8:]) != boltLeaf {
		return fmt.Errorf("bucket %s: inline page is damaged", key)
	}
	return c.elements(inline, boltSpan{}, pair)
}

func checkMetaPair(k, v []byte) error {
	if len(v) < crcSize {
		return fmt.Errorf("value of %d bytes for %q", len(v), k)
	}
	_, err := openValue(k, v, len(v)-crcSize)
	return err
}

func checkChunkPair(k, v []byte) error {
	_, err := decodeHeld(k, v)
	return err
}

func checkPackPair(k, v []byte) error {
	_, _, err := decodePackInfo(k, v)
	return err
}

// freelist checks that no page is both free and in use: bbolt would write over
// it.
func (c *boltChecker) freelist(no uint64) error {
	if no == boltNoFreelist {
		return nil
	}
	b, err := c.read(no)
	if err != nil {
		return err
	}
	if binary.LittleEndian.Uint16(b[8:]) != boltFreelist {
		return fmt.Errorf("page %d: no freelist", no)
	}
	count := uint64(binary.LittleEndian.Uint16(b[10:]))
	ids := b[boltPageHeader:]
	if count == 0xffff {
		count = binary.LittleEndian.Uint64(ids)
		ids = ids[8:]
	}
	if count > uint64(len(ids))/8 {
		return fmt.Errorf("freelist: %d pages do not fit", count)
	}
	for i := range count {
		id := binary.LittleEndian.Uint64(ids[8*i:])
		if id < 2 || id >= c.pages || c.seen[id] {
			return fmt.Errorf("freelist: page %d is not free", id)
		}
		c.seen[id] = true
	}
	return nil
}
