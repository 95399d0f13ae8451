package source

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
)

// Limits of a qcow2 header, all but the last those of qemu.
const (
	headerSizeV2   = 72  // bytes
	headerSizeV3   = 104 // bytes
	clusterBitsMin = 9
	clusterBitsMax = 21
	// extendedBitsMin leaves each of 32 subclusters the size of a sector.
	extendedBitsMin = 14
	imageSizeMax    = 1<<56 - 1 // bytes
	l1CountMax      = 4 << 20   // entries
	backingNameMax  = 1023      // bytes
	extensionsMax   = 256
)

// Bits of the incompatible features.
const (
	bitDirty = iota
	bitCorrupt
	bitDataFile
	bitCompression
	bitExtendedL2
	bitsKnown // how many there are
)

// Compression types.
const (
	compressionZlib = 0
	compressionZstd = 1
)

// Types of header extensions that are read here.
const (
	extensionEnd           = 0
	extensionBackingFormat = 0xe2792aca
	extensionFeatureNames  = 0x6803f857
)

// header is what counts of a checked qcow2 header.
type header struct {
	version       uint32
	clusterBits   uint32
	size          int64 // of the disk, bytes
	l1Off         int64 // in the file, bytes
	l1Count       int64 // entries that cover size; the table may have more
	features      uint64
	compression   byte
	backing       string // name as it is written; "" if there is none
	backingFormat string // "" if it is not told
	fixed         []byte // the fixed part, as it is in the file
}

// clusterSize is in bytes.
func (h *header) clusterSize() int64 { return 1 << h.clusterBits }

// extended reports whether L2 entries have subclusters.
func (h *header) extended() bool { return h.features&(1<<bitExtendedL2) != 0 }

// entrySize is the length of an L2 entry in bytes.
func (h *header) entrySize() int64 {
	if h.extended() {
		return 16
	}
	return 8
}

// l1Span is how many bytes of the disk one L1 entry stands for.
func (h *header) l1Span() int64 {
	return h.clusterSize() / h.entrySize() * h.clusterSize()
}

// parseHeader reads and checks the header of a qcow2 file of length bytes. It
// reads the first cluster and nothing else.
func parseHeader(r io.ReaderAt, length int64) (*header, error) {
	b, err := readFirstCluster(r, length)
	if err != nil {
		return nil, err
	}
	h := &header{
		version:     binary.BigEndian.Uint32(b[4:]),
		clusterBits: binary.BigEndian.Uint32(b[20:]),
	}
	fixed := headerSizeV2
	if h.version == 3 {
		if fixed, err = headerLength(b); err != nil {
			return nil, err
		}
		h.features = binary.BigEndian.Uint64(b[72:])
	}
	h.fixed = slices.Clone(b[:fixed])
	if err := h.parseBacking(b); err != nil {
		return nil, err
	}
	names, err := h.parseExtensions(b)
	if err != nil {
		return nil, err
	}
	// Before anything else, so that a file of a future qemu is called that
	// and not damaged.
	if err := h.checkFeatures(names); err != nil {
		return nil, err
	}
	if err := h.parseCompression(); err != nil {
		return nil, err
	}
	return h, h.parseSizes(length)
}

