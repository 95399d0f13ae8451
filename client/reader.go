package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// reader is one open snapshot (section 3 of the protocol specification). It
// implements wire.Reader. Chunk requests go round robin over its lanes.
type reader struct {
	client   *Client
	snap     wire.Snapshot
	lanes    []*lane
	turn     atomic.Uint32
	manifest chunkstore.Blob
	bounds

	mu     sync.Mutex
	names  []string // indexes whose chunks are asked for
	closed bool
}

// Open implements wire.Source. The Reader outlives the loss of connections: it
// dials again and asks again.
func (c *Client) Open(ctx context.Context, s wire.Snapshot) (wire.Reader, error) {
	r, err := c.open(ctx, s)
	if err != nil {
		return nil, err
	}
	return r, nil
}

func (c *Client) open(ctx context.Context, s wire.Snapshot) (*reader, error) {
	if err := checkSnapshot(s); err != nil {
		return nil, err
	}
	r := &reader{client: c, snap: s}
	r.lanes = append(r.lanes, newLane(r))
	var err error
	if r.manifest, err = r.blob(ctx, wire.ManifestName); err != nil {
		r.Close()
		return nil, err
	}
	for len(r.lanes) < c.connections() {
		r.lanes = append(r.lanes, newLane(r))
	}
	return r, nil
}

// Snapshot implements wire.Reader.
func (r *reader) Snapshot() wire.Snapshot { return r.snap }

func downloadQuery(name string) query {
	return query{op: api.ReadFile, params: url.Values{"file-name": {name}}}
}

// Blob implements wire.Reader.
func (r *reader) Blob(ctx context.Context, name string) (chunkstore.Blob, error) {
	if err := checkBlob(name); err != nil {
		return nil, err
	}
	if name == wire.ManifestName {
		return bytes.Clone(r.manifest), nil
	}
	return r.blob(ctx, name)
}

func (r *reader) blob(ctx context.Context, name string) (b chunkstore.Blob, err error) {
	err = r.try(ctx, func(c *conn) error {
		b, err = c.bytes(ctx, downloadQuery(name), r.mostBlob(name))
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %s: %w", r.snap, name, err)
	}
	return b, nil
}

// Index implements wire.Reader.
func (r *reader) Index(ctx context.Context, name string) (idx *index.Reader, err error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	err = r.try(ctx, func(c *conn) error {
		if idx, err = c.spool(ctx, downloadQuery(name), kind, r.mostIndex(name)); err == nil {
			c.seen.Store(name, true)
		}
		return err
	})
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %s: %w", r.snap, name, err)
	}
	r.want(name)
	return idx, nil
}

// want says that the chunks of an index will be asked for: the server hands
// out only what an index that was downloaded over the same connection names.
func (r *reader) want(name string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Contains(r.names, name) {
		r.names = append(r.names, name)
	}
}

func (r *reader) wanted() []string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slices.Clone(r.names)
}

// Get implements chunkstore.RefGetter. The server knows class and size from the index.
func (r *reader) Get(ctx context.Context, ref chunkstore.Ref) (chunkstore.Blob, error) {
	return r.GetInto(ctx, ref, nil)
}

// Window returns how many chunks, and how many bytes of them, Get and GetInto
// should be called for at once.
func (r *reader) Window() (chunks int, bytes int64) { return r.client.window() }

// GetInto is Get that uses the capacity of room if it suffices. Until it returns
// room must be left alone.
func (r *reader) GetInto(ctx context.Context, ref chunkstore.Ref, room []byte) (raw chunkstore.Blob, err error) {
	q := query{op: api.ReadChunk, params: url.Values{"digest": {ref.ID.String()}}}
	err = r.try(ctx, func(c *conn) error {
		raw, err = c.into(ctx, room, q, chunkstore.BlobSizeMax)
		return err
	})
	var status *StatusError
	if errors.As(err, &status) && !status.named() && status.Code == http.StatusUnauthorized {
		// No index of the snapshot names it. Who asks was settled long ago.
		err = fmt.Errorf("%w: %s", chunkstore.ErrNotExist, status)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: chunk %s: %w", r.snap, ref.ID.Short(), err)
	}
	return raw, nil
}

// try runs a request on one of the lanes, and again on a new connection when
// that one is lost.
func (r *reader) try(ctx context.Context, do func(*conn) error) error {
	began := time.Now()
	for n := 0; ; n++ {
		l := r.lanes[r.turn.Add(1)%uint32(len(r.lanes))]
		c, err := l.ready(ctx)
		if err == nil {
			if err = do(c); lost(ctx, err) {
				c.drop()
			}
		}
		if !lost(ctx, err) && !busyNow(err) || n+1 >= r.client.retry.patient || time.Since(began) > r.client.retry.longest || r.isClosed() {
			return err
		}
		r.client.log("snapshot %s: %v; trying again", r.snap, err)
		if wait := r.client.retry.wait(ctx, n); wait != nil {
			return errors.Join(err, wait)
		}
	}
}

func (r *reader) isClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// Close implements wire.Reader.
func (r *reader) Close() error {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	var wg sync.WaitGroup
	for _, l := range r.lanes {
		wg.Go(l.close)
	}
	wg.Wait()
	return nil
}
