package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"sync"
)

const (
	// offsetMask is the part of an L1 or L2 entry that is an offset in the
	// file.
	offsetMask = 0x00fffffffffffe00
	// flagCompressed and flagZero are flags of an L2 entry.
	flagCompressed = 1 << 62
	flagZero       = 1
	// subclusters is how many parts a cluster with an extended entry has.
	subclusters = 32
	// stepsMax is how many entries one look goes over, so that its cost is
	// bounded.
	stepsMax = 1024
)

// table is the allocation map of one qcow2 file: its L1 table, and its L2
// tables read when they are needed. It is safe for concurrent use.
type table struct {
	h     *header
	file  *file
	l1    []uint64
	cache *tableCache
}

func openTable(f *file, h *header) (*table, error) {
	l1, err := readL1(f, h)
	if err != nil {
		return nil, err
	}
	return &table{h: h, file: f, l1: l1, cache: newTableCache(h.clusterSize())}, nil
}

func readL1(f *file, h *header) ([]uint64, error) {
	b := make([]byte, 8*h.l1Count)
	if _, err := f.ReadAt(b, h.l1Off); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("read L1 table: %w", err)
	}
	l1 := make([]uint64, h.l1Count)
	for i := range l1 {
		l1[i] = binary.BigEndian.Uint64(b[8*i:])
	}
	return l1, nil
}

// look is layer.look for this file.
func (t *table) look(off, most int64) (run, error) {
	span := t.h.l1Span()
	i := off / span
	if t.l1[i]&offsetMask == 0 {
		n := span - off%span
		for j := i + 1; n < most && j-i < stepsMax && t.l1[j]&offsetMask == 0; j++ {
			n += span
		}
		return run{min(n, most), below}, nil
	}
	l2, err := t.l2(i)
	if err != nil {
		return run{}, err
	}
	return t.scan(l2, off, min(most, span-off%span))
}

// scan goes over the entries of one L2 table from off as long as they are of
// one place. A bad entry behind a good one is left to the next call.
func (t *table) scan(l2 []byte, off, most int64) (run, error) {
	unit := t.h.clusterSize()
	if t.h.extended() {
		unit /= subclusters
	}
	at, err := t.place(l2, off)
	if err != nil {
		return run{}, err
	}
	n := unit - off%unit
	for step := 0; n < most && step < stepsMax; step++ {
		next, err := t.place(l2, off+n)
		if err != nil || next != at {
			break
		}
		n += unit
	}
	return run{min(n, most), at}, nil
}

// l2 returns the L2 table of an L1 entry. It is shared: nobody writes to it.
func (t *table) l2(i int64) ([]byte, error) {
	off := int64(t.l1[i] & offsetMask)
	if b := t.cache.get(off); b != nil {
		return b, nil
	}
	size := t.h.clusterSize()
	if off%size != 0 {
		return nil, fmt.Errorf("L1 entry %d: L2 table at %d is not on a cluster: %w", i, off, ErrDamaged)
	}
	if off > t.file.length-size {
		return nil, t.beyond(fmt.Sprintf("L1 entry %d", i), off+size)
	}
	b := make([]byte, size)
	if _, err := t.file.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, fmt.Errorf("L1 entry %d: read L2 table: %w", i, err)
	}
	t.cache.put(off, b)
	return b, nil
}

// place tells where the cluster or subcluster at off is.
func (t *table) place(l2 []byte, off int64) (place, error) {
	k := off % t.h.l1Span() / t.h.clusterSize()
	e := binary.BigEndian.Uint64(l2[k*t.h.entrySize():])
	if e&flagCompressed != 0 {
		return here, t.checkCompressed(e, off)
	}
	host := int64(e & offsetMask)
	if t.h.extended() {
		bits := binary.BigEndian.Uint64(l2[k*16+8:])
		return t.subPlace(host, bits, off)
	}
	switch {
	case e&flagZero != 0 && t.h.version < 3:
		return 0, fmt.Errorf("%s: zero flag in a version 2 image: %w", t.entry(off), ErrDamaged)
	case e&flagZero != 0:
		return zero, nil
	case host == 0:
		return below, nil
	}
	return here, t.checkHost(host, off, t.h.clusterSize())
}

