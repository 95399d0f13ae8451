package pack

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/packfile"
)

// errCatalogue is wrapped by every error that a new catalogue would cure.
var errCatalogue = fmt.Errorf("catalogue: %w", chunkstore.ErrCorrupt)

// Sizes of the values in the catalogue, in bytes; each is followed by its CRC.
const (
	locationSize = 17 // of a plain chunk
	sealedSize   = locationSize + sumPartSize
	claimedSize  = sealedSize + 8
	packInfoSize = 52
	crcSize      = 4
	// packInfoOld is the size of a packInfo without the date of its check, as
	// it was written before there was a scrub.
	packInfoOld = 44
)

// flagBad marks a location whose bytes are known to be damaged.
const flagBad = 1

// sumPartSize is how much of the SHA-256 of an encrypted chunk's stored bytes the
// catalogue knows: enough to tell that two owners have sent the same, which takes
// that somebody finds bytes with the sum of another's.
const sumPartSize = 16

// location is where a chunk lies.
type location struct {
	pack   uint32
	stored uint32
	rank   uint32
	flags  uint32
	off    int64
	sum    [sumPartSize]byte // first bytes of the SHA-256; zero for a plain chunk

	// Where the record lies by which a key has part in what another owner's
	// record holds; claimOff is 0 if the record is its own.
	claimPack uint32
	claimOff  int64
}

// spot is the place of a record.
type spot struct {
	pack uint32
	off  int64
}

func (l location) spot() spot { return spot{l.pack, l.off} }

// claimSpot is where the claim lies, if there is one.
func (l location) claimSpot() spot { return spot{l.claimPack, l.claimOff} }

// spots are those of the record and of the claim, if there is one.
func (l location) spots() []spot {
	if l.claimed() {
		return []spot{l.spot(), l.claimSpot()}
	}
	return []spot{l.spot()}
}

// needs reports whether the record at a spot is the chunk's, or its claim.
func (l location) needs(at spot) bool { return l.spot() == at || l.claimed() && l.claimSpot() == at }

func (l location) end() int64 { return l.off + packfile.RecordSize + int64(l.stored) }

// claimed reports whether the record is another owner's.
func (l location) claimed() bool { return l.claimOff != 0 }

func (l location) info(k chunkstore.Key) chunkstore.Info {
	return chunkstore.Info{StoredSize: l.stored, PlainSize: k.Size}
}

// sameBytes reports whether two locations of one name and size hold the same bytes.
// It is said of encrypted chunks only.
func (l location) sameBytes(m location) bool {
	return l.sum == m.sum && l.stored == m.stored && l.sum != [sumPartSize]byte{}
}

