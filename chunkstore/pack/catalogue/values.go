package catalogue

import (
	"cmp"
	"encoding/binary"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/packfile"
)

// ErrDoubt is wrapped by every error that a new catalogue would cure.
var ErrDoubt = fmt.Errorf("catalogue: %w", chunkstore.ErrCorrupt)

// Sizes of the values in the catalogue, in bytes; each is followed by its CRC.
const (
	locationSize = 17 // of a plain chunk
	sealedSize   = locationSize + SumSize
	claimedSize  = sealedSize + 8
	packInfoSize = 52
	crcSize      = 4
	// packInfoOld is the size of a PackInfo without the date of its check, as
	// it was written before there was a scrub.
	packInfoOld = 44
)

// FlagBad marks a location whose bytes are known to be damaged.
const FlagBad = 1

// SumSize is how much of the SHA-256 of an encrypted chunk's stored bytes the
// catalogue knows: enough to tell that two owners have sent the same, which takes
// that somebody finds bytes with the sum of another's.
const SumSize = 16

// Location is where a chunk lies.
type Location struct {
	Pack   uint32
	Stored uint32
	Rank   uint32
	Flags  uint32
	Off    int64
	Sum    [SumSize]byte // first bytes of the SHA-256; zero for a plain chunk

	// Where the record lies by which a key has part in what another owner's
	// record holds; claimOff is 0 if the record is its own.
	ClaimPack uint32
	ClaimOff  int64
}

// Spot is the place of a record.
type Spot struct {
	Pack uint32
	Off  int64
}

// Spot is where the record lies.
func (l Location) Spot() Spot { return Spot{l.Pack, l.Off} }

// ClaimSpot is where the claim lies, if there is one.
func (l Location) ClaimSpot() Spot { return Spot{l.ClaimPack, l.ClaimOff} }

// Spots are those of the record and of the claim, if there is one.
func (l Location) Spots() []Spot {
	if l.Claimed() {
		return []Spot{l.Spot(), l.ClaimSpot()}
	}
	return []Spot{l.Spot()}
}

// Needs reports whether the record at a spot is the chunk's, or its claim.
func (l Location) Needs(at Spot) bool { return l.Spot() == at || l.Claimed() && l.ClaimSpot() == at }

// End is the offset behind the record.
func (l Location) End() int64 { return l.Off + packfile.RecordSize + int64(l.Stored) }

// Claimed reports whether the record is another owner's.
func (l Location) Claimed() bool { return l.ClaimOff != 0 }

// Info is what is told of a chunk that lies here.
func (l Location) Info(k chunkstore.Key) chunkstore.Info {
	return chunkstore.Info{StoredSize: l.Stored, PlainSize: k.Size}
}

// SameBytes reports whether two locations of one name and size hold the same bytes.
// It is said of encrypted chunks only.
func (l Location) SameBytes(m Location) bool {
	return l.Sum == m.Sum && l.Stored == m.Stored && l.Sum != [SumSize]byte{}
}

// Holds reports whether r is the record that a chunk is read from: its own, or with a
// claim one of the same bytes.
func (l Location) Holds(k chunkstore.Key, r packfile.Record) bool {
	if r.Stored != l.Stored || r.Key.Class() != k.Class() {
		return false
	}
	if k.Class() == chunkstore.ClassEncrypted && [SumSize]byte(r.Sum[:SumSize]) != l.Sum {
		return false
	}
	if l.Claimed() {
		return r.Key.ID == k.ID && r.Key.Size == k.Size
	}
	return r.Key == k
}

// Beats reports whether l is to be believed rather than old, another copy of the
// chunk: what is not known to be damaged, and of that what was written last. A
// copy that replaced a damaged one may have its rank, if that one was not known
// then.
func (l Location) Beats(old Location) bool {
	if bad := l.Flags & FlagBad; bad != old.Flags&FlagBad {
		return bad == 0
	}
	return l.Rank > old.Rank
}

// SamePlace reports whether two locations are the same record.
func (l Location) SamePlace(m Location) bool { return l.Pack == m.Pack && l.Off == m.Off }

