package packfile

import (
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"hash/crc32"
	"slices"

	"holdfast/chunkstore"
	"holdfast/crypto"
)

// A pack file. All integers are little-endian; CRC is CRC-32C.
//
//	file header, 64 bytes
//	  0  magic          8   first bytes of SHA-256("Holdfast pack v1")
//	  8  version        u32 2
//	 12  zero           u32
//	 16  pack id        8   as in the file's name
//	 24  epoch          u64 of the process that made the file
//	 32  zero           28
//	 60  CRC            u32 over bytes 0..59
//
//	record, 112 bytes and the stored bytes, one after the other
//	  0  magic          4   first bytes of SHA-256("Holdfast record v1")
//	  4  version        u16 2
//	  6  kind           u16 0 for a chunk; 1 for a claim, which no bytes follow
//	  8  chunk id       32
//	 40  stored size    u32 length of the stored bytes
//	 44  plain size     u32 length of the chunk's content
//	 48  rank           u32 0 for the first copy of a chunk; one more than the
//	                        copy that it was stored in place of
//	 52  pack id        8
//	 60  SHA-256        32  of the stored bytes
//	 92  owner          12  of an encrypted chunk; zero if it is plain
//	104  zero           4
//	108  CRC            u32 over bytes 0..107
//	112  stored bytes
//
//	table of a sealed pack, 100 bytes for each record, in the order of offsets
//	  0  chunk id       32
//	 32  offset         u64 of the record in the file
//	 40  stored size    u32
//	 44  plain size     u32
//	 48  rank           u32
//	 52  kind           u32
//	 56  SHA-256        32
//	 88  owner          12
//
//	trailer of a sealed pack, 72 bytes, the last of the file
//	  0  magic          8   first bytes of SHA-256("Holdfast pack footer v1")
//	  8  version        u32 2
//	 12  zero           u32
//	 16  record count   u64
//	 24  table offset   u64
//	 32  SHA-256        32  of file header and table
//	 64  zero           u32
//	 68  CRC            u32 over bytes 0..67
//
// The pack id in a record ties it to its file: when a damaged pack is searched
// for records, nothing inside a stored chunk can pass for one, since the id is
// random and no client knows it.
//
// A claim says that its owner has sent the same bytes as somebody before him: name,
// sizes and SHA-256 are those of a chunk that lies somewhere in the store, and
// serves both.
const (
	HeaderSize    = 64
	RecordSize    = 112
	entrySize     = 100
	TrailerSize   = 72
	formatVersion = 2

	// RecordCountMax bounds the table: a pack of that many records is full
	// whatever its size.
	RecordCountMax = 1 << 16

	packMagic    = "\x6e\xd6\xd1\x38\x68\xc5\x2f\x98"
	trailerMagic = "\xed\x39\x84\xb1\x26\x7c\xc6\xd7"
	RecordMagic  = "\x0e\xcd\x4b\x90"
)

// ID names a pack; it is random.
type ID [8]byte

// String returns 16 hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Record is what a record's header says.
type Record struct {
	Key    chunkstore.Key
	Stored uint32 // bytes
	Rank   uint32
	Sum    [32]byte
	Claim  bool // of a chunk that another record holds
}

// Bytes is how many bytes follow the header.
func (r Record) Bytes() int {
	if r.Claim {
		return 0
	}
	return int(r.Stored)
}

// Size is the space the record takes in a pack.
func (r Record) Size() int64 { return RecordSize + int64(r.Bytes()) }

// kind is how a header tells a claim.
func (r Record) kind() uint16 {
	if r.Claim {
		return 1
	}
	return 0
}

// validate checks the sizes, so that they may be used for reading.
func (r Record) validate() error {
	switch {
	case r.Key.ID.IsZero():
		return errors.New("chunk id is zero")
	case r.Stored <= chunkstore.BlobSizeMin || r.Stored > chunkstore.BlobSizeMax:
		return fmt.Errorf("stored size %d is not within %d..%d", r.Stored, chunkstore.BlobSizeMin+1, chunkstore.BlobSizeMax)
	case r.Key.Size < 1 || r.Key.Size > chunkstore.PlainSizeMax:
		return fmt.Errorf("plain size %d is not within 1..%d", r.Key.Size, chunkstore.PlainSizeMax)
	case r.Claim && r.Key.Class() != chunkstore.ClassEncrypted:
		return errors.New("a plain chunk is claimed")
	}
	return nil
}

// Entry is a record and where it begins in its pack.
type Entry struct {
	Record
	Off int64
}

// End is the offset of the first byte behind the record.
func (e Entry) End() int64 { return e.Off + e.Size() }

