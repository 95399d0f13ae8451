package client

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"sync"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// session is a backup session (section 2 of the protocol specification). It
// implements wire.Session.
type session struct {
	client *Client
	conn   *conn
	snap   wire.Snapshot
	known  *appendable
	ctx    context.Context // of appends in the background; ends with Close
	cancel context.CancelFunc

	mu     sync.Mutex
	err    error // what made the session fail
	closed bool
	prev   *previous          // the last one opened
	sent   map[string]*uint64 // by file, its size if it is an index
}

// resumable is a session with a server that can continue an interrupted one. It
// implements wire.Resumer as well.
type resumable struct{ *session }

var (
	_ wire.Session = (*session)(nil)
	_ wire.Resumer = resumable{}
)

// Begin implements wire.Target.
func (c *Client) Begin(ctx context.Context, s wire.Snapshot) (wire.Session, error) {
	if err := checkSnapshot(s); err != nil {
		return nil, err
	}
	conn, err := c.enter(ctx, upgrading{op: api.BackupUpgrade, protocol: wire.BackupProtocol, query: c.snapshotQuery(s)})
	if err != nil {
		return nil, fmt.Errorf("begin snapshot %s: %w", s, err)
	}
	ss := &session{client: c, conn: conn, snap: s, known: newAppendable(), sent: map[string]*uint64{}}
	ss.ctx, ss.cancel = context.WithCancel(context.Background())
	if conn.holdfast {
		return resumable{ss}, nil
	}
	return ss, nil
}

// lockPace is how often a group that is busy is asked for.
const lockPace = 5 * time.Second

// enter opens a backup session. It waits for a group that is busy as long as
// the Client was told to.
func (c *Client) enter(ctx context.Context, u upgrading) (*conn, error) {
	began := time.Now()
	for told := false; ; told = true {
		conn, err := c.upgrade(ctx, u)
		left := c.opts.LockWait - time.Since(began)
		if !errors.Is(err, wire.ErrBusy) || left <= 0 {
			return conn, err
		}
		if !told {
			c.log("%v; waiting up to %v for it to end", err, left.Round(time.Second))
		}
		if err := c.pause(ctx, min(left, lockPace)); err != nil {
			return nil, err
		}
	}
}

// What may be under way to the server at once in a session: enough to keep a
// line of 1 Gbit/s with a round trip of 150 ms busy, and no more streams than
// servers allow (section 2.2 of the protocol specification).
const (
	windowChunks = 96
	windowBytes  = 64 << 20
	// Nearer than windowNear, measured by a TLS handshake, less does: memory
	// that stays in the caches of the processor is faster.
	windowNear       = 10 * time.Millisecond
	windowNearChunks = 12
	windowNearBytes  = 10 << 20
)

// window is what may be under way in a session.
func (c *Client) window() (chunks int, bytes int64) {
	if time.Duration(c.round.Load()) < windowNear {
		return windowNearChunks, windowNearBytes
	}
	return windowChunks, windowBytes
}

// Window returns how many chunks, and how many bytes of them, PutChunk should
// be called with at once.
func (ss *session) Window() (chunks int, bytes int64) { return ss.client.window() }

// checkSnapshot checks all parts of a snapshot's name.
func checkSnapshot(s wire.Snapshot) error {
	if err := s.Validate(); err != nil {
		return err
	}
	_, err := wire.ParseNamespace(string(s.Group.NS))
	return err
}

// fail ends the session for good, unless it has failed already, and returns
// err. A request that the caller has given up says nothing about the session.
func (ss *session) fail(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return ctx.Err()
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.err == nil {
		ss.err = err
	}
	return err
}

// failure returns why the session can no longer be used, or nil.
func (ss *session) failure() error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	switch {
	case ss.err != nil:
		return fmt.Errorf("the session has failed: %w", ss.err)
	case ss.closed:
		return fmt.Errorf("the session has ended: %w", chunkstore.ErrInvalid)
	}
	return nil
}

