// Package blob is the envelope of everything that is stored or sent: a chunk
// or a small file, compressed if that helps, encrypted if there is a key, with
// a checksum. It is the only encoder and the only decoder of that format, which
// is section 1 of the formats specification (DataBlob):
//
//	plain      magic 8 | crc32 4 | data or zstd frames
//	encrypted  magic 8 | crc32 4 | iv 16 | tag 16 | ciphertext of the same
//
// A Codec encodes and decodes; Check proves what can be proved without a key.
// Compression comes before encryption. Decoders take no more memory than the
// caller allows, whatever the frame claims.
package blob

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"

	"holdfast/chunkstore"
)

// The first eight bytes of each kind of blob.
const (
	magicPlain             = "\x42\xab\x38\x07\xbe\x83\x70\xa1"
	magicCompressed        = "\x31\xb9\x58\x42\x6f\xb6\xa3\x7f"
	magicEncrypted         = chunkstore.MagicEncrypted
	magicEncryptedCompress = chunkstore.MagicEncryptedCompressed
)

// The first eight bytes of blobs made before 2020-07, which nobody reads any
// more: a different keyed digest, and a tag instead of the checksum.
const (
	magicAncientPlain      = "\x1f\x87\xee\x29\x1c\xe0\x50\x2f"
	magicAncientCompressed = "\x7e\xa6\x0f\xbe\x91\x1f\xa9\x60"
)

// Offsets and sizes in bytes.
const (
	magicSize = 8
	crcOff    = 8
	plainHead = 12
	ivOff     = 12
	tagOff    = 28
	sealHead  = 44
)

// PlainSizeMax is the largest content of a blob that is not a chunk.
const PlainSizeMax = 128 << 20

// kind is what the magic of a blob says.
type kind struct {
	encrypted  bool
	compressed bool
}

// head returns the length of the header.
func (k kind) head() int {
	if k.encrypted {
		return sealHead
	}
	return plainHead
}

func (k kind) magic() string {
	switch {
	case k.encrypted && k.compressed:
		return magicEncryptedCompress
	case k.encrypted:
		return magicEncrypted
	case k.compressed:
		return magicCompressed
	}
	return magicPlain
}

// kindOf reads the magic of s.
func kindOf(s chunkstore.Blob) (kind, error) {
	if len(s) < plainHead {
		return kind{}, fmt.Errorf("blob: %d bytes are too few for a header of %d: %w", len(s), plainHead, chunkstore.ErrCorrupt)
	}
	var k kind
	switch string(s[:magicSize]) {
	case magicPlain:
	case magicCompressed:
		k = kind{compressed: true}
	case magicEncrypted:
		k = kind{encrypted: true}
	case magicEncryptedCompress:
		k = kind{encrypted: true, compressed: true}
	case magicAncientPlain, magicAncientCompressed:
		return kind{}, fmt.Errorf("blob: magic at byte 0 is that of a beta release before July 2020, which is not supported: %w", chunkstore.ErrCorrupt)
	default:
		return kind{}, fmt.Errorf("blob: unknown magic %x at byte 0: %w", s[:magicSize], chunkstore.ErrCorrupt)
	}
	if len(s) < k.head() {
		return kind{}, fmt.Errorf("blob: %d bytes are too few for an encrypted header of %d: %w", len(s), k.head(), chunkstore.ErrCorrupt)
	}
	return k, nil
}

// putHeader writes magic and checksum. The payload must be in place.
func putHeader(s []byte, k kind) {
	copy(s, k.magic())
	binary.LittleEndian.PutUint32(s[crcOff:], crc32.ChecksumIEEE(s[k.head():]))
}

// check reads the magic and compares the checksum.
func check(s chunkstore.Blob) (kind, error) {
	k, err := kindOf(s)
	if err != nil {
		return kind{}, err
	}
	want := binary.LittleEndian.Uint32(s[crcOff:])
	if got := crc32.ChecksumIEEE(s[k.head():]); got != want {
		return kind{}, fmt.Errorf("blob: crc32 at byte %d is %08x, the data have %08x: %w", crcOff, want, got, chunkstore.ErrCorrupt)
	}
	return k, nil
}

// Check proves what needs no key: magic, lengths and checksum. It tells whether
// the blob is encrypted. Errors wrap chunkstore.ErrCorrupt.
func Check(s chunkstore.Blob) (encrypted bool, err error) {
	k, err := check(s)
	return k.encrypted, err
}

// WithChecksum returns s if its checksum is right, and otherwise a copy with the right
// one; all else is checked as by Check.
func WithChecksum(s chunkstore.Blob) (raw chunkstore.Blob, encrypted bool, err error) {
	k, err := kindOf(s)
	if err != nil {
		return nil, false, err
	}
	if _, err := check(s); err == nil {
		return s, k.encrypted, nil
	}
	raw = bytes.Clone(s)
	putHeader(raw, k)
	return raw, k.encrypted, nil
}

// ContentSize returns how many bytes the content has if the length of the blob tells:
// if it is not compressed.
func ContentSize(s chunkstore.Blob) (n int, ok bool) {
	k, err := kindOf(s)
	if err != nil || k.compressed {
		return 0, false
	}
	return len(s) - k.head(), true
}

// SizeMax returns the capacity that Encode and Decode never outgrow for a content
// of that many bytes.
func SizeMax(plain int) int {
	// zstd writes at most a few bytes per block of 64 KiB more than it reads,
	// but may use a little more than that on the way; GCM puts its tag behind.
	return sealHead + plain + plain/64 + 1024
}
