package server

import (
	"context"
	"errors"
	"fmt"
	"math/bits"
	"net/http"
	"sync/atomic"

	"holdfast/chunkstore"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
	"holdfast/datastore/server/known"
	"holdfast/datastore/server/rest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// reading is one reader session: section 3 of the protocol specification.
type reading struct {
	*conversation
	snapshot wire.Reader
	allowed  *known.Chunks // chunks of the indexes that were downloaded
	metadata bool          // nothing else is read
	chunks   atomic.Int64
	bytes    atomic.Int64
}

func newReading(c *conversation, snapshot wire.Reader) *reading {
	return &reading{conversation: c, snapshot: snapshot, allowed: known.New(c.server.accounts.Known, c.payer)}
}

// methods is the table of the session (section 3.2 of the protocol
// specification).
func (r *reading) methods() []method {
	table := handlers{api.ReadFile: r.download, api.ReadChunk: r.chunk}
	if !r.metadata {
		table[api.ReadSpeed] = sendSpeedTest
	}
	return bind(api.ReaderRows(), table)
}

// download sends a file. The chunks of an index may be asked for afterwards.
func (r *reading) download(c *call) (any, error) {
	name := c.Str("file-name")
	if err := r.mayRead(name); err != nil {
		return nil, err
	}
	r.task.Logf("sending %s", name)
	return nil, r.sendFile(c, r.snapshot, file{name, func(ctx context.Context, idx *index.Reader) error { return r.allow(ctx, name, idx) }})
}

// allow makes the chunks of an index known, in the class that the manifest says.
// The manifest is read each time: it may be large, and sessions are many and long.
func (r *reading) allow(ctx context.Context, name string, idx *index.Reader) error {
	m, err := image.OpenManifest(ctx, r.snapshot, image.Trust{})
	if err == nil && r.metadata {
		err = described(m, name, idx)
	}
	if err != nil {
		return err
	}
	class := m.ClassOf(name)
	for e, err := range idx.All(0) {
		if err == nil {
			_, err = r.allowed.Add(chunkstore.Ref{ID: e.ID, Size: e.Size, Class: class})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// chunk sends a chunk as it is stored. The refusal is held back (section 1.5 of
// the protocol specification).
func (r *reading) chunk(c *call) (any, error) {
	id := digest(c.Str("digest"))
	plain, classes := r.allowed.Of(id).In(chunkstore.AllClasses)
	ref := chunkstore.Ref{ID: id, Size: plain, Class: chunkstore.Class(bits.TrailingZeros8(uint8(classes)))}
	if classes == 0 {
		refusal := &rest.StatusError{Code: http.StatusUnauthorized, Delay: r.server.o.Limits.LoginDelay,
			Text: fmt.Sprintf("download chunk %s not allowed", id)}
		return nil, refusal.Meaning(chunkstore.ErrNotExist)
	}
	err := r.lend(c, func() (borrowed, error) {
		raw, err := r.get(c.Context(), ref)
		r.chunks.Add(1)
		r.bytes.Add(int64(len(raw.Blob)))
		return raw, err
	})
	if err != nil && !errors.Is(err, rest.ErrAnswered) {
		r.chunks.Add(-1)
		return nil, rest.BadRequest("reading chunk %s: %v", id, err).Meaning(err)
	}
	return nil, err
}

// get gets a chunk.
func (r *reading) get(ctx context.Context, ref chunkstore.Ref) (borrowed, error) {
	from, ok := r.snapshot.(chunkstore.IntoGetter)
	if !ok {
		raw, err := r.snapshot.Get(ctx, ref)
		return borrowed{Blob: raw}, err
	}
	room, free := r.host.keep.Lend(int(ref.Size) + chunkstore.BlobSizeMax - chunkstore.PlainSizeMax)
	raw, err := from.GetInto(ctx, ref, room)
	return borrowed{Blob: raw, free: free}, err
}

// leave implements session: nobody waits for a reader.
func (r *reading) leave() {}

// end gives back what the session holds, after its last handler.
func (r *reading) end(ctx context.Context) error {
	err := r.snapshot.Close()
	r.allowed.Free()
	r.task.Logf("sent %d chunks, %s", r.chunks.Load(), size(uint64(r.bytes.Load())))
	if ctx.Err() != nil {
		return interrupted(ctx)
	}
	return err
}
