package datastore

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"runtime"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/datastore/wire"
)

// Put says what has become of a chunk: Added tells whether it is stored anew,
// StoredSize how many bytes the blob has that is stored under its name now.
type Put struct {
	Added      bool
	StoredSize uint32
}

// PutChunk stores a chunk unless it is stored already. In a foreign session the
// checksum of the blob may be wrong and is put right in a copy, a plain chunk
// whose content is not of its size or name is chunkstore.ErrInvalid, and one
// whose content is right replaces what cannot be checked. It is safe for
// concurrent use, and neither changes nor keeps c.Sealed.
func (ss *Session) PutChunk(ctx context.Context, c chunkstore.Chunk) (Put, error) {
	if err := ss.running(); err != nil {
		return Put{}, err
	}
	if err := c.Validate(); err != nil {
		return Put{}, err
	}
	added, err := ss.put(ctx, c)
	if err != nil {
		return Put{}, err
	}
	ss.resume.add(wire.ChunkSize{ID: c.ID, Size: c.PlainSize})
	if added {
		return Put{Added: true, StoredSize: uint32(len(c.Sealed))}, nil
	}
	info, err := ss.chunks.Stat(ctx, c.ID)
	if err != nil {
		return Put{}, err
	}
	return Put{StoredSize: info.StoredSize}, nil
}

func (ss *Session) put(ctx context.Context, c chunkstore.Chunk) (added bool, err error) {
	if !ss.o.Foreign {
		if _, err := blob.Check(c.Sealed); err != nil {
			return false, fmt.Errorf("chunk %s: %w", c.ID.Short(), err)
		}
		return ss.puts.Put(ctx, c)
	}
	sealed, encrypted, err := withChecksum(c.Sealed)
	if err == nil && !encrypted {
		c.Sealed = sealed
		err = ss.store.proofs.prove(ctx, c)
	}
	if err != nil {
		return false, fmt.Errorf("chunk %s: %w: %w", c.ID.Short(), chunkstore.ErrInvalid, err)
	}
	c.Sealed = sealed
	if encrypted {
		return ss.puts.Put(ctx, c)
	}
	return ss.putProven(ctx, c)
}

// putProven stores a plain chunk whose content was compared with its name. One
// that is there already gives way unless it is a plain blob too: then somebody
// has compared it, or was trusted to.
func (ss *Session) putProven(ctx context.Context, c chunkstore.Chunk) (added bool, err error) {
	added, err = ss.puts.Put(ctx, c)
	if added || err != nil {
		return added, err
	}
	good, err := ss.holdsPlain(ctx, c)
	if good || err != nil {
		return false, err
	}
	return true, ss.puts.Replace(ctx, c)
}

// holdsPlain reports whether a sound plain blob of the size of c is stored
// under its name.
func (ss *Session) holdsPlain(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	info, err := ss.chunks.Stat(ctx, c.ID)
	var stored chunkstore.Sealed
	if err == nil {
		stored, err = ss.chunks.Get(ctx, c.ID)
	}
	if errors.Is(err, chunkstore.ErrCorrupt) || errors.Is(err, chunkstore.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	if info.PlainSize != c.PlainSize {
		return false, nil
	}
	encrypted, err := blob.Check(stored)
	return err == nil && !encrypted, nil
}

// crcOff is where the checksum of a blob lies, in bytes (section 1.1 of the
// formats specification).
const crcOff = 8

// withChecksum returns s if its checksum is right, and otherwise a copy with
// the right one. It does not look at the magic itself: the checksum begins
// behind one of two headers, and package blob says which one was meant.
func withChecksum(s chunkstore.Sealed) (sealed chunkstore.Sealed, encrypted bool, err error) {
	encrypted, err = blob.Check(s)
	if err == nil {
		return s, encrypted, nil
	}
	const plainHead, encryptedHead = chunkstore.SealedSizeMin, chunkstore.SealedSizeMax - chunkstore.PlainSizeMax
	sealed = bytes.Clone(s)
	for _, head := range []int{plainHead, encryptedHead} {
		if len(sealed) < head {
			break
		}
		binary.LittleEndian.PutUint32(sealed[crcOff:], crc32.ChecksumIEEE(sealed[head:]))
		if encrypted, err := blob.Check(sealed); err == nil {
			return sealed, encrypted, nil
		}
	}
	return nil, false, err
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
	_, err := p.codec.OpenChunk(buf, c.ID, c.Sealed, int(c.PlainSize))
	return err
}