// subPlace tells where a subcluster is. Bit i of bits says that subcluster i
// is in this file, bit 32+i that it is zero.
func (t *table) subPlace(host int64, bits uint64, off int64) (place, error) {
	if alloc := uint32(bits); alloc&uint32(bits>>32) != 0 || host == 0 && alloc != 0 {
		return 0, fmt.Errorf("%s: subclusters 0x%016x contradict each other: %w", t.entry(off), bits, ErrDamaged)
	}
	size := t.h.clusterSize() / subclusters
	i := off % t.h.clusterSize() / size
	switch {
	case bits>>(32+i)&1 != 0:
		return zero, nil
	case bits>>i&1 == 0:
		return below, nil
	}
	return here, t.checkHost(host, off, size)
}

// checkHost checks the place in the file of the unit (cluster or subcluster)
// of size bytes at off: the cluster is at host.
func (t *table) checkHost(host, off, size int64) error {
	if host%t.h.clusterSize() != 0 {
		return fmt.Errorf("%s: data at %d is not on a cluster: %w", t.entry(off), host, ErrDamaged)
	}
	// Of the unit at the end of the disk, only what belongs to the disk needs
	// to be there.
	start := off - off%size
	end := host + start%t.h.clusterSize() + min(size, t.h.size-start)
	if end > t.file.length {
		return t.beyond(t.entry(off), end)
	}
	return nil
}

// checkCompressed checks where the compressed cluster at off begins. Its end
// is told in sectors only and may lie behind the end of the file.
func (t *table) checkCompressed(e uint64, off int64) error {
	host := int64(e & (1<<(62-(t.h.clusterBits-8)) - 1))
	if host == 0 {
		return fmt.Errorf("%s: compressed data at 0: %w", t.entry(off), ErrDamaged)
	}
	if host >= t.file.length {
		return t.beyond(t.entry(off), host+1)
	}
	return nil
}

// entry names the L2 entry of the disk's byte at off.
func (t *table) entry(off int64) string {
	span := t.h.l1Span()
	return fmt.Sprintf("L2 entry %d of L1 entry %d (disk offset %d)", off%span/t.h.clusterSize(), off/span, off)
}

// beyond is the error for an entry that needs the file to be end bytes long.
// A file that has grown since it was opened is not damaged but in use.
func (t *table) beyond(entry string, end int64) error {
	if err := t.file.checkLength(); err != nil {
		return err
	}
	return fmt.Errorf("%s: points to byte %d of a file of %d bytes: %w", entry, end-1, t.file.length, ErrDamaged)
}

// tableCache keeps the L2 tables used last, by their offset in the file. It is
// safe for concurrent use.
type tableCache struct {
	most int

	mu     sync.Mutex
	tables []cachedTable // guarded by mu; the one used last first
}

type cachedTable struct {
	off int64
	b   []byte
}

func newTableCache(tableSize int64) *tableCache {
	const bytesMax, tablesMin, tablesMax = 4 << 20, 4, 64
	return &tableCache{most: int(max(tablesMin, min(tablesMax, bytesMax/tableSize)))}
}

// get returns nil for a table that is not kept.
func (c *tableCache) get(off int64) []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, t := range c.tables {
		if t.off == off {
			copy(c.tables[1:i+1], c.tables[:i])
			c.tables[0] = t
			return t.b
		}
	}
	return nil
}

func (c *tableCache) put(off int64, b []byte) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.tables) < c.most {
		c.tables = append(c.tables, cachedTable{})
	}
	copy(c.tables[1:], c.tables)
	c.tables[0] = cachedTable{off, b}
}
