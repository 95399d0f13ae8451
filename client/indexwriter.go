package client

import (
	"context"
	"encoding/hex"
	"fmt"
	"net/url"
	"strconv"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire/api"
)

// How entries are appended. An entry has some 90 bytes in JSON.
const (
	// batchMin is how many entries are worth a request before the end.
	batchMin = 64
	// batchMax keeps the body below the 64 KiB of older servers (section 1.3
	// of the protocol specification).
	batchMax = 512
	// batchMaxHoldfast keeps it below wire.ParamBodyMax.
	batchMaxHoldfast = 4096
	// queueMax is how many entries wait before Append does.
	queueMax = 16384
)

// indexWriter is one index of a session. It implements wire.IndexWriter.
//
// Entries go out in the background, one request after the other, because the
// server works on requests side by side and wants the entries in order. While
// one is under way more entries gather, so that requests grow with the latency.
type indexWriter struct {
	session *session
	name    string
	kind    index.Kind
	wid     int
	batch   int // most entries of a request

	mu     sync.Mutex
	sum    *index.Summer
	end    uint64 // of what was appended
	queue  []index.Entry
	idle   chan struct{} // closed when nobody is sending; nil: nobody has begun
	busy   bool
	closed bool
}

func newIndexWriter(ss *session, name string, kind index.Kind) *indexWriter {
	w := &indexWriter{session: ss, name: name, kind: kind, batch: batchMax, sum: index.NewSummer(kind)}
	if ss.conn.holdfast {
		w.batch = batchMaxHoldfast
	}
	return w
}

func (w *indexWriter) fixed() bool { return w.kind == index.Fixed }

// ofKind is the method for indexes of the writer's kind.
func (w *indexWriter) ofKind(fixed, dynamic api.Op) api.Op {
	if w.fixed() {
		return fixed
	}
	return dynamic
}

func (w *indexWriter) widParam() string { return strconv.Itoa(w.wid) }

// PutChunk implements wire.IndexWriter. added tells that the chunk was sent:
// the protocol does not tell whether the store had it.
func (w *indexWriter) PutChunk(ctx context.Context, c chunkstore.Chunk) (added bool, err error) {
	if err := c.Validate(); err != nil {
		return false, err
	}
	ss := w.session
	if err := ss.failure(); err != nil {
		return false, err
	}
	if size, sent := ss.known.size(c.ID); sent {
		if size != c.PlainSize {
			return false, fmt.Errorf("chunk %s of %d bytes was sent with %d: %w", c.ID.Short(), c.PlainSize, size, chunkstore.ErrInvalid)
		}
		return false, nil
	}
	q := query{
		op: w.ofKind(api.FixedChunk, api.DynamicChunk), body: c.Blob, kind: bytesType,
		params: url.Values{
			"wid": {w.widParam()}, "digest": {c.ID.String()},
			"size": {strconv.Itoa(int(c.PlainSize))}, "encoded-size": {strconv.Itoa(len(c.Blob))},
		},
	}
	var digest string
	err = ss.conn.data(ctx, q, &digest)
	if err == nil && digest != c.ID.String() {
		err = fmt.Errorf("%w: it names another chunk", errAnswer)
	}
	if err != nil {
		return false, fmt.Errorf("send chunk %s: %w", c.ID.Short(), ss.fail(ctx, err))
	}
	return ss.known.add(c.ID, c.PlainSize, true), nil
}

// Append implements wire.IndexWriter. It returns before the entries have been
// sent; an error of that is the next call's.
func (w *indexWriter) Append(ctx context.Context, entries []index.Entry) error {
	if err := w.session.failure(); err != nil {
		return err
	}
	for _, e := range entries {
		if err := w.check(ctx, e); err != nil {
			return fmt.Errorf("append to %s at %d: %w", w.name, e.Off, err)
		}
	}
	wait, err := w.enqueue(entries)
	if err != nil || wait == nil {
		return err
	}
	select {
	case <-wait:
		return w.session.failure()
	case <-ctx.Done():
		return ctx.Err()
	}
}

// check refuses a chunk that the server does not know, before it does.
func (w *indexWriter) check(ctx context.Context, e index.Entry) error {
	size, _ := w.session.known.size(e.ID)
	if size == 0 {
		if err := w.session.learn(ctx, w.name); err != nil {
			return err
		}
		size, _ = w.session.known.size(e.ID)
	}
	switch {
	case size == 0:
		return fmt.Errorf("chunk %s was not sent: %w", e.ID.Short(), chunkstore.ErrNotExist)
	case size != e.Size:
		return fmt.Errorf("chunk %s has %d bytes, not %d: %w", e.ID.Short(), size, e.Size, chunkstore.ErrInvalid)
	}
	return nil
}

