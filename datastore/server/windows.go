package server

import "sync"

// Bounds of what clients may send before anybody reads it, in bytes: of all
// sessions together, and the least that every session may.
const (
	windowBudget = 128 << 20
	windowMin    = 512 << 10
)

// windows hands out the windows of connections. Those who come while many are
// there get smaller ones: what has arrived and waits is memory.
type windows struct {
	mu   sync.Mutex
	used int
}

// take returns a window in bytes, at most h2ConnWindow, and what gives it back.
func (w *windows) take() (size int, give func()) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const part = 4 // of what is left
	size = min(max((windowBudget-w.used)/part, windowMin), h2ConnWindow)
	w.used += size
	return size, sync.OnceFunc(func() {
		w.mu.Lock()
		defer w.mu.Unlock()
		w.used -= size
	})
}