// EncodeHeader makes the file header of a pack.
func EncodeHeader(id ID, epoch uint64) []byte {
	b := make([]byte, HeaderSize)
	copy(b, packMagic)
	binary.LittleEndian.PutUint32(b[8:], formatVersion)
	copy(b[16:], id[:])
	binary.LittleEndian.PutUint64(b[24:], epoch)
	binary.LittleEndian.PutUint32(b[60:], CRC(b[:60]))
	return b
}

// DecodeHeader reads the file header of a pack.
func DecodeHeader(b []byte) (id ID, epoch uint64, err error) {
	switch {
	case len(b) != HeaderSize:
		return id, 0, fmt.Errorf("file header: %d bytes", len(b))
	case string(b[:8]) != packMagic:
		return id, 0, errors.New("file header: wrong magic")
	case binary.LittleEndian.Uint32(b[60:]) != CRC(b[:60]):
		return id, 0, errors.New("file header: checksum differs")
	case binary.LittleEndian.Uint32(b[8:]) != formatVersion:
		return id, 0, fmt.Errorf("file header: unknown version %d", binary.LittleEndian.Uint32(b[8:]))
	case !allZero(b[12:16]) || !allZero(b[32:60]):
		return id, 0, errors.New("file header: reserved bytes are set")
	}
	copy(id[:], b[16:])
	return id, binary.LittleEndian.Uint64(b[24:]), nil
}

// EncodeRecord makes the header of a record in the pack called id.
func EncodeRecord(r Record, id ID) []byte {
	b := make([]byte, RecordSize)
	copy(b, RecordMagic)
	binary.LittleEndian.PutUint16(b[4:], formatVersion)
	binary.LittleEndian.PutUint16(b[6:], r.kind())
	copy(b[8:], r.Key.ID[:])
	binary.LittleEndian.PutUint32(b[40:], r.Stored)
	binary.LittleEndian.PutUint32(b[44:], r.Key.Size)
	binary.LittleEndian.PutUint32(b[48:], r.Rank)
	copy(b[52:], id[:])
	copy(b[60:], r.Sum[:])
	copy(b[92:], r.Key.Owner[:])
	binary.LittleEndian.PutUint32(b[108:], CRC(b[:108]))
	return b
}

// DecodeRecord reads the header of a record that lies in the pack called id.
func DecodeRecord(b []byte, id ID) (Record, error) {
	var r Record
	switch {
	case len(b) != RecordSize:
		return r, fmt.Errorf("record: %d bytes", len(b))
	case string(b[:4]) != RecordMagic:
		return r, errors.New("record: wrong magic")
	case binary.LittleEndian.Uint32(b[108:]) != CRC(b[:108]):
		return r, errors.New("record: checksum of the header differs")
	case binary.LittleEndian.Uint16(b[4:]) != formatVersion:
		return r, fmt.Errorf("record: unknown version %d", binary.LittleEndian.Uint16(b[4:]))
	case !allZero(b[104:108]) || binary.LittleEndian.Uint16(b[6:]) > 1:
		return r, errors.New("record: reserved bytes are set")
	case ID(b[52:60]) != id:
		return r, fmt.Errorf("record: belongs to pack %s", ID(b[52:60]))
	}
	r.Claim = binary.LittleEndian.Uint16(b[6:]) == 1
	r.Key.ID = chunkstore.ID(b[8:40])
	r.Stored = binary.LittleEndian.Uint32(b[40:])
	r.Key.Size = binary.LittleEndian.Uint32(b[44:])
	r.Rank = binary.LittleEndian.Uint32(b[48:])
	copy(r.Sum[:], b[60:])
	copy(r.Key.Owner[:], b[92:])
	if err := r.validate(); err != nil {
		return Record{}, fmt.Errorf("record: %w", err)
	}
	return r, nil
}

// trailer is the end of a sealed pack.
type trailer struct {
	count    int
	tableOff int64
	sum      [32]byte
}

func (t trailer) tableSize() int64 { return int64(t.count) * entrySize }

