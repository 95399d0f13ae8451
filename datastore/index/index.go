// Package index reads and writes the two kinds of index: the files that say
// which chunks an archive is made of, in order. It is the only encoder and the
// only decoder of those formats, section 3 of the formats specification:
//
//	header   4096 bytes: magic 8 | uuid 16 | ctime 8 | csum 32 | and for the
//	         fixed kind size 8 | chunk size 8; zeros up to 4096
//	.didx    per chunk: end offset 8 | chunk id 32
//	.fidx    per chunk: chunk id 32
//
// A Writer puts out records as they come and the header last, so that a file
// that was not completed is no index. Records of the fixed kind can also be put
// in any order; then they are read back once at the end. A Reader never holds more of a file than
// a buffer and trusts none of it: counts, offsets and sizes are checked when an
// entry is read, and the checksum is computed from the records, never taken
// from the header.
package index

import (
	"encoding/binary"
	"fmt"
	"hash"
	"math"

	"holdfast/chunkstore"
	"holdfast/crypto"
)

// Kind is one of the two kinds of index.
type Kind int

// The kinds.
const (
	// Dynamic is .didx: chunks of any size.
	Dynamic Kind = iota + 1
	// Fixed is .fidx: chunks of one size, but for the last.
	Fixed
)

// String returns "dynamic" or "fixed".
func (k Kind) String() string {
	switch k {
	case Dynamic:
		return "dynamic"
	case Fixed:
		return "fixed"
	}
	return fmt.Sprintf("kind %d", int(k))
}

// Offsets and sizes in bytes.
const (
	headerSize   = 4096
	magicOff     = 0
	uuidOff      = 8
	ctimeOff     = 24
	csumOff      = 32
	sizeOff      = 64
	chunkSizeOff = 72

	idSize            = 32
	endSize           = 8
	dynamicRecordSize = endSize + idSize
	fixedRecordSize   = idSize
	recordSizeMax     = dynamicRecordSize
)

// SizeMax is the largest archive, in bytes: offsets must fit an int64.
const SizeMax = math.MaxInt64

// The first eight bytes of each kind.
const (
	magicDynamic = "\x1c\x91\x4e\xa5\x19\xba\xb3\xcd"
	magicFixed   = "\x2f\x7f\x41\xed\x91\xfd\x0f\xcd"
)

func (k Kind) magic() string {
	if k == Fixed {
		return magicFixed
	}
	return magicDynamic
}

func (k Kind) recordSize() int64 {
	if k == Fixed {
		return fixedRecordSize
	}
	return dynamicRecordSize
}

// Entry is one chunk of an archive: Size bytes at offset Off are the content of
// chunk ID.
type Entry struct {
	Off  uint64
	Size uint32
	ID   chunkstore.ID
}

// appendRecord appends the record of e as a file of kind k has it.
func appendRecord(b []byte, k Kind, e Entry) []byte {
	if k == Dynamic {
		b = binary.LittleEndian.AppendUint64(b, e.Off+uint64(e.Size))
	}
	return append(b, e.ID[:]...)
}

// Summary is what a manifest and the end of an upload say about an index
// (section 3.3 of the formats specification).
type Summary struct {
	Csum  [32]byte // SHA-256 of the records
	Size  uint64   // bytes of the archive, not of the index file
	Count uint64   // entries
}

// Summer computes a Summary entry by entry. It checks nothing. It is not safe
// for concurrent use.
type Summer struct {
	kind Kind
	hash hash.Hash
	buf  [recordSizeMax]byte
	sum  Summary
}

// NewSummer returns a Summer that has seen no entry.
func NewSummer(kind Kind) *Summer {
	return &Summer{kind: kind, hash: crypto.NewHash()}
}

// Add takes the next entry.
func (s *Summer) Add(e Entry) {
	s.hash.Write(appendRecord(s.buf[:0], s.kind, e))
	s.sum.Size = e.Off + uint64(e.Size)
	s.sum.Count++
}

// Summary returns the summary of the entries so far.
func (s *Summer) Summary() Summary {
	sum := s.sum
	s.hash.Sum(sum.Csum[:0])
	return sum
}

// checkEntry checks what must hold for an entry of any index.
func checkEntry(e Entry) error {
	if e.Size < 1 || e.Size > chunkstore.PlainSizeMax {
		return fmt.Errorf("chunk size %d is not within 1..%d", e.Size, chunkstore.PlainSizeMax)
	}
	if e.ID.IsZero() {
		return fmt.Errorf("chunk id is zero")
	}
	if e.Off > SizeMax-uint64(e.Size) {
		return fmt.Errorf("offset %d is too large", e.Off)
	}
	return nil
}

// layout is what the header of a fixed index says about its entries.
type layout struct {
	size      uint64 // of the image, in bytes
	chunkSize uint64
}

// check checks size and chunk size. what names the field in the error.
func (l layout) check() error {
	if l.chunkSize < 1 || l.chunkSize > chunkstore.PlainSizeMax || l.chunkSize&(l.chunkSize-1) != 0 {
		return fmt.Errorf("chunk size %d is not a power of two within 1..%d", l.chunkSize, chunkstore.PlainSizeMax)
	}
	if l.size < 1 || l.size > SizeMax {
		return fmt.Errorf("image size %d is not within 1..%d", l.size, uint64(SizeMax))
	}
	return nil
}

// count returns how many chunks the image has.
func (l layout) count() uint64 { return (l.size-1)/l.chunkSize + 1 }

// at returns where chunk i lies.
func (l layout) at(i uint64) (off uint64, size uint32) {
	off = i * l.chunkSize
	return off, uint32(min(l.chunkSize, l.size-off))
}