// Locate makes the location of a record that is no claim.
func Locate(pack uint32, e packfile.Entry) Location {
	l := Location{Pack: pack, Off: e.Off, Stored: e.Stored, Rank: e.Rank}
	if e.Key.Class() == chunkstore.ClassEncrypted {
		copy(l.Sum[:], e.Sum[:])
	}
	return l
}

// Claiming makes the location of a chunk whose owner has it by the claim e, which
// lies in pack, of what l holds.
func (l Location) Claiming(pack uint32, e packfile.Entry) Location {
	l.Rank, l.ClaimPack, l.ClaimOff = e.Rank, pack, e.Off
	return l
}

// Held is a chunk and where it lies.
type Held struct {
	Key chunkstore.Key
	Location
}

// Compare orders chunks by their keys, and of copies of one chunk the one first that is
// to be believed: of equal ones that of the pack which came first.
func (h Held) Compare(o Held) int {
	if c := h.Key.Compare(o.Key); c != 0 {
		return c
	}
	switch {
	case h.Beats(o.Location):
		return -1
	case o.Beats(h.Location):
		return 1
	}
	return cmp.Or(cmp.Compare(h.Pack, o.Pack), cmp.Compare(h.Off, o.Off),
		cmp.Compare(h.ClaimPack, o.ClaimPack), cmp.Compare(h.ClaimOff, o.ClaimOff))
}

// PackInfo is what is known of a pack.
type PackInfo struct {
	ID     packfile.ID
	State  packfile.State
	Length int64 // in bytes: of a sealed pack its file, else the end of the last record in the catalogue
	// checked is when a scrub has found all of a sealed pack sound, in Unix
	// seconds; 0 if none has since damage was last met in it.
	Checked int64
	Totals  // with the records that are not in the catalogue yet

	Saved   Totals // as in the catalogue
	SavedTo int64  // end of the last record in the catalogue
	Missing bool   // not on disk when last looked at
	Dropped bool   // removed by a sweep: kept for who still has a location in it
	Size    int64  // of the file when last looked at, in bytes
	Seen    uint64 // generation of that look
	// sweptInto is the number of the last sweep that has moved something into it.
	SweptInto uint64
}

// Totals count records.
type Totals struct {
	Records, Stored, Plain uint64
}

// Add counts one more record.
func (t *Totals) Add(r packfile.Record) {
	t.Records++
	t.Stored += uint64(r.Bytes())
	if !r.Claim {
		t.Plain += uint64(r.Key.Size)
	}
}

// Name is the name of its file.
func (p PackInfo) Name() string { return p.ID.String() + p.State.Ext() }

// sealValue appends the checksum of a value.
func sealValue(key, v []byte) []byte {
	return binary.LittleEndian.AppendUint32(v, packfile.CRC(key, v))
}

// openValue checks length and checksum of a value and returns it without the
// checksum.
func openValue(key, v []byte, size int) ([]byte, error) {
	if len(v) != size+crcSize {
		return nil, fmt.Errorf("%w: value of %d bytes for %q", ErrDoubt, len(v), key)
	}
	if binary.LittleEndian.Uint32(v[size:]) != packfile.CRC(key, v[:size]) {
		return nil, fmt.Errorf("%w: checksum of %q differs", ErrDoubt, key)
	}
	return v[:size], nil
}

func encodeLocation(key []byte, l Location) []byte {
	b := make([]byte, 0, claimedSize+crcSize)
	b = binary.LittleEndian.AppendUint32(b, l.Pack)
	b = binary.LittleEndian.AppendUint32(b, uint32(l.Off))
	b = binary.LittleEndian.AppendUint32(b, l.Stored)
	b = binary.LittleEndian.AppendUint32(b, l.Rank)
	b = append(b, byte(l.Flags))
	if l.Sum != [SumSize]byte{} {
		b = append(b, l.Sum[:]...)
	}
	if l.Claimed() {
		b = binary.LittleEndian.AppendUint32(b, l.ClaimPack)
		b = binary.LittleEndian.AppendUint32(b, uint32(l.ClaimOff))
	}
	return sealValue(key, b)
}

