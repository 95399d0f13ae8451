package chunkstore

import (
	"context"
	"encoding/binary"
	"hash/maphash"
)

// Walker is a store that can name all its chunks.
type Walker interface {
	// Walk calls fn once for every chunk that the store knew when Walk was
	// called, damaged ones included, in no stated order, and stops at the
	// first error, which it returns.
	Walk(ctx context.Context, fn func(Key, Info) error) error
}

// Keeper is a session that can hold on to a chunk which it has not put.
type Keeper interface {
	// Keep tells the sizes of a stored chunk as Store.Stat does. Until the
	// session is closed the chunk is not removed.
	Keep(ctx context.Context, k Key) (Info, error)
	// KeepAll is Keep for many chunks, in a fraction of the time. It returns
	// the places in keys, rising, of those of which it could not tell at once that
	// they are stored: of these Keep tells. keys are only read.
	KeepAll(ctx context.Context, keys []Key) (rest []int, err error)
}

// KeySize is the length of an encoded key, in bytes.
const KeySize = 48

// Append appends the encoding of k to b: name, size and owner, so that encoded keys
// sort as keys do, and those of one name lie together.
func (k Key) Append(b []byte) []byte {
	b = append(b, k.ID[:]...)
	b = binary.BigEndian.AppendUint32(b, k.Size)
	return append(b, k.Owner[:]...)
}

// DecodeKey reads what Append has written, which must be KeySize bytes.
func DecodeKey(b []byte) Key {
	return Key{ID: ID(b), Size: binary.BigEndian.Uint32(b[32:]), Owner: Owner(b[36:KeySize])}
}

// Hasher makes short stand-ins for keys, for large sets in memory. Nobody can
// foresee them, so that nobody can choose keys of which two have the same.
type Hasher struct{ hi, lo maphash.Seed }

// NewHasher returns a Hasher of its own.
func NewHasher() Hasher { return Hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

// Of returns 128 bits that stand for k.
func (h Hasher) Of(k Key) (hi, lo uint64) {
	var room [KeySize]byte
	b := k.Append(room[:0])
	return maphash.Bytes(h.hi, b), maphash.Bytes(h.lo, b)
}
