package backup

import (
	"context"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
)

// replay walks the previous snapshot's index of the same archive beside a
// cutter, and tells what was there. One cutter uses it at a time.
type replay struct {
	prev  *index.Reader
	next  int64       // number of the entry after cur
	cur   index.Entry // the entry last looked at
	zero  func(size int) chunkstore.ID
	store *sender
}

// before is a chunk of the previous snapshot; size 0 means there is none that
// could be compared.
type before struct {
	size int
	id   chunkstore.ID
	// forced says that the chunk may have ended only because zeros followed.
	forced bool
}

// seek places the replay before the entry that covers off.
func (r *replay) seek(off int64) {
	r.cur = index.Entry{}
	i, err := r.prev.Find(uint64(off))
	if err != nil {
		i = r.prev.Count() // nothing there to compare with
	}
	r.next = i
}

// at returns the chunk that began at off and ended no later than end. It may
// be compared only if a cutter without a previous snapshot would, given the
// same bytes, have cut at its end too: not if it was the last of a shorter
// archive, and with a condition if zeros followed it.
func (r *replay) at(off, end int64) before {
	for r.cur.Size == 0 || int64(r.cur.Off) < off {
		if !r.advance() {
			return before{}
		}
	}
	e := r.cur
	chunkEnd := int64(e.Off) + int64(e.Size)
	if int64(e.Off) != off || chunkEnd > end || r.isZero(e) {
		return before{}
	}
	if chunkEnd == end {
		return before{size: int(e.Size), id: e.ID}
	}
	follows, err := r.prev.At(r.next)
	if err != nil {
		return before{}
	}
	return before{size: int(e.Size), id: e.ID, forced: chunkEnd%gridSize == 0 && r.isZero(follows)}
}

// advance looks at the next entry. A damaged index only ends the comparing: the
// bytes are then cut and hashed as if there were no previous snapshot.
func (r *replay) advance() bool {
	if r.next >= r.prev.Count() {
		return false
	}
	e, err := r.prev.At(r.next)
	if err != nil {
		r.next = r.prev.Count()
		return false
	}
	r.cur = e
	r.next++
	return true
}

// isZero reports whether e is a zero chunk, which begins on the grid and ends
// there or at the end of the archive.
func (r *replay) isZero(e index.Entry) bool {
	end := e.Off + uint64(e.Size)
	onGrid := e.Off%gridSize == 0 && (end%gridSize == 0 || end == r.prev.Size())
	return onGrid && e.Size <= fixedSize && e.ID == r.zero(int(e.Size))
}

// stored reports whether the target still has an unchanged chunk.
func (r *replay) stored(ctx context.Context, p piece) bool {
	return r.store.has(ctx, p.id, p.size)
}
