package pack

import (
	"bytes"
	"encoding/binary"
	"fmt"

	"holdfast/chunkstore"
)

// Sizes of the values in the catalogue, in bytes; each is followed by its CRC.
const (
	locationSize = 28
	packInfoSize = 52
	crcSize      = 4
	// packInfoOld is the size of a packInfo without the date of its check, as
	// it was written before there was a scrub.
	packInfoOld = 44
)

// flagBad marks a location whose bytes are known to be damaged.
const flagBad = 1

// location is where a chunk lies.
type location struct {
	pack   uint32
	stored uint32
	plain  uint32
	rank   uint32
	flags  uint32
	off    int64
}

func (l location) end() int64 { return l.off + recordSize + int64(l.stored) }

func (l location) info() chunkstore.Info {
	return chunkstore.Info{StoredSize: l.stored, PlainSize: l.plain}
}

// beats reports whether l is to be believed rather than old, another copy of the
// chunk: what is not known to be damaged, and of that what was written last. A
// copy that replaced a damaged one may have its rank, if that one was not known
// then.
func (l location) beats(old location) bool {
	if bad := l.flags & flagBad; bad != old.flags&flagBad {
		return bad == 0
	}
	return l.rank > old.rank
}

// samePlace reports whether two locations are the same record.
func (l location) samePlace(m location) bool { return l.pack == m.pack && l.off == m.off }

func locate(pack uint32, e entry) location {
	return location{pack: pack, off: e.off, stored: e.stored, plain: e.plain, rank: e.rank}
}

// packInfo is what is known of a pack.
type packInfo struct {
	id     packID
	state  packState
	length int64 // in bytes: of a sealed pack its file, else the end of the last record in the catalogue
	// checked is when a scrub has found all of a sealed pack sound, in Unix
	// seconds; 0 if none has since damage was last met in it.
	checked int64
	totals  // with the records that are not in the catalogue yet

	saved   totals // as in the catalogue
	savedTo int64  // end of the last record in the catalogue
	missing bool   // not on disk when last looked at
	dropped bool   // removed by a sweep: kept for who still has a location in it
	sealed  uint64 // Store.order when it was sealed; 0 if before the store was opened
	size    int64  // of the file when last looked at, in bytes
	seen    uint64 // generation of that look
}

// totals count records.
type totals struct {
	records, stored, plain uint64
}

func (t *totals) add(stored, plain uint32) {
	t.records++
	t.stored += uint64(stored)
	t.plain += uint64(plain)
}

func (p packInfo) name() string { return p.id.String() + p.state.ext() }

// sealValue appends the checksum of a value.
func sealValue(key, v []byte) []byte {
	return binary.LittleEndian.AppendUint32(v, crc(append(bytes.Clone(key), v...)))
}

// openValue checks length and checksum of a value and returns it without the
// checksum.
func openValue(key, v []byte, size int) ([]byte, error) {
	if len(v) != size+crcSize {
		return nil, fmt.Errorf("%w: value of %d bytes for %q", errCatalogue, len(v), key)
	}
	if binary.LittleEndian.Uint32(v[size:]) != crc(append(bytes.Clone(key), v[:size]...)) {
		return nil, fmt.Errorf("%w: checksum of %q differs", errCatalogue, key)
	}
	return v[:size], nil
}

func encodeLocation(id chunkstore.ID, l location) []byte {
	b := make([]byte, 0, locationSize+crcSize)
	b = binary.LittleEndian.AppendUint32(b, l.pack)
	b = binary.LittleEndian.AppendUint64(b, uint64(l.off))
	b = binary.LittleEndian.AppendUint32(b, l.stored)
	b = binary.LittleEndian.AppendUint32(b, l.plain)
	b = binary.LittleEndian.AppendUint32(b, l.rank)
	b = binary.LittleEndian.AppendUint32(b, l.flags)
	return sealValue(id[:], b)
}

func decodeLocation(key, v []byte) (location, error) {
	v, err := openValue(key, v, locationSize)
	if err != nil {
		return location{}, err
	}
	l := location{
		pack:   binary.LittleEndian.Uint32(v),
		off:    int64(binary.LittleEndian.Uint64(v[4:])),
		stored: binary.LittleEndian.Uint32(v[12:]),
		plain:  binary.LittleEndian.Uint32(v[16:]),
		rank:   binary.LittleEndian.Uint32(v[20:]),
		flags:  binary.LittleEndian.Uint32(v[24:]),
	}
	if l.off < headerSize || l.off > offsetMax || l.stored > chunkstore.SealedSizeMax {
		return location{}, fmt.Errorf("%w: impossible location of chunk %x", errCatalogue, key)
	}
	return l, nil
}

func packKey(no uint32) []byte { return binary.BigEndian.AppendUint32(nil, no) }

func encodePackInfo(no uint32, p packInfo) []byte {
	b := make([]byte, 0, packInfoSize+crcSize)
	b = append(b, p.id[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(p.state))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.length))
	b = binary.LittleEndian.AppendUint64(b, p.records)
	b = binary.LittleEndian.AppendUint64(b, p.stored)
	b = binary.LittleEndian.AppendUint64(b, p.plain)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.checked))
	return sealValue(packKey(no), b)
}

func decodePackInfo(key, v []byte) (uint32, packInfo, error) {
	if len(key) != 4 {
		return 0, packInfo{}, fmt.Errorf("%w: pack number of %d bytes", errCatalogue, len(key))
	}
	size := packInfoSize
	if len(v) == packInfoOld+crcSize {
		size = packInfoOld
	}
	v, err := openValue(key, v, size)
	if err != nil {
		return 0, packInfo{}, err
	}
	p := packInfo{
		id:     packID(v[:8]),
		state:  packState(binary.LittleEndian.Uint32(v[8:])),
		length: int64(binary.LittleEndian.Uint64(v[12:])),
		totals: totals{
			records: binary.LittleEndian.Uint64(v[20:]),
			stored:  binary.LittleEndian.Uint64(v[28:]),
			plain:   binary.LittleEndian.Uint64(v[36:]),
		},
	}
	p.saved, p.savedTo = p.totals, p.length
	if size == packInfoSize {
		p.checked = int64(binary.LittleEndian.Uint64(v[44:]))
	}
	if p.checked < 0 || p.length < 0 || p.length > offsetMax || p.state != stateOpen && p.state != stateSealed {
		return 0, packInfo{}, fmt.Errorf("%w: impossible pack %x", errCatalogue, key)
	}
	return binary.BigEndian.Uint32(key), p, nil
}
