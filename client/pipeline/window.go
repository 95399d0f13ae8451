package pipeline

import (
	"context"
	"sync"

	"golang.org/x/sync/semaphore"
)

// windowStep is what the sizes of a window's buffers are rounded up to, in
// bytes.
const windowStep = 256 << 10

// Window hands out buffers for what is under way over a line, of many sizes but
// never more than so many bytes together, those included that lie idle until
// they are used again. It is safe for concurrent use.
type Window struct {
	max    int64
	least  int64 // what every buffer counts, so that there are not too many
	budget *semaphore.Weighted

	mu   sync.Mutex
	held int64            // bytes of all buffers
	idle map[int][][]byte // buffers by their size in steps
}

// NewWindow returns a window of at most pieces buffers and bytes bytes. A single
// buffer may be larger than that; it is alone then.
func NewWindow(pieces int, bytes int64) *Window {
	bytes = max(bytes, windowStep)
	return &Window{
		max: bytes, least: max(bytes/int64(max(pieces, 1)), 1), budget: semaphore.NewWeighted(bytes),
		idle: make(map[int][][]byte),
	}
}

func stepsOf(size int) int { return max((size+windowStep-1)/windowStep, 1) }

// weight is what a buffer of so many steps counts.
func (w *Window) weight(steps int) int64 {
	return min(max(int64(steps)*windowStep, w.least), w.max)
}

// Take waits until there is room and returns an empty buffer with a capacity of
// at least size bytes, which Give takes back.
func (w *Window) Take(ctx context.Context, size int) ([]byte, error) {
	steps := stepsOf(size)
	if err := w.budget.Acquire(ctx, w.weight(steps)); err != nil {
		return nil, err
	}
	return w.buffer(steps), nil
}

// TryTake is Take if there is room now.
func (w *Window) TryTake(size int) ([]byte, bool) {
	steps := stepsOf(size)
	if !w.budget.TryAcquire(w.weight(steps)) {
		return nil, false
	}
	return w.buffer(steps), true
}

// buffer returns a buffer of so many steps. Idle ones make room for it.
func (w *Window) buffer(steps int) []byte {
	w.mu.Lock()
	defer w.mu.Unlock()
	if list := w.idle[steps]; len(list) > 0 {
		w.idle[steps] = list[:len(list)-1]
		return list[len(list)-1]
	}
	size := int64(steps) * windowStep
	for other, list := range w.idle {
		for len(list) > 0 && w.held+size > w.max {
			list = list[:len(list)-1]
			w.held -= int64(other) * windowStep
		}
		if w.idle[other] = list; len(list) == 0 {
			delete(w.idle, other)
		}
	}
	w.held += size
	return make([]byte, 0, size)
}

// Give takes back a buffer of Take, at whatever length it is now.
func (w *Window) Give(b []byte) {
	steps := cap(b) / windowStep
	w.mu.Lock()
	w.idle[steps] = append(w.idle[steps], b[:0])
	w.mu.Unlock()
	w.budget.Release(w.weight(steps))
}
