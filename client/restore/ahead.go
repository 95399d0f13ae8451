package restore

import (
	"context"
	"iter"
	"sync"

	"holdfast/chunkstore"
	"holdfast/client/pipeline"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// distant is what a Reader of a server can do besides: to keep the way from there full many chunks
// have to be asked for at once. Window returns how many, and how many bytes they
// may have together. GetInto is Get that uses the capacity of room if it
// suffices.
type distant interface {
	Window() (chunks int, bytes int64)
	GetInto(ctx context.Context, ref chunkstore.Ref, room []byte) (chunkstore.Blob, error)
}

// queueMax is how many entries are looked at before their turn. Zero chunks are
// not asked for, so that the window does not bound them.
const queueMax = 4096

// ahead is a Reader that has asked for chunks before Get does. What it holds is
// bounded by the window.
type ahead struct {
	wire.Reader
	far    distant
	window *pipeline.Window
	class  chunkstore.Class // of the archive
	asking sync.WaitGroup

	mu     sync.Mutex
	chunks map[chunkstore.ID]*asked
}

// asked is a chunk that has been asked for.
type asked struct {
	users int    // entries that still need it
	room  []byte // of the window
	done  chan struct{}
	raw   chunkstore.Blob
	err   error
}

func newAhead(r wire.Reader, far distant, class chunkstore.Class) *ahead {
	return &ahead{Reader: r, far: far, class: class, window: pipeline.NewWindow(far.Window()), chunks: make(map[chunkstore.ID]*asked)}
}

// entries yields what list does, and asks for the chunks of entries that are
// still to come, but for those that skip holds for. When it has ended so has
// all asking, once ctx has.
func (a *ahead) entries(ctx context.Context, list iter.Seq2[index.Entry, error], skip func(index.Entry) bool) iter.Seq2[index.Entry, error] {
	return func(yield func(index.Entry, error) bool) {
		next, stop := iter.Pull2(list)
		defer stop()
		var queue []index.Entry
		e, err, more := next()
		for more || len(queue) > 0 {
			for more && err == nil && len(queue) < queueMax && (skip(e) || a.ask(ctx, e, len(queue) == 0)) {
				queue = append(queue, e)
				e, err, more = next()
			}
			if len(queue) == 0 {
				if err == nil {
					err = ctx.Err()
				}
				yield(index.Entry{}, err)
				return
			}
			if !yield(queue[0], nil) {
				return
			}
			queue = queue[1:]
		}
	}
}

// ask begins to get the chunk of an entry. If there is no room it returns false,
// or waits for it; false means then that ctx has ended.
func (a *ahead) ask(ctx context.Context, e index.Entry, wait bool) bool {
	if a.share(e.ID) {
		return true
	}
	room, ok := a.window.TryTake(int(e.Size) + chunkstore.BlobMore)
	if !ok {
		if !wait {
			return false
		}
		var err error
		if room, err = a.window.Take(ctx, int(e.Size)+chunkstore.BlobMore); err != nil {
			return false
		}
	}
	c := &asked{users: 1, room: room, done: make(chan struct{})}
	a.mu.Lock()
	a.chunks[e.ID] = c
	a.mu.Unlock()
	a.asking.Go(func() {
		defer close(c.done)
		c.raw, c.err = a.far.GetInto(ctx, chunkstore.Ref{ID: e.ID, Size: e.Size, Class: a.class}, room)
	})
	return true
}

// share counts on a chunk that has been asked for already.
func (a *ahead) share(id chunkstore.ID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	c := a.chunks[id]
	if c != nil {
		c.users++
	}
	return c != nil
}

// Get implements chunkstore.RefGetter. What was asked for stays valid until its
// entry is released.
func (a *ahead) Get(ctx context.Context, ref chunkstore.Ref) (chunkstore.Blob, error) {
	a.mu.Lock()
	c := a.chunks[ref.ID]
	a.mu.Unlock()
	if c == nil {
		return a.Reader.Get(ctx, ref)
	}
	select {
	case <-c.done:
		return c.raw, c.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// release says that the chunk of an entry that was yielded has been dealt with.
func (a *ahead) release(id chunkstore.ID) {
	a.mu.Lock()
	c := a.chunks[id]
	over := false
	if c != nil {
		c.users--
		if over = c.users == 0; over {
			delete(a.chunks, id)
		}
	}
	a.mu.Unlock()
	if over {
		<-c.done // whoever released it may not have waited
		a.window.Give(c.room)
	}
}
