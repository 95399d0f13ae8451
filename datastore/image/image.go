// Package image is the one door for reading back: an archive that was stored as
// chunks, opened as bytes again. Restore, verify and everything that mounts or
// serves an archive go through it.
//
// It promises that no byte leaves it that was not proven: every chunk is opened,
// its length compared with the index, and its content with its name. Whether the
// index is the one of the snapshot is settled before, by Open, against the
// manifest. A chunk that is missing or damaged is an error, never zeros.
package image

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Image is an open archive. All methods but Close are safe for concurrent use.
type Image struct {
	idx   *index.Reader
	get   chunkstore.RefGetter
	codec *blob.Codec
	name  string
	zeros zeroNames
	rooms sync.Pool // of *[]byte, for blobs
}

// Options says what to open.
type Options struct {
	Reader  wire.Reader
	File    manifest.File // as the manifest describes the archive
	Key     *crypto.Key   // needed for encrypted archives
	Workers int           // goroutines that will read at once
}

// Open opens an archive and checks its index against the manifest's entry.
func Open(ctx context.Context, o Options) (*Image, error) {
	encrypt := o.File.CryptMode == crypto.ModeEncrypt
	if encrypt && o.Key == nil {
		return nil, fmt.Errorf("open %s: %w", o.File.Name, crypto.ErrNoKey)
	}
	codec, err := blob.NewCodec(blob.Options{Key: o.Key, Encrypt: encrypt, Workers: o.Workers})
	if err != nil {
		return nil, err
	}
	idx, err := OpenIndex(ctx, o.Reader, o.File)
	if err != nil {
		return nil, err
	}
	return newImage(o.File.Name, idx, o.Reader, codec), nil
}

// OpenIndex opens an index and compares checksum and size, computed from its
// entries, with the manifest's. The caller closes it.
func OpenIndex(ctx context.Context, r wire.Reader, f manifest.File) (*index.Reader, error) {
	idx, err := r.Index(ctx, f.Name)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name, err)
	}
	if err := CheckIndex(idx, f); err != nil {
		return nil, errors.Join(err, idx.Close())
	}
	return idx, nil
}

// CheckIndex compares checksum and size of an index, computed from its entries, with the
// manifest's.
func CheckIndex(idx *index.Reader, f manifest.File) error {
	sum, err := idx.Summary()
	if err == nil && sum.Csum != f.Csum {
		err = fmt.Errorf("checksum %x… is not the manifest's %x…: %w", sum.Csum[:4], f.Csum[:4], chunkstore.ErrCorrupt)
	}
	if err == nil && sum.Size != f.Size {
		err = fmt.Errorf("size %d is not the manifest's %d: %w", sum.Size, f.Size, chunkstore.ErrCorrupt)
	}
	if err != nil {
		return fmt.Errorf("check %s: %w", f.Name, err)
	}
	return nil
}

// newImage returns an image over an index that has been checked. It takes over idx.
func newImage(name string, idx *index.Reader, get chunkstore.RefGetter, codec *blob.Codec) *Image {
	m := &Image{name: name, idx: idx, get: get, codec: codec}
	m.zeros.ids = make(map[uint32]chunkstore.ID)
	return m
}

// Size returns the size of the archive in bytes.
func (m *Image) Size() int64 { return int64(m.idx.Size()) }

// Index returns the index underneath.
func (m *Image) Index() *index.Reader { return m.idx }

// Close closes the index.
func (m *Image) Close() error { return m.idx.Close() }

// Chunk returns the proven content of an entry of the index, in dst[:0] if its
// capacity suffices. The caller owns it.
func (m *Image) Chunk(ctx context.Context, e index.Entry, dst []byte) (chunkstore.Plain, error) {
	raw, done, err := m.fetch(ctx, e)
	if err != nil {
		return nil, m.errorAt(e, err)
	}
	defer done()
	plain, err := m.codec.DecodeChunk(dst, e.ID, raw, int(e.Size))
	if err != nil {
		return nil, m.errorAt(e, err)
	}
	return plain, nil
}

// fetch gets the blob of an entry, which is valid until done is called.
func (m *Image) fetch(ctx context.Context, e index.Entry) (s chunkstore.Blob, done func(), err error) {
	ref := chunkstore.Ref{ID: e.ID, Size: e.Size, Class: manifest.ClassIn(m.name, m.codec.Class())}
	get, ok := m.get.(chunkstore.IntoGetter)
	if !ok {
		s, err = m.get.Get(ctx, ref)
		return s, func() {}, err
	}
	room, ok := m.rooms.Get().(*[]byte)
	if need := int(e.Size) + chunkstore.BlobMore + chunkstore.RoomMore; !ok || cap(*room) < need {
		fresh := make([]byte, need)
		room = &fresh
	}
	done = func() { m.rooms.Put(room) }
	if s, err = get.GetInto(ctx, ref, *room); err != nil {
		done()
	}
	return s, done, err
}

// errorAt names the place; err names the chunk. A chunk that is not there is
// damage of the store, not a thing that was asked for in vain.
func (m *Image) errorAt(e index.Entry, err error) error {
	if errors.Is(err, chunkstore.ErrNotExist) {
		err = fmt.Errorf("%w: %w", chunkstore.ErrCorrupt, err)
	}
	return fmt.Errorf("%s at offset %d: %w", m.name, e.Off, err)
}

// Matches reports whether content is what the entry stands for, without the
// chunk being read: the name tells.
func (m *Image) Matches(e index.Entry, content chunkstore.Plain) bool {
	return len(content) == int(e.Size) && m.codec.Name(content) == e.ID
}

// zeroUnit is what the size of a chunk must be a multiple of for it to be
// looked at as a zero chunk; others are simply read.
const zeroUnit = 4096

// zeroNames remembers what zero chunks are called.
type zeroNames struct {
	mu  sync.Mutex
	ids map[uint32]chunkstore.ID
}

// zeroNamesMax bounds how many sizes are remembered.
const zeroNamesMax = 64

// IsZero reports whether the entry is known, by its name, to hold only zeros,
// so that it need not be read. false says nothing.
func (m *Image) IsZero(e index.Entry) bool {
	if e.Size%zeroUnit != 0 {
		return false
	}
	m.zeros.mu.Lock()
	defer m.zeros.mu.Unlock()
	id, ok := m.zeros.ids[e.Size]
	if !ok {
		if len(m.zeros.ids) >= zeroNamesMax {
			return false
		}
		id = m.codec.Name(make(chunkstore.Plain, e.Size))
		m.zeros.ids[e.Size] = id
	}
	return id == e.ID
}
