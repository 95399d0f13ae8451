// Package chunkstore is the contract of a chunk store: what a chunk is called,
// the two kinds of bytes it can be made of, and what a store promises to the
// rooms above it. It holds no implementation; chunkstore/pack is the store on
// disk, chunkstore/mem the one in memory, and chunkstore/storetest the suite
// that both must pass.
//
// The nouns:
//
//   - ID: the name of a chunk, 32 bytes computed from its plain content.
//   - Class: plain or encrypted, and whether of an archive of metadata. Chunks of two
//     classes are different chunks, whatever their names.
//   - Owner: whose copy of an encrypted chunk it is. Nobody but who has the key can
//     tell whether an encrypted chunk is what its name says, so nobody reads what
//     somebody else has sent.
//   - Ref: what an index says of a chunk. Key: a Ref with its owner, which is what a
//     store finds chunks by.
//   - Plain: the content of a chunk as it stood in the image.
//   - Blob: the same chunk in its envelope: compressed if that helps, sealed (encrypted)
//     if there is a key, with a checksum. A store holds nothing else.
//   - Store and Session: where chunks are kept as blobs, and one writer to it.
//
// Plain and Blob are different types so that sending the content to where a blob
// belongs does not compile.
package chunkstore

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
)

// Limits in bytes, from section 1.5 of the formats specification. A decoder
// checks them before it takes memory.
const (
	// PlainSizeMax is the largest chunk content.
	PlainSizeMax = 16 << 20
	// BlobSizeMax is the largest blob: an incompressible, encrypted chunk.
	BlobSizeMax = PlainSizeMax + BlobMore
	// BlobMore is how many bytes more than its content a blob can have: no
	// compression is used that makes it longer.
	BlobMore = 44
	// BlobSizeMin is the smallest blob: an empty plain one.
	BlobSizeMin = 12
)

// ID names a chunk. It is comparable and usable as a map key; the zero value
// is no valid name.
type ID [32]byte

// String returns 64 lower-case hex digits.
func (id ID) String() string { return hex.EncodeToString(id[:]) }

// Short returns the first eight hex digits, for messages.
func (id ID) Short() string { return hex.EncodeToString(id[:4]) }

// IsZero reports whether id is the zero value, which names nothing.
func (id ID) IsZero() bool { return id == ID{} }

// Class tells whether a chunk is encrypted, and whether it is one of an archive of
// metadata. Who may only put reads the metadata of his last snapshot and nothing else,
// so that no chunk of another archive may ever be taken for one of these.
type Class uint8

// The classes. What a blob says of itself is one of the first two.
const (
	ClassPlain Class = iota
	ClassEncrypted
	ClassPlainMeta
	ClassEncryptedMeta
)

// ClassCount is how many classes there are, a power of two.
const ClassCount = 4

// Encrypted tells whether the chunk is encrypted.
func (c Class) Encrypted() bool { return c&ClassEncrypted != 0 }

// Meta tells whether the chunk is one of an archive of metadata.
func (c Class) Meta() bool { return c&ClassPlainMeta != 0 }

// OfMeta is the class of the same blob in an archive of metadata.
func (c Class) OfMeta() Class { return c | ClassPlainMeta }

// String is the word for it.
func (c Class) String() string {
	if c.Encrypted() {
		return "encrypted"
	}
	return "plain"
}

// Classes is a set of classes.
type Classes uint8

// Sets of classes: all there are, and those of an archive of metadata and of any other.
const (
	AllClasses   = Classes(1<<ClassCount - 1)
	MetaClasses  = Classes(1<<ClassPlainMeta | 1<<ClassEncryptedMeta)
	OtherClasses = AllClasses &^ MetaClasses
)

// Has reports whether a class is in the set.
func (s Classes) Has(c Class) bool { return s&(1<<c) != 0 }

// With returns the set with a class added.
func (s Classes) With(c Class) Classes { return s | 1<<c }

// Owner tells whose copies of encrypted chunks are meant. It is a hash, so that it
// has a fixed size. The zero value is nobody: plain chunks, which a store can check
// against their names, are everybody's.
type Owner [12]byte

// OwnerOf returns the owner of that name.
func OwnerOf(name string) Owner {
	sum := sha256.Sum256([]byte("Holdfast chunk owner\n" + name))
	return Owner(sum[:len(Owner{})])
}

// meta is whose the copies of encrypted metadata of the owner are: nobody can tell what
// is in them, so that what was sent as one is never read as the other. No name of an
// owner has a line feed.
func (o Owner) meta() Owner { return OwnerOf("metadata\n" + string(o[:])) }

// Ref is what an index, and the manifest that describes it, say of a chunk: its
// name, the size of its content in bytes, and its class.
type Ref struct {
	ID    ID
	Size  uint32
	Class Class
}

// Key returns what a store finds the chunk by, for a snapshot that reads the
// copies of owner.
func (r Ref) Key(owner Owner) Key {
	switch {
	case !r.Class.Encrypted():
		owner = Owner{}
	case r.Class.Meta():
		owner = owner.meta()
	}
	return Key{ID: r.ID, Size: r.Size, Owner: owner}
}

// Key is what a stored chunk is found by. No two keys ever stand in for each other:
// not those of two classes, since whoever has the encryption key can make plain
// content of an encrypted chunk's name, nor those of two owners or sizes.
type Key struct {
	ID    ID
	Size  uint32 // of the content, in bytes
	Owner Owner  // zero for a plain chunk
}

// Class returns the class of the chunk's blob.
func (k Key) Class() Class {
	if k.Owner == (Owner{}) {
		return ClassPlain
	}
	return ClassEncrypted
}

