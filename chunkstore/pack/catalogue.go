package pack

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
	"holdfast/chunkstore/pack/disk"
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
// It is a cache of what the packs say. Every doubt about it is errCatalogue,
// and the answer to that is to build it anew.
const (
	catalogueName    = "catalogue.db"
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

// catalogue is one open bbolt file. Any number of readers may use it beside
// one writer.
type catalogue struct {
	db     *bbolt.DB
	file   *os.File
	path   string
	broken atomic.Bool // bbolt has panicked: its locks are in an unknown state
}

// openBolt opens a bbolt file as it is. Any doubt is errCatalogue.
func openBolt(path string, readOnly, bulk bool) (*catalogue, error) {
	c := &catalogue{path: path}
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
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, errCatalogue):
		return nil, err
	case disk.IsFull(err), disk.IsReadOnly(err), disk.IsShortage(err), errors.Is(err, unix.ENOMEM):
		return nil, fmt.Errorf("open catalogue: %w", err)
	}
	return nil, fmt.Errorf("%w: %w", errCatalogue, err)
}

// guard runs fn, which may touch the mapped file. A page that cannot be read
// or makes no sense comes back as errCatalogue; after that the catalogue is
// not touched again.
func (c *catalogue) guard(fn func() error) (err error) {
	if c.broken.Load() {
		return fmt.Errorf("%w: given up after an earlier error", errCatalogue)
	}
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	defer func() {
		if r := recover(); r != nil {
			c.abandon()
			err = fmt.Errorf("%w: %v", errCatalogue, r)
		}
	}()
	return fn()
}

// abandon gives a catalogue up whose state is unknown. It cannot be closed,
// since a lock inside bbolt may be held for ever; only the lock on the file is
// dropped, so that it does not stand in the way of the next one.
func (c *catalogue) abandon() {
	if c.broken.CompareAndSwap(false, true) && c.file != nil {
		_ = unix.Flock(int(c.file.Fd()), unix.LOCK_UN)
	}
}

// close releases the file.
func (c *catalogue) close() error {
	if c.broken.Load() {
		return nil
	}
	if err := c.guard(c.db.Close); err != nil {
		return fmt.Errorf("close catalogue: %w", err)
	}
	return nil
}

// view runs fn in a reading transaction.
func (c *catalogue) view(fn func(*bbolt.Tx) error) error {
	return c.guard(func() error { return c.db.View(fn) })
}

// bucket returns one of the three buckets, or errCatalogue.
func bucket(tx *bbolt.Tx, name []byte) (*bbolt.Bucket, error) {
	b := tx.Bucket(name)
	if b == nil {
		return nil, fmt.Errorf("%w: no bucket %s", errCatalogue, name)
	}
	return b, nil
}

// get looks a chunk up.
func (c *catalogue) get(k chunkstore.Key) (l location, ok bool, err error) {
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

// getAll looks up the chunks that have no place in found yet, in the order of their
// keys, in which pages of the file are near to each other.
func (c *catalogue) getAll(keys []chunkstore.Key, found []location) error {
	order := make([]int, 0, len(keys))
	for i := range keys {
		if found[i] == (location{}) {
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

// holders looks up the chunks of all owners that have the name and size of k.
func (c *catalogue) holders(k chunkstore.Key) (list []held, err error) {
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
			if h.key.ID != k.ID || h.key.Size != k.Size {
				return nil
			}
			list = append(list, h)
		}
		return nil
	})
	return list, err
}

// scan calls fn for at most limit chunks with keys from first on and returns
// the key to go on with; done says that there is none.
func (c *catalogue) scan(first chunkstore.Key, limit int, fn func(chunkstore.Key, location)) (next chunkstore.Key, done bool, err error) {
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
				next = h.key
				return nil
			}
			fn(h.key, h.location)
			n++
		}
		done = true
		return nil
	})
	return next, done, err
}

// markPartial notes that packs could not be read. The next opening builds the
// catalogue anew: the disk may be well again by then.
func (c *catalogue) markPartial() error {
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

// header reads version and epoch, and all packs. One that was built without
// some packs is errCatalogue.
func (c *catalogue) header() (epoch uint64, packs map[uint32]*packInfo, err error) {
	packs = make(map[uint32]*packInfo)
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
			return fmt.Errorf("%w: unknown version %d", errCatalogue, n)
		}
		if v, err = openValue(keyEpoch, meta.Get(keyEpoch), 8); err != nil {
			return err
		}
		epoch = binary.LittleEndian.Uint64(v)
		if meta.Get(keyPartial) != nil {
			return fmt.Errorf("%w: packs could not be read when it was built", errCatalogue)
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

// changes are what one transaction writes.
type changes struct {
	epoch   uint64
	chunks  []held // in the order of their keys, each once
	deletes []chunkstore.Key
	packs   map[uint32]packInfo
	drop    []uint32 // packs that are no more
	// merge keeps, of two copies of a chunk, the one that beats the other.
	// Without it the new one wins.
	merge bool
	// ordered says that the chunks come behind all that are there.
	ordered bool
}

// commit writes changes in one transaction, keys in order. duplicates counts
// the chunks that were there already when merging.
func (c *catalogue) commit(ch changes) (duplicates uint64, err error) {
	err = c.guard(func() error {
		return c.db.Update(func(tx *bbolt.Tx) error {
			duplicates, err = ch.apply(tx)
			return err
		})
	})
	var pe *fs.PathError
	switch {
	case err == nil || errors.Is(err, errCatalogue):
		return duplicates, err
	case disk.IsFull(err) && errors.As(err, &pe):
		// A write of bbolt has failed and the transaction was rolled back.
		return 0, fmt.Errorf("commit catalogue: %w: %w", chunkstore.ErrNoSpace, err)
	}
	// Its fsync, the only other thing that can fail, leaves no path.
	return 0, fmt.Errorf("commit catalogue: %w: %w", durable.ErrLost, err)
}

func (ch changes) apply(tx *bbolt.Tx) (duplicates uint64, err error) {
	chunks, err := bucket(tx, bucketChunks)
	if err != nil {
		return 0, err
	}
	for _, k := range ch.deletes {
		if err := chunks.Delete(k.Append(nil)); err != nil {
			return 0, err
		}
	}
	if first, _ := chunks.Cursor().First(); first == nil || ch.ordered {
		// Keys come in order now, so pages can be filled; later ones fall
		// anywhere and need room.
		chunks.FillPercent = 0.9
	}
	for _, h := range ch.chunks {
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
func (ch changes) put(b *bbolt.Bucket, h held) (there bool, err error) {
	key := h.key.Append(nil)
	if v := b.Get(key); ch.merge && v != nil {
		old, err := decodeLocation(key, v)
		if err != nil || !h.beats(old) {
			return true, err
		}
		there = true
	}
	return there, b.Put(key, encodeLocation(key, h.location))
}

func (ch changes) applyRest(tx *bbolt.Tx) error {
	packs, err := bucket(tx, bucketPacks)
	if err != nil {
		return err
	}
	for no, p := range ch.packs {
		if err := packs.Put(packKey(no), encodePackInfo(no, p)); err != nil {
			return err
		}
	}
	for _, no := range ch.drop {
		if err := packs.Delete(packKey(no)); err != nil {
			return err
		}
	}
	meta, err := bucket(tx, bucketMeta)
	if err != nil {
		return err
	}
	return meta.Put(keyEpoch, sealValue(keyEpoch, binary.LittleEndian.AppendUint64(nil, ch.epoch)))
}

// format makes the buckets of a new catalogue.
func (c *catalogue) format() error {
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
