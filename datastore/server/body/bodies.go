package body

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

	"holdfast/chunkstore"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
)

// bodyClasses are the sizes of the buffers that bodies are read into, in bytes.
// The last holds the largest chunk.
var bodyClasses = [...]int{64 << 10, 512 << 10, 1 << 20, 2 << 20, 4<<20 + 4<<10, 8 << 20, chunkstore.BlobSizeMax}

// Keep is where bodies are: in memory while there is some for who pays, in files
// otherwise. It is safe for concurrent use.
type Keep struct {
	dir      string // of the files; "" is the system's directory for temporary files
	accounts *budget.Accounts
	// Buffers are used again, those of each class for themselves.
	pools [len(bodyClasses)]sync.Pool
}

// New returns an empty one, whose files lie in dir; "" is the system's directory for
// temporary files. What it holds is charged to the accounts.
func New(dir string, a *budget.Accounts) *Keep { return &Keep{dir: dir, accounts: a} }

// take returns a buffer of a class with chunkstore.RoomMore bytes more. Who takes one
// has been given memory for it.
func (k *Keep) take(class int) *[]byte {
	store, ok := k.pools[class].Get().(*[]byte)
	if !ok {
		fresh := make([]byte, bodyClasses[class]+chunkstore.RoomMore)
		store = &fresh
	}
	return store
}

// give takes a buffer of a class back.
func (k *Keep) give(class int, store *[]byte) { k.pools[class].Put(store) }

// Lend returns room for a blob of size bytes with chunkstore.RoomMore bytes more, until
// free. Who asks has been given memory for it.
func (k *Keep) Lend(size int) (room []byte, free func()) {
	class := classOf(size)
	store := k.take(class)
	return *store, func() { k.give(class, store) }
}

// Loan is a borrowed buffer.
type Loan struct {
	Data  []byte // the body
	from  *Keep
	class int
	hold  *ledger.Hold
	store *[]byte
}

// classOf returns the smallest class that holds size bytes, at most
// chunkstore.BlobSizeMax.
func classOf(size int) (class int) {
	for class < len(bodyClasses)-1 && bodyClasses[class] < size {
		class++
	}
	return class
}

// borrow waits for memory of an account for a body of size bytes, at most
// chunkstore.BlobSizeMax.
func (k *Keep) borrow(ctx context.Context, r *ledger.Resource, p ledger.Payer, size int) (*Loan, error) {
	return k.charge(size, func(n int64) (*ledger.Hold, error) { return r.Take(ctx, p, n) })
}

// borrowSoon is a borrow that gives up with ErrCrowded.
func (k *Keep) borrowSoon(ctx context.Context, r *ledger.Resource, p ledger.Payer, size int) (*Loan, error) {
	return k.charge(size, func(n int64) (*ledger.Hold, error) { return TakeSoon(ctx, r, p, n) })
}

func (k *Keep) charge(size int, take func(int64) (*ledger.Hold, error)) (*Loan, error) {
	if size > chunkstore.BlobSizeMax {
		return nil, fmt.Errorf("body of %d bytes: %w", size, chunkstore.ErrInvalid)
	}
	l := &Loan{from: k, class: classOf(size)}
	var err error
	if l.hold, err = take(int64(bodyClasses[l.class])); err != nil {
		return nil, err
	}
	l.store = k.take(l.class)
	l.Data = (*l.store)[:size]
	return l, nil
}

// Free gives the buffer back. Data must not be used any more.
func (l *Loan) Free() {
	l.Data = nil
	l.from.give(l.class, l.store)
	l.hold.Free()
}

// Errors of a body that is not as long as it was said to be (section 2.4 of the
// protocol specification).
var (
	ErrBodyLong  = errors.New("uploaded chunk is larger than announced")
	ErrBodyShort = errors.New("uploaded chunk has unexpected size")
	errStalled   = errors.New("the upload stalled and the server gave up on it")
)

// Patience is how long the client of one session may be silent in the middle of
// an upload. On a slow line the streams of a session take turns, and a frame may
// take its time: what counts is that anything comes at all. What a stalled upload
// holds meanwhile is its owner's own.
type Patience struct {
	Limit time.Duration
	began time.Time
	last  atomic.Int64 // when a byte came, since began
}

// NewPatience begins to watch over a session whose client may be silent for limit.
func NewPatience(limit time.Duration) *Patience {
	return &Patience{Limit: limit, began: time.Now()}
}

// Heard notes that something has come.
func (p *Patience) Heard() { p.last.Store(int64(time.Since(p.began))) }

// vigil watches one body.
type vigil struct {
	*Patience
	stream *http.ResponseController

	mu    sync.Mutex
	timer *time.Timer
	over  bool
}

// watch begins to watch the body of a request that is being read now.
func (p *Patience) watch(w http.ResponseWriter) *vigil {
	v := &vigil{Patience: p, stream: http.NewResponseController(w)}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.timer = time.AfterFunc(p.Limit, v.look)
	return v
}

// look breaks the body off if the session has fallen silent.
func (v *vigil) look() {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.over {
		return
	}
	if silent := time.Since(v.began) - time.Duration(v.last.Load()); silent < v.Limit {
		v.timer.Reset(v.Limit - silent)
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

// Watched is the body of a request. It is watched from the first read on,
// not while its handler waits for memory.
type Watched struct {
	io.ReadCloser
	begin func() *vigil
	vigil *vigil
}

// Read implements io.Reader.
func (b *Watched) Read(p []byte) (int, error) {
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

// Watch returns the body of a request that is watched. Stop ends that.
func (p *Patience) Watch(w http.ResponseWriter, from io.ReadCloser) *Watched {
	return &Watched{ReadCloser: from, begin: func() *vigil { return p.watch(w) }}
}

// Stop ends the watch.
func (b *Watched) Stop() {
	if b.vigil != nil {
		b.vigil.end()
	}
}

// fill reads a body, which must be as long as into.
func fill(into []byte, body io.Reader) error {
	switch _, err := io.ReadFull(body, into); {
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return ErrBodyShort
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
		return ErrBodyLong
	case errors.Is(err, io.EOF):
		return nil
	default:
		return fmt.Errorf("read the upload: %w", err)
	}
}