// String names the chunk for a message.
func (k Key) String() string { return k.ID.String() }

// Compare orders keys by name, size and owner.
func (k Key) Compare(other Key) int {
	return cmp.Or(bytes.Compare(k.ID[:], other.ID[:]), cmp.Compare(k.Size, other.Size), bytes.Compare(k.Owner[:], other.Owner[:]))
}

// The first eight bytes of encrypted blobs, compressed ones and others (section 1
// of the formats specification).
const (
	MagicEncrypted           = "\x7b\x67\x85\xbe\x22\x2d\x4c\xf0"
	MagicEncryptedCompressed = "\xe6\x59\x1b\xbf\x0b\xbf\xd8\x0b"
)

// Plain is the content of a chunk.
type Plain []byte

// Blob is a chunk or a small file in its envelope, of whichever class, ready to be
// stored or sent. Package blob makes and opens them.
type Blob []byte

// Class tells which class a blob is of. It goes by the first bytes alone: what does
// not say that it is encrypted is plain.
func (s Blob) Class() Class {
	const size = len(MagicEncrypted)
	if len(s) < size {
		return ClassPlain
	}
	switch string(s[:size]) {
	case MagicEncrypted, MagicEncryptedCompressed:
		return ClassEncrypted
	}
	return ClassPlain
}

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
	Get(ctx context.Context, k Key) (Blob, error)
}

// RefGetter is what a snapshot is read through: Get is that of a Getter, for the
// owner whose copies the snapshot reads.
type RefGetter interface {
	Get(ctx context.Context, r Ref) (Blob, error)
}

// IntoGetter is a RefGetter that can do with the caller's memory. GetInto is Get that
// uses the capacity of room, of which RoomMore bytes more than the chunk has are
// enough; otherwise it returns memory of its own. The caller owns both.
type IntoGetter interface {
	RefGetter
	GetInto(ctx context.Context, r Ref, room []byte) (Blob, error)
}

// RoomMore is how many bytes more than a blob has GetInto may need.
const RoomMore = 128

// Store keeps chunks as blobs. All methods are safe for concurrent use.
type Store interface {
	Getter
	// Stat tells the sizes of a chunk that Get would find, or ErrNotExist.
	Stat(ctx context.Context, k Key) (Info, error)
	// Check reads a chunk back from the medium and compares it with the
	// SHA-256 recorded when it was put. It needs no key.
	Check(ctx context.Context, k Key) error
	// Begin opens a writing session.
	Begin(ctx context.Context) (Session, error)
	// Close releases the store; sessions must be closed before.
	Close() error
}

// Session is one writer to a Store. All methods but Close are safe for
// concurrent use.
type Session interface {
	// Put stores a chunk unless its owner has one of that name and size already;
	// added tells which. What other owners have, or that one of them has sent the
	// same bytes, changes nothing of what is returned. A healthy chunk is never
	// replaced, a damaged one is. The session does not keep c.Blob after it
	// returns. nil means accepted and readable in this process; only Sync makes
	// it durable.
	Put(ctx context.Context, c Chunk) (added bool, err error)
	// Sync makes durable every chunk that any session of this store has
	// accepted before the call. After an error nothing more can be written
	// until the store is opened anew.
	Sync(ctx context.Context) error
	// Close ends the session. What was put but not synced may stay or go.
	Close() error
}

// Chunk is what a Session puts. PlainSize is the length of the content in
// bytes; the store cannot see it in an encrypted blob. Owner is whose copy it will
// be; it must be set for an encrypted blob and says nothing for a plain one.
type Chunk struct {
	ID        ID
	PlainSize uint32
	Owner     Owner
	Blob      Blob
}

// Ref returns what an index says of the chunk. The class is that of the blob.
func (c Chunk) Ref() Ref { return Ref{ID: c.ID, Size: c.PlainSize, Class: c.Blob.Class()} }

// Key returns what the chunk is found by.
func (c Chunk) Key() Key { return c.Ref().Key(c.Owner) }

// Validate checks the sizes of c against the limits.
func (c Chunk) Validate() error {
	if c.ID.IsZero() {
		return fmt.Errorf("chunk id is zero: %w", ErrInvalid)
	}
	if c.PlainSize < 1 || c.PlainSize > PlainSizeMax {
		return fmt.Errorf("chunk %s: plain size %d is not within 1..%d: %w", c.ID.Short(), c.PlainSize, PlainSizeMax, ErrInvalid)
	}
	if len(c.Blob) <= BlobSizeMin || len(c.Blob) > BlobSizeMax {
		return fmt.Errorf("chunk %s: stored size %d is not within %d..%d: %w", c.ID.Short(), len(c.Blob), BlobSizeMin+1, BlobSizeMax, ErrInvalid)
	}
	return nil
}

// ValidateOwned is Validate for whoever stores c: an encrypted chunk has an owner.
func (c Chunk) ValidateOwned() error {
	if err := c.Validate(); err != nil {
		return err
	}
	if c.Blob.Class() == ClassEncrypted && c.Owner == (Owner{}) {
		return fmt.Errorf("chunk %s: an encrypted one without an owner: %w", c.ID.Short(), ErrInvalid)
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
	// ErrSweeping is returned for a sweep while another one runs.
	ErrSweeping = errors.New("another sweep is running")
	// ErrNothingFound ends a collection that has found no reference at all in a store
	// that holds chunks: more likely the snapshots are not where they should be than that
	// all chunks are garbage.
	ErrNothingFound = errors.New("no snapshot was found, though there are chunks")
)
