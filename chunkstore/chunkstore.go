// Package chunkstore is the contract of a chunk store: what a chunk is called,
// the two kinds of bytes it can be made of, and what a store promises to the
// rooms above it. It holds no implementation; chunkstore/pack is the store on
// disk, chunkstore/mem the one in memory, and chunkstore/storetest the suite
// that both must pass.
//
// The nouns:
//
//   - ID: the name of a chunk, 32 bytes computed from its plain content.
//   - Plain: the content of a chunk as it stood in the image.
//   - Sealed: the same chunk in its envelope (a blob): compressed, encrypted if
//     there is a key, with a checksum. A store holds nothing else.
//   - Store and Session: where sealed chunks are kept, and one writer to it.
//
// Plain and Sealed are different types so that sending plain bytes to where
// sealed ones belong does not compile.
//
// The package imports the standard library only.
package chunkstore

import (
	"context"
	"encoding/hex"
	"errors"
	"fmt"
)

// Limits in bytes, from section 1.5 of the formats specification. A decoder
// checks them before it takes memory.
const (
	// PlainSizeMax is the largest chunk content.
	PlainSizeMax = 16 << 20
	// SealedSizeMax is the largest blob: an incompressible, encrypted chunk.
	SealedSizeMax = PlainSizeMax + 44
	// SealedSizeMin is the smallest blob: an empty plain one.
	SealedSizeMin = 12
)

// ID names a chunk. It is comparable and usable as a map key; the zero value
// is no valid name.
type ID [32]byte

// ParseID reads the 64 lower-case hex digits that String writes.
func ParseID(s string) (ID, error) {
	var id ID
	if len(s) != 2*len(id) {
		return ID{}, fmt.Errorf("chunk id %q: want 64 hex digits, got %d characters", clip(s), len(s))
	}
	for _, c := range []byte(s) {
		if (c < '0' || c > '9') && (c < 'a' || c > 'f') {
			return ID{}, fmt.Errorf("chunk id %q: want lower-case hex digits only", s)
		}
	}
	if _, err := hex.Decode(id[:], []byte(s)); err != nil {
		return ID{}, fmt.Errorf("chunk id %q: %w", s, err)
	}
	return id, nil
}

// clip keeps foreign text in an error message short.
func clip(s string) string {
	const most = 80
	if len(s) > most {
		return s[:most] + "…"
	}
	return s
}

// String returns 64 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first eight hex digits, for messages.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero value, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Plain is the content of a chunk.
type Plain []byte

// Sealed is a chunk in its envelope, ready to be stored or sent.
type Sealed []byte

// Info says what a store knows of a chunk without reading it. Sizes are in
// bytes.
type Info struct {
	StoredSize uint32
	PlainSize  uint32
}

// Getter hands out stored chunks. Get is safe for concurrent use; the caller
// owns the returned slice. A chunk that is not there is ErrNotExist, one whose
// record cannot be trusted is ErrCorrupt, and the error names the chunk and
// the file. The bytes are as stored: only opening them proves the content.
type Getter interface {
	Get(ctx context.Context, id ID) (Sealed, error)
}

// IntoGetter is a Getter that can do with the caller's memory. GetInto is Get that
// uses the capacity of room, of which RoomMore bytes more than the chunk has are
// enough; otherwise it returns memory of its own. The caller owns both.
type IntoGetter interface {
	Getter
	GetInto(ctx context.Context, id ID, room []byte) (Sealed, error)
}

// RoomMore is how many bytes more than a sealed chunk has GetInto may need.
const RoomMore = 128

// Store keeps sealed chunks. All methods are safe for concurrent use.
type Store interface {
	Getter
	// Stat tells the sizes of a chunk that Get would find, or ErrNotExist.
	Stat(ctx context.Context, id ID) (Info, error)
	// Check reads a chunk back from the medium and compares it with the
	// SHA-256 recorded when it was put. It needs no key.
	Check(ctx context.Context, id ID) error
	// Begin opens a writing session.
	Begin(ctx context.Context) (Session, error)
	// Close releases the store; sessions must be closed before.
	Close() error
}

// Session is one writer to a Store. All methods but Close are safe for
// concurrent use.
type Session interface {
	// Put stores a chunk unless the store has it already; added tells which.
	// The session does not keep sealed after it returns. nil means accepted
	// and readable in this process; only Sync makes it durable.
	Put(ctx context.Context, c Chunk) (added bool, err error)
	// Sync makes durable every chunk that any session of this store has
	// accepted before the call. After an error nothing more can be written
	// until the store is opened anew.
	Sync(ctx context.Context) error
	// Close ends the session. What was put but not synced may stay or go.
	Close() error
}

// Chunk is what a Session puts. PlainSize is the length of the content in
// bytes; the store cannot see it in an encrypted blob.
type Chunk struct {
	ID        ID
	PlainSize uint32
	Sealed    Sealed
}

// Validate checks the sizes of c against the limits.
func (c Chunk) Validate() error {
	if c.ID.IsZero() {
		return fmt.Errorf("chunk id is zero: %w", ErrInvalid)
	}
	if c.PlainSize < 1 || c.PlainSize > PlainSizeMax {
		return fmt.Errorf("chunk %s: plain size %d is not within 1..%d: %w", c.ID.Short(), c.PlainSize, PlainSizeMax, ErrInvalid)
	}
	if len(c.Sealed) <= SealedSizeMin || len(c.Sealed) > SealedSizeMax {
		return fmt.Errorf("chunk %s: stored size %d is not within %d..%d: %w", c.ID.Short(), len(c.Sealed), SealedSizeMin+1, SealedSizeMax, ErrInvalid)
	}
	return nil
}

// Errors of every store, matched with errors.Is.
var (
	// ErrNotExist is returned when the thing asked for is not stored.
	ErrNotExist = errors.New("not found")
	// ErrCorrupt is returned when stored bytes are not what was written.
	ErrCorrupt = errors.New("damaged")
	// ErrInvalid is returned for input outside the limits of the format.
	ErrInvalid = errors.New("invalid")
	// ErrLocked is returned when another process has the store open.
	ErrLocked = errors.New("locked")
	// ErrReadOnly is returned for a write to a store opened for reading, or
	// to one in which a write or sync has gone wrong.
	ErrReadOnly = errors.New("read-only")
	// ErrNoSpace is returned when the disk is full.
	ErrNoSpace = errors.New("no space left")
	// ErrFenced is returned to a writer whose store was taken over.
	ErrFenced = errors.New("taken over by another process")
)