// readFirstCluster checks as much as is needed to know how long it is. What it
// returns is shorter than a cluster if the file is, and at least as long as
// the header of its version.
func readFirstCluster(r io.ReaderAt, length int64) ([]byte, error) {
	start := make([]byte, headerSizeV2)
	if length < int64(len(start)) {
		return nil, fmt.Errorf("header is cut off at %d bytes: %w", length, ErrDamaged)
	}
	if _, err := r.ReadAt(start, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(start[:len(qcow2Magic)]) != qcow2Magic {
		return nil, fmt.Errorf("no qcow2 magic: %w", ErrDamaged)
	}
	version := binary.BigEndian.Uint32(start[4:])
	if version != 2 && version != 3 {
		return nil, fmt.Errorf("version %d, not 2 or 3: %w", version, ErrUnsupported)
	}
	bits := binary.BigEndian.Uint32(start[20:])
	if bits < clusterBitsMin || bits > clusterBitsMax {
		return nil, fmt.Errorf("cluster bits %d are not within %d..%d: %w", bits, clusterBitsMin, clusterBitsMax, ErrDamaged)
	}
	b := make([]byte, min(length, 1<<bits))
	if version == 3 && len(b) < headerSizeV3 {
		return nil, fmt.Errorf("header is cut off at %d bytes: %w", length, ErrDamaged)
	}
	if _, err := r.ReadAt(b, 0); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	if string(b[:headerSizeV2]) != string(start) {
		return nil, fmt.Errorf("header: %w", ErrChanged)
	}
	return b, nil
}

// headerLength is the length that a version 3 header gives itself, in bytes.
func headerLength(b []byte) (int, error) {
	n := binary.BigEndian.Uint32(b[100:])
	if n < headerSizeV3 || int64(n) > int64(len(b)) {
		return 0, fmt.Errorf("header length %d is not within %d..%d: %w", n, headerSizeV3, len(b), ErrDamaged)
	}
	return int(n), nil
}

// parseBacking reads the name of the backing file from the first cluster b.
func (h *header) parseBacking(b []byte) error {
	off := binary.BigEndian.Uint64(b[8:])
	n := uint64(binary.BigEndian.Uint32(b[16:]))
	if off == 0 || n == 0 {
		return nil
	}
	if n > backingNameMax {
		return fmt.Errorf("backing file name has %d bytes, more than %d: %w", n, backingNameMax, ErrDamaged)
	}
	if off < uint64(len(h.fixed)) || off > uint64(len(b)) || n > uint64(len(b))-off {
		return fmt.Errorf("backing file name at %d is outside the first cluster: %w", off, ErrDamaged)
	}
	h.backing = string(b[off : off+n])
	if strings.ContainsRune(h.backing, 0) {
		return fmt.Errorf("backing file name %q holds a zero byte: %w", h.backing, ErrDamaged)
	}
	return nil
}

// parseExtensions reads the header extensions, which lie between the fixed
// part and the backing file name. It returns the names that the file gives to
// incompatible feature bits.
func (h *header) parseExtensions(b []byte) (map[int]string, error) {
	end := uint64(len(b))
	if off := binary.BigEndian.Uint64(b[8:]); off != 0 {
		end = min(end, off)
	}
	names := map[int]string{}
	pos := uint64(len(h.fixed))
	for range extensionsMax {
		if pos+8 > end {
			return names, nil
		}
		typ, n := binary.BigEndian.Uint32(b[pos:]), uint64(binary.BigEndian.Uint32(b[pos+4:]))
		if typ == extensionEnd {
			return names, nil
		}
		pos += 8
		if n > end-pos {
			return nil, fmt.Errorf("header extension 0x%08x of %d bytes is longer than the header: %w", typ, n, ErrDamaged)
		}
		data := b[pos : pos+n]
		switch typ {
		case extensionBackingFormat:
			h.backingFormat = string(data)
		case extensionFeatureNames:
			addFeatureNames(names, data)
		}
		pos += (n + 7) &^ 7
	}
	return nil, fmt.Errorf("more than %d header extensions: %w", extensionsMax, ErrDamaged)
}

// addFeatureNames reads a feature name table: entries of 48 bytes, each a type
// (0 is incompatible), a bit number and a name padded with zeros.
func addFeatureNames(names map[int]string, table []byte) {
	for e := range slices.Chunk(table, 48) {
		if len(e) == 48 && e[0] == 0 {
			names[int(e[1])] = strings.TrimRight(string(e[2:]), "\x00")
		}
	}
}

// checkFeatures refuses what the guest's bytes cannot be read without.
func (h *header) checkFeatures(names map[int]string) error {
	switch method := binary.BigEndian.Uint32(h.fixed[32:]); method {
	case 0:
	case 1:
		return fmt.Errorf("AES encryption: %w", ErrUnsupported)
	case 2:
		return fmt.Errorf("LUKS encryption: %w", ErrUnsupported)
	default:
		return fmt.Errorf("encryption method %d: %w", method, ErrUnsupported)
	}
	if h.features&(1<<bitCorrupt) != 0 {
		return fmt.Errorf("marked as corrupt, repair it with qemu-img check: %w", ErrDamaged)
	}
	if h.features&(1<<bitDataFile) != 0 {
		return fmt.Errorf("external data file: %w", ErrUnsupported)
	}
	for bit := bitsKnown; bit < 64; bit++ {
		if h.features&(1<<bit) == 0 {
			continue
		}
		if name, ok := names[bit]; ok {
			return fmt.Errorf("incompatible feature %q (bit %d): %w", name, bit, ErrUnsupported)
		}
		return fmt.Errorf("incompatible feature bit %d: %w", bit, ErrUnsupported)
	}
	if h.extended() && h.clusterBits < extendedBitsMin {
		return fmt.Errorf("cluster bits %d are too few for extended L2 entries: %w", h.clusterBits, ErrDamaged)
	}
	return nil
}

// parseCompression reads the compression type, which must agree with its
// feature bit.
func (h *header) parseCompression() error {
	if len(h.fixed) > headerSizeV3 {
		h.compression = h.fixed[headerSizeV3]
	}
	if h.compression > compressionZstd {
		return fmt.Errorf("compression type %d: %w", h.compression, ErrUnsupported)
	}
	if (h.compression != compressionZlib) != (h.features&(1<<bitCompression) != 0) {
		return fmt.Errorf("compression type %d does not agree with its feature bit: %w", h.compression, ErrDamaged)
	}
	return nil
}

// parseSizes reads the size of the disk and the place of the L1 table in a
// file of length bytes.
func (h *header) parseSizes(length int64) error {
	size := binary.BigEndian.Uint64(h.fixed[24:])
	if size > imageSizeMax {
		return fmt.Errorf("size of %d bytes is more than %d: %w", size, uint64(imageSizeMax), ErrDamaged)
	}
	h.size = int64(size)
	count := binary.BigEndian.Uint32(h.fixed[36:])
	if count > l1CountMax {
		return fmt.Errorf("L1 table of %d entries, more than %d: %w", count, l1CountMax, ErrDamaged)
	}
	h.l1Count = h.size / h.l1Span()
	if h.size%h.l1Span() != 0 {
		h.l1Count++
	}
	if h.l1Count > int64(count) {
		return fmt.Errorf("L1 table of %d entries, %d are needed for %d bytes: %w", count, h.l1Count, h.size, ErrDamaged)
	}
	if count == 0 {
		return nil
	}
	off := binary.BigEndian.Uint64(h.fixed[40:])
	if off == 0 || off%uint64(h.clusterSize()) != 0 {
		return fmt.Errorf("L1 table at %d is not on a cluster: %w", off, ErrDamaged)
	}
	if off > uint64(length) || int64(count)*8 > length-int64(off) {
		return fmt.Errorf("L1 table of %d entries at %d is beyond the end of the file at %d: %w", count, off, length, ErrDamaged)
	}
	h.l1Off = int64(off)
	return nil
}