// holds reports whether r is the record that a chunk is read from: its own, or with a
// claim one of the same bytes.
func (l location) holds(k chunkstore.Key, r packfile.Record) bool {
	if r.Stored != l.stored || r.Key.Class() != k.Class() {
		return false
	}
	if k.Class() == chunkstore.ClassEncrypted && [sumPartSize]byte(r.Sum[:sumPartSize]) != l.sum {
		return false
	}
	if l.claimed() {
		return r.Key.ID == k.ID && r.Key.Size == k.Size
	}
	return r.Key == k
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

// locate makes the location of a record that is no claim.
func locate(pack uint32, e packfile.Entry) location {
	l := location{pack: pack, off: e.Off, stored: e.Stored, rank: e.Rank}
	if e.Key.Class() == chunkstore.ClassEncrypted {
		copy(l.sum[:], e.Sum[:])
	}
	return l
}

// claiming makes the location of a chunk whose owner has it by the claim e, which
// lies in pack, of what l holds.
func (l location) claiming(pack uint32, e packfile.Entry) location {
	l.rank, l.claimPack, l.claimOff = e.Rank, pack, e.Off
	return l
}

// held is a chunk and where it lies.
type held struct {
	key chunkstore.Key
	location
}

// compare orders chunks by their keys, and of copies of one chunk the one first that is
// to be believed: of equal ones that of the pack which came first.
func (h held) compare(o held) int {
	if c := h.key.Compare(o.key); c != 0 {
		return c
	}
	switch {
	case h.beats(o.location):
		return -1
	case o.beats(h.location):
		return 1
	}
	return cmp.Or(cmp.Compare(h.pack, o.pack), cmp.Compare(h.off, o.off),
		cmp.Compare(h.claimPack, o.claimPack), cmp.Compare(h.claimOff, o.claimOff))
}

// packInfo is what is known of a pack.
type packInfo struct {
	id     packfile.ID
	state  packfile.State
	length int64 // in bytes: of a sealed pack its file, else the end of the last record in the catalogue
	// checked is when a scrub has found all of a sealed pack sound, in Unix
	// seconds; 0 if none has since damage was last met in it.
	checked int64
	totals  // with the records that are not in the catalogue yet

	saved   totals // as in the catalogue
	savedTo int64  // end of the last record in the catalogue
	missing bool   // not on disk when last looked at
	dropped bool   // removed by a sweep: kept for who still has a location in it
	size    int64  // of the file when last looked at, in bytes
	seen    uint64 // generation of that look
	// sweptInto is the number of the last sweep that has moved something into it.
	sweptInto uint64
}

// totals count records.
type totals struct {
	records, stored, plain uint64
}

func (t *totals) add(r packfile.Record) {
	t.records++
	t.stored += uint64(r.Bytes())
	if !r.Claim {
		t.plain += uint64(r.Key.Size)
	}
}

func (p packInfo) name() string { return p.id.String() + p.state.Ext() }

// sealValue appends the checksum of a value.
func sealValue(key, v []byte) []byte {
	return binary.LittleEndian.AppendUint32(v, packfile.CRC(key, v))
}

// openValue checks length and checksum of a value and returns it without the
// checksum.
func openValue(key, v []byte, size int) ([]byte, error) {
	if len(v) != size+crcSize {
		return nil, fmt.Errorf("%w: value of %d bytes for %q", errCatalogue, len(v), key)
	}
	if binary.LittleEndian.Uint32(v[size:]) != packfile.CRC(key, v[:size]) {
		return nil, fmt.Errorf("%w: checksum of %q differs", errCatalogue, key)
	}
	return v[:size], nil
}

func encodeLocation(key []byte, l location) []byte {
	b := make([]byte, 0, claimedSize+crcSize)
	b = binary.LittleEndian.AppendUint32(b, l.pack)
	b = binary.LittleEndian.AppendUint32(b, uint32(l.off))
	b = binary.LittleEndian.AppendUint32(b, l.stored)
	b = binary.LittleEndian.AppendUint32(b, l.rank)
	b = append(b, byte(l.flags))
	if l.sum != [sumPartSize]byte{} {
		b = append(b, l.sum[:]...)
	}
	if l.claimed() {
		b = binary.LittleEndian.AppendUint32(b, l.claimPack)
		b = binary.LittleEndian.AppendUint32(b, uint32(l.claimOff))
	}
	return sealValue(key, b)
}

func decodeLocation(key, v []byte) (location, error) {
	size := len(v) - crcSize
	if size != locationSize && size != sealedSize && size != claimedSize {
		return location{}, fmt.Errorf("%w: value of %d bytes for %q", errCatalogue, len(v), key)
	}
	v, err := openValue(key, v, size)
	if err != nil {
		return location{}, err
	}
	l := location{
		pack:   binary.LittleEndian.Uint32(v),
		off:    int64(binary.LittleEndian.Uint32(v[4:])),
		stored: binary.LittleEndian.Uint32(v[8:]),
		rank:   binary.LittleEndian.Uint32(v[12:]),
		flags:  uint32(v[16]),
	}
	if size >= sealedSize {
		l.sum = [sumPartSize]byte(v[locationSize:])
	}
	if size == claimedSize {
		l.claimPack = binary.LittleEndian.Uint32(v[sealedSize:])
		l.claimOff = int64(binary.LittleEndian.Uint32(v[sealedSize+4:]))
	}
	if l.off < packfile.HeaderSize || l.stored > chunkstore.BlobSizeMax || size == claimedSize && l.claimOff < packfile.HeaderSize {
		return location{}, fmt.Errorf("%w: impossible location of chunk %x", errCatalogue, key)
	}
	return l, nil
}

func decodeHeld(key, v []byte) (held, error) {
	if len(key) != chunkstore.KeySize {
		return held{}, fmt.Errorf("%w: key of %d bytes", errCatalogue, len(key))
	}
	l, err := decodeLocation(key, v)
	return held{chunkstore.DecodeKey(key), l}, err
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
		id:     packfile.ID(v[:8]),
		state:  packfile.State(binary.LittleEndian.Uint32(v[8:])),
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
	if p.checked < 0 || p.length < 0 || p.length > packfile.OffsetMax || p.state != packfile.StateOpen && p.state != packfile.StateSealed {
		return 0, packInfo{}, fmt.Errorf("%w: impossible pack %x", errCatalogue, key)
	}
	return binary.BigEndian.Uint32(key), p, nil
}
