package catalogue

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime/debug"
	"slices"
	"sync/atomic"
	"time"

	"go.etcd.io/bbolt"
	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
)

// The catalogue is a bbolt file. Keys that are numbers are big-endian, so that
// they sort; all other integers are little-endian. Every value ends with the
// CRC-32C of key and value before it.
//
//	bucket meta    "version" -> u32 2
//	               "epoch"   -> u64 of the last writer
//	               "clock"   -> u64, reserved for the time that was seen last
//	               "partial" -> u32 1 if packs could not be read when it was built
//	bucket packs   pack number u32 -> id 8, state u32, length u64,
//	               record count u64, stored bytes u64, plain bytes u64,
//	               u64 Unix seconds of the last good check
//	bucket chunks  chunk id 32, plain size u32 big-endian, owner 12 -> pack number
//	               u32, offset u32, stored size u32, rank u32, flags u8;
//	               of an encrypted chunk also the first 16 bytes of the SHA-256
//	               of its stored bytes, and if its owner has only claimed what is
//	               there, pack number u32 and offset u32 of the claim
//
// It is a cache of what the packs say. Every doubt about it is ErrDoubt,
// and the answer to that is to build it anew.
const (
	// FileName is where it lies in the directory of a store.
	FileName         = "catalogue.db"
	catalogueVersion = 2
	// allocSize is by how much the file grows beyond what it needs; bbolt's own
	// 16 MiB would be most of a small store.
	allocSize = 64 << 10
)

var (
	bucketMeta   = []byte("meta")
	bucketPacks  = []byte("packs")
	bucketChunks = []byte("chunks")

	keyVersion = []byte("version")
	keyEpoch   = []byte("epoch")
	keyClock   = []byte("clock")
	keyPartial = []byte("partial")
)

// File is one open bbolt file. Any number of readers may use it beside
// one writer.
type File struct {
	db     *bbolt.DB
	file   *os.File
	path   string
	broken atomic.Bool // bbolt has panicked: its locks are in an unknown state
}

// OpenFile opens a bbolt file as it is. Any doubt is ErrDoubt.
func OpenFile(path string, readOnly, bulk bool) (*File, error) {
	c := &File{path: path}
	o := &bbolt.Options{
		Timeout:      time.Second,
		FreelistType: bbolt.FreelistMapType,
		ReadOnly:     readOnly,
		NoSync:       bulk,
		NoGrowSync:   bulk,
		NoStatistics: true,
		OpenFile: func(name string, flag int, mode fs.FileMode) (*os.File, error) {
			f, err := durable.OpenFile(name, flag, mode)
			c.file = f
			return f, err
		},
	}
	err := c.guard(func() (err error) {
		if c.db, err = bbolt.Open(path, 0o640, o); err == nil {
			c.db.AllocSize = allocSize
		}
		return err
	})
	switch {
	case err == nil:
		return c, nil
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, ErrDoubt):
		return nil, err
	case durable.IsFull(err), durable.IsReadOnly(err), durable.IsShortage(err), errors.Is(err, unix.ENOMEM):
		return nil, fmt.Errorf("open catalogue: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", ErrDoubt, err)
}

// guard runs fn, which may touch the mapped file. A page that cannot be read
// or makes no sense comes back as ErrDoubt; after that the catalogue is
// not touched again.
func (c *File) guard(fn func() error) (err error) {
	if c.broken.Load() {
		return fmt.Errorf("%w: given up after an earlier error", ErrDoubt)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			c.abandon()
			err = fmt.Errorf("%w: %v", ErrDoubt, r)
		}
	}()
	return fn()
}

// abandon gives a catalogue up whose state is unknown. It cannot be closed,
// since a lock inside bbolt may be held for ever; only the lock on the file is
// dropped, so that it does not stand in the way of the next one.
func (c *File) abandon() {
	if c.broken.CompareAndSwap(false, true) && c.file != nil {
		_ = unix.Flock(int(c.file.Fd()), unix.LOCK_UN)
	}
}

// Close releases the file.
func (c *File) Close() error {
	if c.broken.Load() {
		return nil
	}
	if err := c.guard(c.db.Close); err != nil {
		return fmt.Errorf("close catalogue: %w", err)
	}
	return nil
}

// view runs fn in a reading transaction.
func (c *File) view(fn func(*bbolt.Tx) error) error {
	return c.guard(func() error { return c.db.View(fn) })
}