func decodeLocation(key, v []byte) (Location, error) {
	size := len(v) - crcSize
	if size != locationSize && size != sealedSize && size != claimedSize {
		return Location{}, fmt.Errorf("%w: value of %d bytes for %q", ErrDoubt, len(v), key)
	}
	v, err := openValue(key, v, size)
	if err != nil {
		return Location{}, err
	}
	l := Location{
		Pack:   binary.LittleEndian.Uint32(v),
		Off:    int64(binary.LittleEndian.Uint32(v[4:])),
		Stored: binary.LittleEndian.Uint32(v[8:]),
		Rank:   binary.LittleEndian.Uint32(v[12:]),
		Flags:  uint32(v[16]),
	}
	if size >= sealedSize {
		l.Sum = [SumSize]byte(v[locationSize:])
	}
	if size == claimedSize {
		l.ClaimPack = binary.LittleEndian.Uint32(v[sealedSize:])
		l.ClaimOff = int64(binary.LittleEndian.Uint32(v[sealedSize+4:]))
	}
	if l.Off < packfile.HeaderSize || l.Stored > chunkstore.BlobSizeMax || size == claimedSize && l.ClaimOff < packfile.HeaderSize {
		return Location{}, fmt.Errorf("%w: impossible location of chunk %x", ErrDoubt, key)
	}
	return l, nil
}

func decodeHeld(key, v []byte) (Held, error) {
	if len(key) != chunkstore.KeySize {
		return Held{}, fmt.Errorf("%w: key of %d bytes", ErrDoubt, len(key))
	}
	l, err := decodeLocation(key, v)
	return Held{chunkstore.DecodeKey(key), l}, err
}

func packKey(no uint32) []byte { return binary.BigEndian.AppendUint32(nil, no) }

func encodePackInfo(no uint32, p PackInfo) []byte {
	b := make([]byte, 0, packInfoSize+crcSize)
	b = append(b, p.ID[:]...)
	b = binary.LittleEndian.AppendUint32(b, uint32(p.State))
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Length))
	b = binary.LittleEndian.AppendUint64(b, p.Records)
	b = binary.LittleEndian.AppendUint64(b, p.Stored)
	b = binary.LittleEndian.AppendUint64(b, p.Plain)
	b = binary.LittleEndian.AppendUint64(b, uint64(p.Checked))
	return sealValue(packKey(no), b)
}

func decodePackInfo(key, v []byte) (uint32, PackInfo, error) {
	if len(key) != 4 {
		return 0, PackInfo{}, fmt.Errorf("%w: pack number of %d bytes", ErrDoubt, len(key))
	}
	size := packInfoSize
	if len(v) == packInfoOld+crcSize {
		size = packInfoOld
	}
	v, err := openValue(key, v, size)
	if err != nil {
		return 0, PackInfo{}, err
	}
	p := PackInfo{
		ID:     packfile.ID(v[:8]),
		State:  packfile.State(binary.LittleEndian.Uint32(v[8:])),
		Length: int64(binary.LittleEndian.Uint64(v[12:])),
		Totals: Totals{
			Records: binary.LittleEndian.Uint64(v[20:]),
			Stored:  binary.LittleEndian.Uint64(v[28:]),
			Plain:   binary.LittleEndian.Uint64(v[36:]),
		},
	}
	p.Saved, p.SavedTo = p.Totals, p.Length
	if size == packInfoSize {
		p.Checked = int64(binary.LittleEndian.Uint64(v[44:]))
	}
	if p.Checked < 0 || p.Length < 0 || p.Length > packfile.OffsetMax || p.State != packfile.StateOpen && p.State != packfile.StateSealed {
		return 0, PackInfo{}, fmt.Errorf("%w: impossible pack %x", ErrDoubt, key)
	}
	return binary.BigEndian.Uint32(key), p, nil
}
