package sim

import "unsafe"

// host is a goroutine that runs one task after the other: its stack has grown
// already.
type host struct {
	w    *World
	next chan *Task // nil ends it
}

func (h *host) run() {
	for t := range h.next {
		if t == nil {
			return
		}
		setProfLabel(unsafe.Pointer(t))
		t.run(h)
	}
}

// host returns one without a task.
func (w *World) host() *host {
	w.mu.Lock()
	defer w.mu.Unlock()
	if k := len(w.hosts); k > 0 {
		h := w.hosts[k-1]
		w.hosts = w.hosts[:k-1]
		return h
	}
	h := &host{w: w, next: make(chan *Task, 1)}
	go h.run()
	return h
}

// keep notes that a host has no task any more.
func (w *World) keep(h *host) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.hosts = append(w.hosts, h)
}

// Rest ends the goroutines that wait for tasks.
func (w *World) Rest() {
	w.mu.Lock()
	defer w.mu.Unlock()
	for _, h := range w.hosts {
		h.next <- nil
	}
	w.hosts = nil
}