// bucket returns one of the three buckets, or ErrDoubt.
func bucket(tx *bbolt.Tx, name []byte) (*bbolt.Bucket, error) {
	b := tx.Bucket(name)
	if b == nil {
		return nil, fmt.Errorf("%w: no bucket %s", ErrDoubt, name)
	}
	return b, nil
}

// Get looks a chunk up.
func (c *File) Get(k chunkstore.Key) (l Location, ok bool, err error) {
	var room [chunkstore.KeySize]byte
	key := k.Append(room[:0])
	err = c.view(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, bucketChunks)
		if err != nil {
			return err
		}
		v := b.Get(key)
		if v == nil {
			return nil
		}
		ok = true
		l, err = decodeLocation(key, v)
		return err
	})
	return l, ok && err == nil, err
}

// GetAll looks up the chunks that have no place in found yet, in the order of their
// keys, in which pages of the file are near to each other.
func (c *File) GetAll(keys []chunkstore.Key, found []Location) error {
	order := make([]int, 0, len(keys))
	for i := range keys {
		if found[i] == (Location{}) {
			order = append(order, i)
		}
	}
	slices.SortFunc(order, func(a, b int) int { return keys[a].Compare(keys[b]) })
	return c.view(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, bucketChunks)
		if err != nil {
			return err
		}
		for _, i := range order {
			var room [chunkstore.KeySize]byte
			key := keys[i].Append(room[:0])
			v := b.Get(key)
			if v == nil {
				continue
			}
			if found[i], err = decodeLocation(key, v); err != nil {
				return err
			}
		}
		return nil
	})
}

// Holders looks up the chunks of all owners that have the name and size of k.
func (c *File) Holders(k chunkstore.Key) (list []Held, err error) {
	first := chunkstore.Key{ID: k.ID, Size: k.Size}
	err = c.view(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, bucketChunks)
		if err != nil {
			return err
		}
		cur := b.Cursor()
		for key, v := cur.Seek(first.Append(nil)); key != nil; key, v = cur.Next() {
			h, err := decodeHeld(key, v)
			if err != nil {
				return err
			}
			if h.Key.ID != k.ID || h.Key.Size != k.Size {
				return nil
			}
			list = append(list, h)
		}
		return nil
	})
	return list, err
}

// Scan calls fn for at most limit chunks with keys from first on and returns
// the key to go on with; done says that there is none.
func (c *File) Scan(first chunkstore.Key, limit int, fn func(chunkstore.Key, Location)) (next chunkstore.Key, done bool, err error) {
	err = c.view(func(tx *bbolt.Tx) error {
		b, err := bucket(tx, bucketChunks)
		if err != nil {
			return err
		}
		cur := b.Cursor()
		k, v := cur.Seek(first.Append(nil))
		for n := 0; k != nil; k, v = cur.Next() {
			h, err := decodeHeld(k, v)
			if err != nil {
				return err
			}
			if n == limit {
				next = h.Key
				return nil
			}
			fn(h.Key, h.Location)
			n++
		}
		done = true
		return nil
	})
	return next, done, err
}

// MarkPartial notes that packs could not be read. The next opening builds the
// catalogue anew: the disk may be well again by then.
func (c *File) MarkPartial() error {
	return c.guard(func() error {
		return c.db.Update(func(tx *bbolt.Tx) error {
			meta, err := bucket(tx, bucketMeta)
			if err != nil {
				return err
			}
			return meta.Put(keyPartial, sealValue(keyPartial, binary.LittleEndian.AppendUint32(nil, 1)))
		})
	})
}

// Header reads version and epoch, and all packs. One that was built without
// some packs is ErrDoubt.
func (c *File) Header() (epoch uint64, packs map[uint32]*PackInfo, err error) {
	packs = make(map[uint32]*PackInfo)
	err = c.view(func(tx *bbolt.Tx) error {
		if _, err := bucket(tx, bucketChunks); err != nil {
			return err
		}
		meta, err := bucket(tx, bucketMeta)
		if err != nil {
			return err
		}
		v, err := openValue(keyVersion, meta.Get(keyVersion), 4)
		if err != nil {
			return err
		}
		if n := binary.LittleEndian.Uint32(v); n != catalogueVersion {
			return fmt.Errorf("%w: unknown version %d", ErrDoubt, n)
		}
		if v, err = openValue(keyEpoch, meta.Get(keyEpoch), 8); err != nil {
			return err
		}
		epoch = binary.LittleEndian.Uint64(v)
		if meta.Get(keyPartial) != nil {
			return fmt.Errorf("%w: packs could not be read when it was built", ErrDoubt)
		}
		b, err := bucket(tx, bucketPacks)
		if err != nil {
			return err
		}
		return b.ForEach(func(k, v []byte) error {
			no, p, err := decodePackInfo(k, v)
			packs[no] = &p
			return err
		})
	})
	return epoch, packs, err
}

