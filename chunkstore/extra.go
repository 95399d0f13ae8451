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

// StandIn stands for a key or a name in a large set in memory: a hash of 128 bits that
// its Hasher alone makes. That suffices: nobody can foresee it, so nobody can choose two
// that have the same, and of the 2^32 chunks of a large store two have it by chance once
// in 2^65 stores. Two that had it would be taken for one: the collector would keep
// garbage, a verification count the second as proven with the first, and a backup not
// send it, so that the server, which has a Hasher of its own, refuses the reference.
type StandIn struct{ Hi, Lo uint64 }

// Hasher makes stand-ins. Those of two Hashers have nothing to do with each other. It
// must be made by NewHasher, and is safe for concurrent use.
type Hasher struct{ hi, lo maphash.Seed }

// NewHasher returns a Hasher of its own.
func NewHasher() Hasher { return Hasher{maphash.MakeSeed(), maphash.MakeSeed()} }

// Of returns what stands for k.
func (h Hasher) Of(k Key) StandIn {
	var room [KeySize]byte
	b := k.Append(room[:0])
	return StandIn{maphash.Bytes(h.hi, b), maphash.Bytes(h.lo, b)}
}

// OfID returns what stands for a name alone, whatever its chunks are.
func (h Hasher) OfID(id ID) StandIn { return h.Of(Key{ID: id}) }