// EncodeFooter makes table and trailer of a pack with this file header. The
// table goes to tableOff.
func EncodeFooter(header []byte, entries []Entry, tableOff int64) []byte {
	b := make([]byte, 0, HeaderSize+len(entries)*entrySize+TrailerSize)
	b = append(b, header...)
	for _, e := range entries {
		b = append(b, e.Key.ID[:]...)
		b = binary.LittleEndian.AppendUint64(b, uint64(e.Off))
		b = binary.LittleEndian.AppendUint32(b, e.Stored)
		b = binary.LittleEndian.AppendUint32(b, e.Key.Size)
		b = binary.LittleEndian.AppendUint32(b, e.Rank)
		b = binary.LittleEndian.AppendUint32(b, uint32(e.kind()))
		b = append(b, e.Sum[:]...)
		b = append(b, e.Key.Owner[:]...)
	}
	s := crypto.Sum(b)
	t := make([]byte, TrailerSize)
	copy(t, trailerMagic)
	binary.LittleEndian.PutUint32(t[8:], formatVersion)
	binary.LittleEndian.PutUint64(t[16:], uint64(len(entries)))
	binary.LittleEndian.PutUint64(t[24:], uint64(tableOff))
	copy(t[32:], s[:])
	binary.LittleEndian.PutUint32(t[68:], CRC(t[:68]))
	return append(b, t...)[len(header):]
}

// decodeTrailer reads the last bytes of a pack of fileSize bytes. What it
// returns fits into the file.
func decodeTrailer(b []byte, fileSize int64) (trailer, error) {
	var t trailer
	switch {
	case len(b) != TrailerSize:
		return t, fmt.Errorf("footer: %d bytes", len(b))
	case string(b[:8]) != trailerMagic:
		return t, errors.New("footer: wrong magic")
	case binary.LittleEndian.Uint32(b[68:]) != CRC(b[:68]):
		return t, errors.New("footer: checksum of the trailer differs")
	case binary.LittleEndian.Uint32(b[8:]) != formatVersion:
		return t, fmt.Errorf("footer: unknown version %d", binary.LittleEndian.Uint32(b[8:]))
	case !allZero(b[12:16]) || !allZero(b[64:68]):
		return t, errors.New("footer: reserved bytes are set")
	}
	count, off := binary.LittleEndian.Uint64(b[16:]), binary.LittleEndian.Uint64(b[24:])
	if count > RecordCountMax {
		return t, fmt.Errorf("footer: %d records, at most %d are possible", count, RecordCountMax)
	}
	want := fileSize - TrailerSize - int64(count)*entrySize
	if want < HeaderSize || off != uint64(want) {
		return t, fmt.Errorf("footer: table at %d does not fit into %d bytes", off, fileSize)
	}
	t = trailer{count: int(count), tableOff: want}
	copy(t.sum[:], b[32:])
	return t, nil
}

// decodeTable reads the table that t speaks of. header is the file header as
// it stands in the file. Entries ascend, do not overlap and end before the
// table.
func decodeTable(t trailer, header, table []byte) ([]Entry, error) {
	if int64(len(table)) != t.tableSize() {
		return nil, fmt.Errorf("footer: table of %d bytes for %d records", len(table), t.count)
	}
	if crypto.Sum(slices.Concat(header, table)) != t.sum {
		return nil, errors.New("footer: checksum of the table differs")
	}
	entries := make([]Entry, 0, t.count)
	last := int64(HeaderSize)
	for i := range t.count {
		e, err := decodeEntry(table[i*entrySize : (i+1)*entrySize])
		if err != nil {
			return nil, fmt.Errorf("footer: entry %d: %w", i, err)
		}
		if e.Off < last || e.End() > t.tableOff {
			return nil, fmt.Errorf("footer: entry %d: offset %d is out of place", i, e.Off)
		}
		last = e.End()
		entries = append(entries, e)
	}
	return entries, nil
}

func decodeEntry(b []byte) (Entry, error) {
	var e Entry
	e.Key.ID = chunkstore.ID(b[:32])
	off := binary.LittleEndian.Uint64(b[32:])
	if off > OffsetMax {
		return e, fmt.Errorf("offset %d is out of place", off)
	}
	e.Off = int64(off)
	e.Stored = binary.LittleEndian.Uint32(b[40:])
	e.Key.Size = binary.LittleEndian.Uint32(b[44:])
	e.Rank = binary.LittleEndian.Uint32(b[48:])
	kind := binary.LittleEndian.Uint32(b[52:])
	e.Claim = kind == 1
	copy(e.Sum[:], b[56:])
	copy(e.Key.Owner[:], b[88:])
	if kind > 1 {
		return e, fmt.Errorf("a record of kind %d is not known", kind)
	}
	return e, e.validate()
}

// OffsetMax is more than any pack can hold, and what the catalogue can tell.
const OffsetMax = 1<<32 - 1

func allZero(b []byte) bool {
	for _, c := range b {
		if c != 0 {
			return false
		}
	}
	return true
}

// castagnoli is the polynomial of every CRC in a chunk store.
var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// CRC is the CRC-32C of parts, one behind the other.
func CRC(parts ...[]byte) (sum uint32) {
	for _, b := range parts {
		sum = crc32.Update(sum, castagnoli, b)
	}
	return sum
}
