package server

import (
	"context"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
)

func (b *backup) dynamicChunk(c *call) (any, error) { return b.chunk(c, index.Dynamic) }

func (b *backup) fixedChunk(c *call) (any, error) { return b.chunk(c, index.Fixed) }

// chunk takes an upload: section 2.4 of the protocol specification. The chunk
// can be referred to once the answer is out.
func (b *backup) chunk(c *call, kind index.Kind) (any, error) {
	w, err := b.writer(kind, c.Int("wid", 0))
	if err != nil {
		return nil, err
	}
	id, size := digest(c.Str("digest")), uint32(c.Int("size", 0))
	if kind == index.Fixed && size > wire.FixedChunkSize {
		return nil, rest.BadRequest("fixed writer '%s' - got large chunk (%d > %d)", w.name, size, wire.FixedChunkSize)
	}
	if stored := c.Int("encoded-size", 0); stored > blobMost(size) {
		return nil, rest.BadRequest("a chunk of %d bytes cannot take %d", size, stored)
	}
	body, err := b.payload(c, c.Int("encoded-size", 0))
	if err != nil {
		return nil, err
	}
	defer body.Free()
	count := received(size, len(body.Data))
	if err := b.quota.Receive(count); err != nil {
		return nil, err
	}
	put, err := b.put(c.Context(), w.name, chunkstore.Chunk{ID: id, PlainSize: size, Blob: body.Data})
	if err != nil {
		_ = b.quota.Receive(-count) // nothing came of it
		return nil, err
	}
	if err := w.admit(size); err != nil {
		return nil, err
	}
	fresh, err := b.known.Add(put.Ref)
	if err != nil {
		return nil, err
	}
	// What the store has besides is nobody's business: a chunk is there already if
	// this session has known it.
	w.account(upload{plain: size, stored: uint32(len(body.Data)), again: !fresh})
	return id.String(), nil
}

// blobMost is the most that a chunk takes in its envelope, in bytes: what compression
// makes larger is sent as it is, or a little larger by some clients. One that claims to
// be smaller than it is would pass every quota.
func blobMost(plain uint32) int64 {
	const envelope, part = 256, 64
	return int64(plain) + int64(plain)/part + envelope
}

// received is what an upload counts, in bytes: what it is or what it takes, and at least
// what the smallest takes.
func received(plain uint32, stored int) int64 {
	return max(int64(plain), int64(stored), datastore.EntryBytes)
}

// put stores a chunk of an archive. To be checked a plain one is unpacked, so that only a few
// are at a time. A few bytes that unpack to megabytes are sent faster than they are checked:
// who has many of them waiting keeps only himself waiting.
func (b *backup) put(ctx context.Context, name string, c chunkstore.Chunk) (datastore.Put, error) {
	place, err := b.server.accounts.Unpacking.Take(ctx, b.payer, 1)
	if err != nil {
		return datastore.Put{}, err
	}
	defer place.Free()
	return b.session.PutChunk(ctx, name, c)
}

// admit checks a chunk against those that were sent for the writer before. What it
// refuses does not become known.
func (w *writer) admit(plain uint32) error {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return notRegistered(w.kind, w.id)
	}
	if w.kind == index.Fixed && plain < wire.FixedChunkSize {
		if w.short {
			return rest.BadRequest("fixed writer '%s' - detected multiple end chunks (chunk size %d)", w.name, plain)
		}
		w.short = true
	}
	return nil
}

// account counts an upload for the writer that it was sent for.
func (w *writer) account(u upload) {
	w.mu.Lock()
	defer w.mu.Unlock()
	count(&w.stats, u)
}
