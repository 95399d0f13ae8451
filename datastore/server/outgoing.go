package server

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/server/body"
	"holdfast/datastore/server/rest"
)

// What clients fetch and do not read must not stay in memory, whoever they are
// and however many. Within the budget a blob is sent from memory; beyond it, it
// is copied to a file first and sent from there, one of each session at a time.

// sentPiece is how much is written at once, in bytes, keptPiece how much of what
// lies in a file.
const (
	sentPiece = 256 << 10
	keptPiece = 64 << 10
)

// borrowed is a blob that goes out. release must be called whether getting it has
// failed or not.
type borrowed struct {
	chunkstore.Blob
	free func() // nil if its memory belongs to nobody else
}

func (b borrowed) release() {
	if b.free != nil {
		b.free()
	}
}

// lend gets a blob and sends it, within the memory that there is for that.
func (v *conversation) lend(c *call, get func() (borrowed, error)) error {
	const most = chunkstore.BlobSizeMax
	ctx, reads := c.Context(), v.server.accounts.Outgoing
	hold, err := body.TakeSoon(ctx, reads, v.payer, most)
	if errors.Is(err, body.ErrCrowded) {
		if err := v.lendKept(c, get); !errors.Is(err, body.ErrCrowded) {
			return err
		}
		// There is no room for files either.
		hold, err = reads.Take(ctx, v.payer, most)
	}
	if err != nil {
		return err
	}
	defer hold.Free()
	lent, err := get()
	defer lent.release()
	if err != nil {
		return err
	}
	raw := lent.Blob
	hold.Shrink(int64(cap(raw)))
	c.Header().Set("Content-Type", "application/octet-stream")
	for len(raw) > 0 {
		piece := raw[:min(sentPiece, len(raw))]
		if !v.send(c, piece) {
			break
		}
		raw = raw[len(piece):]
	}
	return rest.ErrAnswered
}

// lendKept is lend by way of a file.
func (v *conversation) lendKept(c *call, get func() (borrowed, error)) error {
	if err := v.spare.Acquire(c.Context(), chunkstore.BlobSizeMax); err != nil {
		return fmt.Errorf("wait for memory: %w", err)
	}
	defer v.spare.Release(chunkstore.BlobSizeMax)
	p, err := v.keep(c.Context(), get)
	if err != nil {
		return err
	}
	defer p.Close()
	c.Header().Set("Content-Type", "application/octet-stream")
	buf := make([]byte, keptPiece)
	kept := p.Reader()
	for at := int64(0); at < kept.Size(); {
		n, err := kept.ReadAt(buf, at)
		if n == 0 {
			c.log.Warn("transfer broken off", "error", err)
			panic(http.ErrAbortHandler) // so that the client does not take it for the end
		}
		if !v.send(c, buf[:n]) {
			break
		}
		at += int64(n)
	}
	return rest.ErrAnswered
}

// keep copies a blob to a file, or returns body.ErrCrowded if that is not possible.
// The memory that it needs for that is held by nobody who waits for a client.
func (v *conversation) keep(ctx context.Context, get func() (borrowed, error)) (*body.File, error) {
	const most = chunkstore.BlobSizeMax
	hold, err := v.server.accounts.Arrived.Take(ctx, v.payer, most)
	if err != nil {
		return nil, err
	}
	defer hold.Free()
	raw, err := get()
	defer raw.release()
	if err != nil {
		return nil, err
	}
	p, err := v.host.keep.SetAside(v.payer, int64(len(raw.Blob)))
	if err != nil {
		return nil, errors.Join(body.ErrCrowded, err)
	}
	if err := p.Put(raw.Blob); err != nil {
		return nil, errors.Join(body.ErrCrowded, err, p.Close())
	}
	return p, nil
}

// send writes to a client that takes it in time, and tells whether it did.
func (v *conversation) send(c *call, piece []byte) bool {
	control := http.NewResponseController(c.ResponseWriter)
	_ = control.SetWriteDeadline(time.Now().Add(2 * v.patience.Limit))
	n, err := c.Write(piece)
	v.server.metrics.Moved("out", n)
	return err == nil
}