// Previous implements wire.Session.
func (ss *session) Previous(ctx context.Context) (wire.Reader, error) {
	if err := ss.failure(); err != nil {
		return nil, err
	}
	var at *int64
	err := ss.conn.data(ctx, query{op: api.PreviousTime}, &at)
	if withoutPrevious(err) || err == nil && at == nil {
		return nil, fmt.Errorf("backup group %s has no previous snapshot: %w", ss.snap.Group, chunkstore.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the previous snapshot: %w", ss.fail(ctx, err))
	}
	p := &previous{session: ss, snap: wire.Snapshot{Group: ss.snap.Group, Time: *at}}
	if err := p.snap.Validate(); err != nil {
		return nil, fmt.Errorf("previous snapshot: %w: %w", errAnswer, err)
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.prev = p
	return p, nil
}

// withoutPrevious tells the answers after which a session goes on as if the group had no
// previous snapshot: that there is none, that the server has no time for it, and all of a
// server that does not name what has failed (section 1.9 of the protocol specification).
func withoutPrevious(err error) bool {
	var status *StatusError
	return errors.As(err, &status) && (!status.named() || status.Temporary() || errors.Is(status, chunkstore.ErrNotExist))
}

// Create implements wire.Session.
func (ss *session) Create(ctx context.Context, name string, size int64) (wire.IndexWriter, error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	w := newIndexWriter(ss, name, kind)
	params := url.Values{"archive-name": {name}}
	if w.fixed() {
		if size < 1 {
			return nil, fmt.Errorf("create %s: a fixed index needs the size of its image: %w", name, chunkstore.ErrInvalid)
		}
		params.Set("size", strconv.FormatInt(size, 10))
	}
	if err := ss.failure(); err != nil {
		return nil, err
	}
	if err := ss.conn.data(ctx, query{op: w.ofKind(api.OpenFixed, api.OpenDynamic), params: params}, &w.wid); err != nil {
		return nil, fmt.Errorf("create %s: %w", name, ss.fail(ctx, err))
	}
	if w.wid < 1 {
		return nil, fmt.Errorf("create %s: %w: writer %d", name, errAnswer, w.wid)
	}
	return w, nil
}

// Blob implements wire.Session.
func (ss *session) Blob(ctx context.Context, name string, raw chunkstore.Blob) error {
	if err := checkBlob(name); err != nil {
		return err
	}
	if len(raw) < chunkstore.BlobSizeMin || len(raw) > chunkstore.BlobSizeMax {
		return fmt.Errorf("%s: size %d is not within %d..%d: %w", name, len(raw), chunkstore.BlobSizeMin, chunkstore.BlobSizeMax, chunkstore.ErrInvalid)
	}
	if err := ss.failure(); err != nil {
		return err
	}
	q := query{
		op: api.UploadBlob, body: raw, kind: bytesType,
		params: url.Values{"file-name": {name}, "encoded-size": {strconv.Itoa(len(raw))}},
	}
	if err := ss.conn.data(ctx, q, nil); err != nil {
		return fmt.Errorf("send %s: %w", name, err)
	}
	ss.hasSent(name, nil)
	return nil
}

// hasSent remembers a file of the snapshot; size is that of what an index stands
// for.
func (ss *session) hasSent(name string, size *uint64) {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.sent[name] = size
}

// Close implements wire.Session.
func (ss *session) Close() error {
	ss.mu.Lock()
	closed := ss.closed
	ss.closed = true
	ss.mu.Unlock()
	if closed {
		return nil
	}
	ss.cancel()
	ss.conn.close()
	return nil
}

// resumeMax caps the list of chunks of an interrupted session, in bytes: some
// two million chunks. No server keeps a longer one.
const resumeMax = 64 << 20

// Resume implements wire.Resumer.
func (ss resumable) Resume(ctx context.Context) ([]wire.ChunkSize, error) {
	if err := ss.failure(); err != nil {
		return nil, err
	}
	w := &chunkList{}
	_, err := ss.conn.copy(ctx, query{op: api.Resume}, w, resumeMax)
	if err == nil && len(w.rest) > 0 {
		err = fmt.Errorf("%w: %d bytes too many", errAnswer, len(w.rest))
	}
	if err != nil {
		return nil, fmt.Errorf("ask for the chunks of an interrupted session: %w", err)
	}
	for _, c := range w.list {
		ss.known.add(c.ID, c.Size, false)
	}
	return w.list, nil
}

// chunkList decodes a list as it comes in.
type chunkList struct {
	list []wire.ChunkSize
	rest []byte
}

var _ io.Writer = (*chunkList)(nil)

func (l *chunkList) Write(p []byte) (int, error) {
	l.rest = append(l.rest, p...)
	whole := len(l.rest) / wire.ChunkSizeLen * wire.ChunkSizeLen
	part, err := wire.ParseChunkSizes(l.rest[:whole])
	if err != nil {
		return 0, fmt.Errorf("%w: %w", errAnswer, err)
	}
	l.list = append(l.list, part...)
	l.rest = append(l.rest[:0], l.rest[whole:]...)
	return len(p), nil
}

// appendable are the chunks that may be appended, with their sizes: those sent in
// the session, those of an interrupted one, and those of the previous
// snapshot's indexes that were opened. It takes some 40 bytes a
// chunk; the server has the last word.
type appendable struct {
	hasher chunkstore.Hasher
	mu     sync.Mutex
	sizes  map[chunkstore.StandIn]uint32
}

func newAppendable() *appendable {
	return &appendable{hasher: chunkstore.NewHasher(), sizes: make(map[chunkstore.StandIn]uint32)}
}

// sentFlag marks chunks sent in this session. Sizes stay below it.
const sentFlag = 1 << 31

// add enters a chunk and reports whether it was not marked as sent before.
func (a *appendable) add(id chunkstore.ID, size uint32, sent bool) (added bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	h := a.hasher.OfID(id)
	old := a.sizes[h]
	if sent {
		size |= sentFlag
	}
	if old&sentFlag == 0 {
		a.sizes[h] = size
	}
	return old&sentFlag == 0
}

// size returns the size of a chunk, 0 if it is not known, and whether it was
// sent in this session.
func (a *appendable) size(id chunkstore.ID) (size uint32, sent bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.sizes[a.hasher.OfID(id)]
	return s &^ sentFlag, s&sentFlag != 0
}
