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

// sender takes pieces from cutting to the store: name, ask, seal, prove, send.
// It is shared by all archives of a backup and safe for concurrent use.
type sender struct {
	codec    *blob.Codec
	known    *known
	asker    wire.Asker // nil if the target is none
	seed     maphash.Seed
	buffers  *pipeline.Pool[[]byte] // of pieces
	benches  *pipeline.Pool[*bench] // one for each core
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
// of plainMax + gridSize bytes and workers benches of twice that.
func newSender(codec *blob.Codec, workers, cutters, plainMax int) *sender {
	s := &sender{codec: codec, known: newKnown(), seed: maphash.MakeSeed(), zeroes: make([]byte, fixedSize)}
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
	ok, err := s.asker.Has(ctx, id, uint32(size))
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
	plain := chunkstore.Plain(p.buf[:min(p.size, len(p.buf))])
	if p.buf != nil {
		defer s.buffers.Put(p.buf)
	}
	id := chunkstore.ID{}
	if p.zero {
		plain = s.zeroes[:p.size]
		id, p.sum = s.zeroID(p.size), 0
	}
	b, err := s.benches.Get(ctx)
	if err != nil {
		return id, err
	}
	defer s.benches.Put(b)
	if !p.zero {
		id = s.codec.Name(plain)
	}
	for {
		send, err := s.known.claim(ctx, id)
		if err != nil {
			return id, err
		}
		if send {
			err := s.send(ctx, b, sending{id: id, plain: plain, sum: p.sum, zero: p.zero, to: to})
			s.known.settle(id, err == nil)
			return id, err
		}
		if s.has(ctx, id, p.size) {
			return id, nil
		}
	}
}

// sending is a chunk that the target does not have.
type sending struct {
	id    chunkstore.ID
	plain chunkstore.Plain
	sum   uint64
	zero  bool
	to    *archive
}

// send seals a chunk, proves that it opens again, and puts it.
func (s *sender) send(ctx context.Context, b *bench, c sending) error {
	sealed, err := s.codec.Seal(b.sealed, c.plain)
	if err != nil {
		return fmt.Errorf("seal chunk %s: %w", c.id.Short(), err)
	}
	opened, err := s.codec.Open(b.opened, sealed, len(c.plain))
	if err != nil {
		return fmt.Errorf("chunk %s: %w (%w)", c.id.Short(), errMemory, err)
	}
	if !s.proves(opened, c) {
		return fmt.Errorf("chunk %s: %w", c.id.Short(), errMemory)
	}
	added, err := c.to.writer.PutChunk(ctx, chunkstore.Chunk{ID: c.id, PlainSize: uint32(len(c.plain)), Sealed: sealed})
	if err != nil {
		return err
	}
	if added {
		c.to.count(len(c.plain), len(sealed))
		s.progress.New.Add(int64(len(c.plain)))
		s.progress.Sent.Add(int64(len(sealed)))
	}
	return nil
}

func (s *sender) proves(opened chunkstore.Plain, c sending) bool {
	if len(opened) != len(c.plain) {
		return false
	}
	if c.zero {
		return allZero(opened)
	}
	return s.sum(opened) == c.sum
}
