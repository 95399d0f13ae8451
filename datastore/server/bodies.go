package server

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/semaphore"

	"holdfast/chunkstore"
)

// Bounds of the memory that the bodies of all sessions take, in bytes, and of
// the time that a client may hold it without sending.
const (
	// bodyBudget is for bodies that are coming in, bodyShare the part of it
	// that one session may have. wholeBudget is for those that have come by
	// way of a file, listBudget for lists of entries.
	bodyBudget  = 96 << 20
	bodyShare   = 48 << 20
	wholeBudget = 48 << 20
	listBudget  = 48 << 20
	listShare   = 12 << 20
	// readBudget is for what is sent, readShare the part of it that one
	// session may have.
	readBudget = 96 << 20
	readShare  = 64 << 20
)

// bodyClasses are the sizes of the buffers that bodies are read into, in bytes.
// The last holds the largest chunk.
var bodyClasses = [...]int{64 << 10, 512 << 10, 1 << 20, 2 << 20, 4<<20 + 4<<10, 8 << 20, chunkstore.SealedSizeMax}

// buffers are used again, those of each class for themselves. Who takes one has
// been given memory for it.
type buffers [len(bodyClasses)]sync.Pool

// take returns a buffer of a class with chunkstore.RoomMore bytes more.
func (b *buffers) take(class int) *[]byte {
	store, ok := b[class].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, bodyClasses[class]+chunkstore.RoomMore)
		store = &fresh
	}
	return store
}

// give takes a buffer of a class back.
func (b *buffers) give(class int, store *[]byte) { b[class].Put(store) }

// bodies hands out buffers, never more at a time than its budget holds.
type bodies struct {
	budget *semaphore.Weighted
	pools  buffers
}

func newBodies(budget int64) *bodies { return &bodies{budget: semaphore.NewWeighted(budget)} }

// loan is a borrowed buffer.
type loan struct {
	data  []byte
	from  *bodies
	class int
	share *semaphore.Weighted // nil for none
	store *[]byte
}

// classOf returns the smallest class that holds size bytes, at most
// chunkstore.SealedSizeMax.
func classOf(size int) (class int) {
	for class < len(bodyClasses)-1 && bodyClasses[class] < size {
		class++
	}
	return class
}

// borrow waits for memory for a body of size bytes, at most
// chunkstore.SealedSizeMax, within the share of a session if it has one.
func (b *bodies) borrow(ctx context.Context, share *semaphore.Weighted, size int) (*loan, error) {
	return b.lend(&loan{share: share}, size, func(s *semaphore.Weighted, n int64) error { return s.Acquire(ctx, n) })
}

// borrowSoon is a borrow that gives up with errCrowded.
func (b *bodies) borrowSoon(ctx context.Context, share *semaphore.Weighted, size int) (*loan, error) {
	return b.lend(&loan{share: share}, size, func(s *semaphore.Weighted, n int64) error { return acquireSoon(ctx, s, n) })
}

func (b *bodies) lend(l *loan, size int, acquire func(*semaphore.Weighted, int64) error) (*loan, error) {
	if size > chunkstore.SealedSizeMax {
		return nil, fmt.Errorf("body of %d bytes: %w", size, chunkstore.ErrInvalid)
	}
	l.from, l.class = b, classOf(size)
	held := int64(bodyClasses[l.class])
	if l.share != nil {
		if err := acquire(l.share, held); err != nil {
			return nil, fmt.Errorf("wait for memory: %w", err)
		}
	}
	if err := acquire(b.budget, held); err != nil {
		if l.share != nil {
			l.share.Release(held)
		}
		return nil, fmt.Errorf("wait for memory: %w", err)
	}
	l.store = b.pools.take(l.class)
	l.data = (*l.store)[:size]
	return l, nil
}

// free gives the buffer back. data must not be used any more.
func (l *loan) free() {
	l.data = nil
	l.from.pools.give(l.class, l.store)
	l.from.budget.Release(int64(bodyClasses[l.class]))
	if l.share != nil {
		l.share.Release(int64(bodyClasses[l.class]))
	}
}

// Errors of a body that is not as long as it was said to be (section 2.4 of the
// protocol specification).
var (
	errBodyLong  = errors.New("uploaded chunk is larger than announced")
	errBodyShort = errors.New("uploaded chunk has unexpected size")
	errStalled   = errors.New("the upload stalled and the server gave up on it")
)

// patience is how long the client of one session may be silent in the middle of
// an upload. On a slow line the streams of a session take turns, and a frame may
// take its time: what counts is that anything comes at all. What a stalled upload
// holds meanwhile is its owner's own.
type patience struct {
	limit time.Duration
	began time.Time
	last  atomic.Int64 // when a byte came, since began
}

func newPatience(limit time.Duration) *patience {
	return &patience{limit: limit, began: time.Now()}
}

// heard notes that something has come.
func (p *patience) heard() { p.last.Store(int64(time.Since(p.began))) }

// vigil watches one body.
type vigil struct {
	*patience
	stream *http.ResponseController

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// watch begins to watch the body of a request that is being read now.
func (p *patience) watch(w http.ResponseWriter) *vigil {
	v := &vigil{patience: p, stream: http.NewResponseController(w)}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timer = time.AfterFunc(p.limit, v.look)
	return v
}

// look breaks the body off if the session has fallen silent.
func (v *vigil) look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return
	}
	if silent := time.Since(v.began) - time.Duration(v.last.Load()); silent < v.limit {
		v.timer.Reset(v.limit - silent)
		return
	}
	_ = v.stream.SetReadDeadline(time.Unix(1, 0))
}

// end stops watching.
func (v *vigil) end() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.over = true
	v.timer.Stop()
}

// watchedBody is the body of a request. It is watched from the first read on,
// not while its handler waits for memory.
type watchedBody struct {
	io.ReadCloser
	begin func() *vigil
	vigil *vigil
}

// Read implements io.Reader.
func (b *watchedBody) Read(p []byte) (int, error) {
	if b.vigil == nil {
		b.vigil = b.begin()
	}
	n, err := b.ReadCloser.Read(p)
	if errors.Is(err, os.ErrDeadlineExceeded) {
		err = errStalled
	}
	if err != nil {
		b.vigil.end()
	}
	return n, err
}

// stop ends the watch.
func (b *watchedBody) stop() {
	if b.vigil != nil {
		b.vigil.end()
	}
}

// fill reads a body, which must be as long as into.
func fill(into []byte, body io.Reader) error {
	switch _, err := io.ReadFull(body, into); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return errBodyShort
	case err != nil:
		return fmt.Errorf("read the upload: %w", err)
	}
	return ended(body)
}

// ended makes sure that nothing follows.
func ended(body io.Reader) error {
	var more [1]byte
	switch n, err := io.ReadFull(body, more[:]); {
	case n > 0:
		return errBodyLong
	case errors.Is(err, io.EOF):
		return nil
	default:
		return fmt.Errorf("read the upload: %w", err)
	}
}
