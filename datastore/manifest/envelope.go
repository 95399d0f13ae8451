package manifest

import (
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
)

// SealedSizeMax is the longest blob of a manifest, in bytes: the longest text, and what
// a compressor adds to one that cannot be compressed.
const SealedSizeMax = jsonSizeMax + jsonSizeMax/64

// Open decodes a manifest from its blob, which is never encrypted (section 4.3
// of the formats specification). Nothing in it is authenticated until Verify.
func Open(sealed chunkstore.Sealed) (*Manifest, error) {
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	return OpenWith(codec, sealed)
}

// OpenWith is Open for who opens many: making a codec takes longer than opening
// a manifest.
func OpenWith(codec *blob.Codec, sealed chunkstore.Sealed) (*Manifest, error) {
	plain, err := codec.Open(nil, sealed, jsonSizeMax)
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	return Decode(plain)
}

// Seal encodes a manifest into its blob.
func (m *Manifest) Seal() (chunkstore.Sealed, error) {
	plain, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	return codec.Seal(nil, plain)
}
