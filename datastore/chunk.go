package datastore

import (
	"context"
	"fmt"
	"runtime"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/datastore/manifest"
)

// Put says what has become of a chunk. Ref is what it is now known as, of the class
// that the bytes have in the archive they were sent for. Added tells whether it was stored anew: whoever is told so of a
// plain chunk learns what others have.
type Put struct {
	Ref   chunkstore.Ref
	Added bool
}

// PutChunk stores a chunk of an archive, that of the index called name, unless it is
// stored already, as a copy of the group's if it is encrypted. In a foreign session the checksum of the blob may be wrong and is put
// right in a copy, and a plain chunk whose content is not of its size or name is
// chunkstore.ErrInvalid, as is an encrypted one that cannot be of its size. It is safe
// for concurrent use, and neither changes nor keeps c.Blob.
func (ss *Session) PutChunk(ctx context.Context, name string, c chunkstore.Chunk) (Put, error) {
	if err := ss.running(); err != nil {
		return Put{}, err
	}
	if err := c.Validate(); err != nil {
		return Put{}, err
	}
	ref := c.Ref()
	ref.Class = manifest.ClassIn(name, ref.Class)
	c.Owner = ref.Key(ss.copies).Owner
	added, err := ss.put(ctx, c)
	if err != nil {
		return Put{}, err
	}
	ss.resume.add(ref)
	return Put{Ref: ref, Added: added}, nil
}

func (ss *Session) put(ctx context.Context, c chunkstore.Chunk) (added bool, err error) {
	if !ss.o.Foreign {
		if _, err := blob.Check(c.Blob); err != nil {
			return false, fmt.Errorf("chunk %s: %w", c.ID.Short(), err)
		}
		return ss.puts.Put(ctx, c)
	}
	raw, encrypted, err := blob.WithChecksum(c.Blob)
	if err == nil {
		c.Blob = raw
		err = ss.proven(ctx, c, encrypted)
	}
	if err != nil {
		return false, fmt.Errorf("chunk %s: %w: %w", c.ID.Short(), chunkstore.ErrInvalid, err)
	}
	return ss.puts.Put(ctx, c)
}

// proven proves of a chunk what can be proven without a key: of a plain one all, of an
// encrypted one that is not compressed its size.
func (ss *Session) proven(ctx context.Context, c chunkstore.Chunk, encrypted bool) error {
	if !encrypted {
		return ss.store.proofs.prove(ctx, c)
	}
	if n, ok := blob.ContentSize(c.Blob); ok && n != int(c.PlainSize) {
		return fmt.Errorf("content of %d bytes, not %d", n, c.PlainSize)
	}
	return nil
}

// prover opens plain chunks and compares them with their names. It has one
// buffer for each processor, so that what it takes does not grow with the
// number of senders.
type prover struct {
	codec   *blob.Codec
	buffers chan []byte
}

func newProver() (*prover, error) {
	workers := runtime.GOMAXPROCS(0)
	codec, err := blob.NewCodec(blob.Options{Workers: workers})
	if err != nil {
		return nil, err
	}
	p := &prover{codec: codec, buffers: make(chan []byte, workers)}
	for range workers {
		p.buffers <- nil
	}
	return p, nil
}

// prove returns nil if c is a plain blob of the content its name and size say.
func (p *prover) prove(ctx context.Context, c chunkstore.Chunk) error {
	var buf []byte
	select {
	case buf = <-p.buffers:
	case <-ctx.Done():
		return ctx.Err()
	}
	defer func() { p.buffers <- buf }()
	if need := blob.SizeMax(int(c.PlainSize)); cap(buf) < need {
		buf = make([]byte, 0, need)
	}
	_, err := p.codec.DecodeChunk(buf, c.ID, c.Blob, int(c.PlainSize))
	return err
}
