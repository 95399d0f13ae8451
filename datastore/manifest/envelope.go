package manifest

import (
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
)

// BlobSizeMax is the longest blob of a manifest, in bytes: the longest text, and what
// a compressor adds to one that cannot be compressed.
const BlobSizeMax = jsonSizeMax + jsonSizeMax/64

// Open decodes a manifest from its blob, which is never encrypted (section 4.3
// of the formats specification). Nothing in it is authenticated until Verify.
func Open(raw chunkstore.Blob) (*Manifest, error) {
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	return OpenWith(codec, raw)
}

// OpenWith is Open for who opens many: making a codec takes longer than opening
// a manifest.
func OpenWith(codec *blob.Codec, raw chunkstore.Blob) (*Manifest, error) {
	plain, err := codec.Decode(nil, raw, jsonSizeMax)
	if err != nil {
		return nil, fmt.Errorf("open manifest: %w", err)
	}
	return Decode(plain)
}

// Blob encodes a manifest into its blob.
func (m *Manifest) Blob() (chunkstore.Blob, error) {
	plain, err := m.Encode()
	if err != nil {
		return nil, fmt.Errorf("encode manifest: %w", err)
	}
	codec, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		return nil, err
	}
	return codec.Encode(nil, plain)
}
