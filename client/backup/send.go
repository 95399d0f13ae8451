package backup

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"sync"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/client/pipeline"
	"holdfast/datastore/wire"
)

// errMemory is returned when a blob does not open to what was read: something
// in this machine changed the bytes on the way.
var errMemory = errors.New("what was sealed does not open to what was read: the memory or processor of this machine is not reliable")

// windowed is a session whose target is far away: to keep the way there full
// many chunks have to be under way at once. Window returns how many, and how
// many bytes they may have together.
type windowed interface {
	Window() (chunks int, bytes int64)
}

// sender takes pieces from cutting to the store: name, ask, seal, prove, send.
// It is shared by all archives of a backup and safe for concurrent use.
type sender struct {
	codec    *blob.Codec
	known    *settled
	asker    wire.Asker // nil if the target is none
	seed     maphash.Seed
	buffers  *pipeline.Pool[[]byte] // of pieces
	benches  *pipeline.Pool[*bench] // one for each core
	window   *pipeline.Window       // nil if the target is on this machine
	progress *Progress
	zeroes   []byte // fixedSize bytes that nobody writes
	zeroIDs  zeroIDs
}

// bench is the memory of one worker, used for one piece at a time.
type bench struct {
	sealed []byte
	opened []byte
}

// newSender returns a sender that works on workers pieces at once and cuts
// with cutters goroutines. Its memory is bounded by cutters + 2*workers buffers
// of plainMax + gridSize bytes, workers benches of twice that, and the window.
func newSender(codec *blob.Codec, workers, cutters, plainMax int) *sender {
	s := &sender{codec: codec, known: newSettled(), seed: maphash.MakeSeed(), zeroes: make([]byte, fixedSize)}
	s.buffers = pipeline.NewPool(cutters+2*workers, func() []byte { return make([]byte, plainMax+gridSize) })
	s.benches = pipeline.NewPool(workers, func() *bench {
		return &bench{sealed: make([]byte, 0, blob.SizeMax(plainMax)), opened: make([]byte, 0, blob.SizeMax(plainMax))}
	})
	s.zeroIDs.ids = make(map[int]chunkstore.ID)
	return s
}

// sum fingerprints bytes within this process.
func (s *sender) sum(b []byte) uint64 { return maphash.Bytes(s.seed, b) }

// zeroIDs remembers what zero chunks are called.
type zeroIDs struct {
	mu  sync.Mutex
	ids map[int]chunkstore.ID
}

// zeroID names the chunk of size zero bytes, size at most fixedSize.
func (s *sender) zeroID(size int) chunkstore.ID {
	s.zeroIDs.mu.Lock()
	defer s.zeroIDs.mu.Unlock()
	id, ok := s.zeroIDs.ids[size]
	if !ok {
		id = s.codec.Name(s.zeroes[:size])
		s.zeroIDs.ids[size] = id
	}
	return id
}

// has reports whether the target has a chunk of the previous snapshot.
func (s *sender) has(ctx context.Context, id chunkstore.ID, size int) bool {
	if s.asker == nil {
		return true
	}
	ok, err := s.asker.Has(ctx, chunkstore.Ref{ID: id, Size: uint32(size), Class: s.codec.Class()})
	if err != nil || !ok {
		s.known.forget(id)
		return false
	}
	return true
}

// store makes sure that the target has p, and returns its name. It gives p's
// buffer back.
func (s *sender) store(ctx context.Context, p piece, to *archive) (chunkstore.ID, error) {
	if p.same {
		return p.id, nil
	}
	c := &parcel{to: to, plain: chunkstore.Plain(p.buf[:min(p.size, len(p.buf))]), size: p.size, sum: p.sum, zero: p.zero, buf: p.buf}
	defer s.unload(c)
	if p.zero {
		c.plain, c.id, c.sum = s.zeroes[:p.size], s.zeroID(p.size), 0
	} else if err := s.name(ctx, c); err != nil {
		return c.id, err
	}
	for {
		send, err := s.known.claim(ctx, c.id)
		if err != nil {
			return c.id, err
		}
		if send {
			err := s.send(ctx, c)
			s.known.settle(c.id, err == nil)
			return c.id, err
		}
		if s.has(ctx, c.id, c.size) {
			return c.id, nil
		}
	}
}

// parcel is a chunk on its way to the target.
type parcel struct {
	to    *archive
	id    chunkstore.ID
	plain chunkstore.Plain
	size  int // of plain
	sum   uint64
	zero  bool
	buf   []byte // what plain lies in, to be given back
}

// unload gives the buffer of the plain bytes back, once.
func (s *sender) unload(c *parcel) {
	if c.buf != nil {
		s.buffers.Put(c.buf)
	}
	c.buf, c.plain = nil, nil
}

// name names the chunk. It waits for a worker's turn, as all do that compute.
func (s *sender) name(ctx context.Context, c *parcel) error {
	b, err := s.benches.Get(ctx)
	if err != nil {
		return err
	}
	defer s.benches.Put(b)
	c.id = s.codec.Name(c.plain)
	return nil
}

// send seals a chunk, proves that it opens again, and puts it. If the target
// is far away the chunk travels in memory of its own, and the worker goes on.
func (s *sender) send(ctx context.Context, c *parcel) error {
	b, err := s.benches.Get(ctx)
	if err != nil {
		return err
	}
	raw, err := s.seal(b, c)
	if err != nil || s.window == nil {
		defer s.benches.Put(b)
		if err != nil {
			return err
		}
		return s.put(ctx, c, raw)
	}
	room, err := s.window.Take(ctx, len(raw))
	if err != nil {
		s.benches.Put(b)
		return err
	}
	defer s.window.Give(room)
	raw = append(room, raw...)
	s.benches.Put(b)
	s.unload(c)
	return s.put(ctx, c, raw)
}

// seal seals a chunk and proves that it opens again.
func (s *sender) seal(b *bench, c *parcel) (chunkstore.Blob, error) {
	raw, err := s.codec.Encode(b.sealed, c.plain)
	if err != nil {
		return nil, fmt.Errorf("seal chunk %s: %w", c.id.Short(), err)
	}
	opened, err := s.codec.Decode(b.opened, raw, c.size)
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w (%w)", c.id.Short(), errMemory, err)
	}
	if !s.proves(opened, c) {
		return nil, fmt.Errorf("chunk %s: %w", c.id.Short(), errMemory)
	}
	return raw, nil
}

func (s *sender) put(ctx context.Context, c *parcel, raw chunkstore.Blob) error {
	added, err := c.to.writer.PutChunk(ctx, chunkstore.Chunk{ID: c.id, PlainSize: uint32(c.size), Blob: raw})
	if err != nil {
		return err
	}
	if added {
		c.to.count(c.size, len(raw))
		s.progress.New.Add(int64(c.size))
		s.progress.Sent.Add(int64(len(raw)))
	}
	return nil
}

func (s *sender) proves(opened chunkstore.Plain, c *parcel) bool {
	if len(opened) != c.size {
		return false
	}
	if c.zero {
		return allZero(opened)
	}
	return s.sum(opened) == c.sum
}
