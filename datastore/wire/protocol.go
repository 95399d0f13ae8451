package wire

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"

	"holdfast/chunkstore"
)

// What both sides of the network protocol must agree on. Sections are those of
// the protocol specification.
const (
	// DefaultPort is the TCP port (section 1.1).
	DefaultPort = 8007
	// BackupProtocol and ReaderProtocol are what a connection is upgraded to
	// (sections 2.1 and 3.1).
	BackupProtocol = "proxmox-backup-protocol-v1"
	ReaderProtocol = "proxmox-backup-reader-protocol-v1"
	// FixedChunkSize is the size of the chunks of every fixed index, in bytes
	// (section 2.4).
	FixedChunkSize = 4 << 20
	// ParamBodyMax caps the body of a request that carries parameters, in
	// bytes (section 1.3).
	ParamBodyMax = 512 << 10
	// URIMax caps path and query of a request, in bytes (section 1.2).
	URIMax = 3072
	// ExtensionHeader stands in the answer to an upgrade if the server knows
	// what Holdfast adds to the protocol; its value is ExtensionVersion.
	ExtensionHeader = "Holdfast-Protocol"
	// ExtensionVersion is the only version so far.
	ExtensionVersion = "1"
	// FailureHeader stands in every answer of Holdfast that is no success: the names of
	// what has failed, as wire/api has them, with commas between.
	FailureHeader = "Holdfast-Failure"
	// ResumePath is asked within a backup session for the chunks that an
	// interrupted one had sent.
	ResumePath = "/holdfast/resume"
	// TrashDaysMax is the longest time that removed snapshots can be brought back
	// for, in days.
	TrashDaysMax = 36500
)

// Errors that cross the ports, besides those of names.go and of chunkstore.
var (
	// ErrUnauthenticated is returned for a missing, wrong, expired or revoked
	// password, ticket or token.
	ErrUnauthenticated = errors.New("authentication failed")
	// ErrPermission is returned when the caller may not do this.
	ErrPermission = errors.New("permission denied")
	// ErrQuota is returned when a quota is used up.
	ErrQuota = errors.New("quota exceeded")
)

// Resumer is a Session that knows which chunks an interrupted session of the
// same group and owner had sent. They are stored and may be appended without
// being sent.
type Resumer interface {
	Resume(ctx context.Context) ([]ChunkSize, error)
}

// ChunkSize is a chunk with the size of its content in bytes.
type ChunkSize struct {
	ID   chunkstore.ID
	Size uint32
}

// ChunkSizeLen is the length of an encoded ChunkSize: 32 bytes of the ID, then
// the size, little endian.
const ChunkSizeLen = 36

// Append adds the encoded form to b.
func (c ChunkSize) Append(b []byte) []byte {
	b = append(b, c.ID[:]...)
	return binary.LittleEndian.AppendUint32(b, c.Size)
}

// ParseChunkSizes reads a list of encoded ChunkSizes. It refuses sizes outside
// the limits of the format with chunkstore.ErrInvalid.
func ParseChunkSizes(b []byte) ([]ChunkSize, error) {
	if len(b)%ChunkSizeLen != 0 {
		return nil, fmt.Errorf("list of chunks: %d bytes are no multiple of %d: %w", len(b), ChunkSizeLen, chunkstore.ErrInvalid)
	}
	list := make([]ChunkSize, 0, len(b)/ChunkSizeLen)
	for ; len(b) > 0; b = b[ChunkSizeLen:] {
		c := ChunkSize{ID: chunkstore.ID(b[:32]), Size: binary.LittleEndian.Uint32(b[32:])}
		if c.ID.IsZero() || c.Size < 1 || c.Size > chunkstore.PlainSizeMax {
			return nil, fmt.Errorf("list of chunks: entry %d has size %d: %w", len(list), c.Size, chunkstore.ErrInvalid)
		}
		list = append(list, c)
	}
	return list, nil
}