// enqueue takes the entries over and sees to it that they are sent. If there
// are too many waiting it returns what to wait for.
func (w *indexWriter) enqueue(entries []index.Entry) (<-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.closed {
		return nil, fmt.Errorf("append to %s: it is closed: %w", w.name, chunkstore.ErrInvalid)
	}
	end := w.end
	for _, e := range entries {
		if e.Off != end {
			return nil, fmt.Errorf("append to %s at %d: it ends at %d: %w", w.name, e.Off, end, chunkstore.ErrInvalid)
		}
		end += uint64(e.Size)
	}
	for _, e := range entries {
		w.sum.Add(e)
	}
	w.end = end
	w.queue = append(w.queue, entries...)
	if !w.busy && len(w.queue) >= batchMin {
		w.busy, w.idle = true, make(chan struct{})
		go w.drain(w.idle)
	}
	if len(w.queue) > queueMax {
		return w.idle, nil
	}
	return nil, nil
}

// drain sends until too little is left.
func (w *indexWriter) drain(idle chan struct{}) {
	defer close(idle)
	for {
		batch := w.next(batchMin)
		if batch == nil {
			return
		}
		if err := w.send(w.session.ctx, batch); err != nil {
			w.session.fail(context.Background(), err)
		}
	}
}

// next takes the next entries to send out of the queue. If there are fewer
// than least, or the session has failed, it returns nil and nobody is sending
// any longer.
func (w *indexWriter) next(least int) []index.Entry {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.queue) < max(least, 1) || w.session.failure() != nil {
		w.busy = false
		return nil
	}
	n := min(len(w.queue), w.batch)
	batch := append([]index.Entry(nil), w.queue[:n]...)
	w.queue = append(w.queue[:0], w.queue[n:]...)
	return batch
}

// send is one append (section 2.6 of the protocol specification).
func (w *indexWriter) send(ctx context.Context, batch []index.Entry) error {
	body := struct {
		Wid     int      `json:"wid"`
		Digests []string `json:"digest-list"`
		Offsets []uint64 `json:"offset-list"`
	}{Wid: w.wid}
	for _, e := range batch {
		body.Digests = append(body.Digests, e.ID.String())
		body.Offsets = append(body.Offsets, e.Off)
	}
	b, err := encode(body)
	if err != nil {
		return err
	}
	err = w.session.conn.data(ctx, query{op: w.ofKind(api.AppendFixed, api.AppendDynamic), body: b, kind: jsonType}, nil)
	if err != nil {
		return fmt.Errorf("append %d entries to %s: %w", len(batch), w.name, err)
	}
	return nil
}

// Close implements wire.IndexWriter.
func (w *indexWriter) Close(ctx context.Context, want index.Summary) error {
	if err := w.flush(ctx); err != nil {
		return err
	}
	w.mu.Lock()
	got := w.sum.Summary()
	w.mu.Unlock()
	params := url.Values{
		"wid": {w.widParam()}, "chunk-count": {strconv.FormatUint(want.Count, 10)},
		"size": {strconv.FormatUint(want.Size, 10)}, "csum": {hex.EncodeToString(want.Csum[:])},
	}
	err := w.session.conn.data(ctx, query{op: w.ofKind(api.CloseFixed, api.CloseDynamic), params: params}, nil)
	if got != want {
		// The server was asked all the same, so that it drops the archive.
		err = fmt.Errorf("%d entries and %d bytes were appended, %d and %d announced, or the checksums differ: %w",
			got.Count, got.Size, want.Count, want.Size, chunkstore.ErrInvalid)
	}
	if err != nil {
		return fmt.Errorf("close %s: %w", w.name, w.session.fail(ctx, err))
	}
	w.session.hasSent(w.name, &got.Size)
	return nil
}

// flush sends what is left and closes the writer to further entries.
func (w *indexWriter) flush(ctx context.Context) error {
	w.mu.Lock()
	closed, idle := w.closed, w.idle
	w.closed = true
	w.mu.Unlock()
	if closed {
		return fmt.Errorf("close %s: it is closed: %w", w.name, chunkstore.ErrInvalid)
	}
	if idle != nil {
		select {
		case <-idle:
		case <-ctx.Done():
			return w.session.fail(context.Background(), ctx.Err())
		}
	}
	for batch := w.next(1); batch != nil; batch = w.next(1) {
		if err := w.send(ctx, batch); err != nil {
			return w.session.fail(context.Background(), err)
		}
	}
	return w.session.failure()
}