// Changes are what one transaction writes.
type Changes struct {
	Epoch   uint64
	Chunks  []Held // in the order of their keys, each once
	Deletes []chunkstore.Key
	Packs   map[uint32]PackInfo
	Drop    []uint32 // packs that are no more
	// merge keeps, of two copies of a chunk, the one that beats the other.
	// Without it the new one wins.
	Merge bool
	// ordered says that the chunks come behind all that are there.
	Ordered bool
}

// Commit writes changes in one transaction, keys in order. duplicates counts
// the chunks that were there already when merging.
func (c *File) Commit(ch Changes) (duplicates uint64, err error) {
	err = c.guard(func() error {
		return c.db.Update(func(tx *bbolt.Tx) error {
			duplicates, err = ch.apply(tx)
			return err
		})
	})
	var pe *fs.PathError
	switch {
	case err == nil || errors.Is(err, ErrDoubt):
		return duplicates, err
	case durable.IsFull(err) && errors.As(err, &pe):
		// A write of bbolt has failed and the transaction was rolled back.
		return 0, fmt.Errorf("commit catalogue: %w: %w", chunkstore.ErrNoSpace, err)
	}
	// Its fsync, the only other thing that can fail, leaves no path.
	return 0, fmt.Errorf("commit catalogue: %w: %w", durable.ErrLost, err)
}

func (ch Changes) apply(tx *bbolt.Tx) (duplicates uint64, err error) {
	chunks, err := bucket(tx, bucketChunks)
	if err != nil {
		return 0, err
	}
	for _, k := range ch.Deletes {
		if err := chunks.Delete(k.Append(nil)); err != nil {
			return 0, err
		}
	}
	if first, _ := chunks.Cursor().First(); first == nil || ch.Ordered {
		// Keys come in order now, so pages can be filled; later ones fall
		// anywhere and need room.
		chunks.FillPercent = 0.9
	}
	for _, h := range ch.Chunks {
		there, err := ch.put(chunks, h)
		if err != nil {
			return 0, err
		}
		if there {
			duplicates++
		}
	}
	return duplicates, ch.applyRest(tx)
}

// put writes the location of one chunk. When merging it tells whether there
// was one.
func (ch Changes) put(b *bbolt.Bucket, h Held) (there bool, err error) {
	key := h.Key.Append(nil)
	if v := b.Get(key); ch.Merge && v != nil {
		old, err := decodeLocation(key, v)
		if err != nil || !h.Beats(old) {
			return true, err
		}
		there = true
	}
	return there, b.Put(key, encodeLocation(key, h.Location))
}

func (ch Changes) applyRest(tx *bbolt.Tx) error {
	packs, err := bucket(tx, bucketPacks)
	if err != nil {
		return err
	}
	for no, p := range ch.Packs {
		if err := packs.Put(packKey(no), encodePackInfo(no, p)); err != nil {
			return err
		}
	}
	for _, no := range ch.Drop {
		if err := packs.Delete(packKey(no)); err != nil {
			return err
		}
	}
	meta, err := bucket(tx, bucketMeta)
	if err != nil {
		return err
	}
	return meta.Put(keyEpoch, sealValue(keyEpoch, binary.LittleEndian.AppendUint64(nil, ch.Epoch)))
}

// format makes the buckets of a new catalogue.
func (c *File) format() error {
	return c.guard(func() error {
		return c.db.Update(func(tx *bbolt.Tx) error {
			for _, name := range [][]byte{bucketPacks, bucketChunks} {
				if _, err := tx.CreateBucket(name); err != nil {
					return err
				}
			}
			meta, err := tx.CreateBucket(bucketMeta)
			if err != nil {
				return err
			}
			return errors.Join(
				meta.Put(keyVersion, sealValue(keyVersion, binary.LittleEndian.AppendUint32(nil, catalogueVersion))),
				meta.Put(keyEpoch, sealValue(keyEpoch, binary.LittleEndian.AppendUint64(nil, 0))),
				meta.Put(keyClock, sealValue(keyClock, binary.LittleEndian.AppendUint64(nil, 0))),
			)
		})
	})
}
