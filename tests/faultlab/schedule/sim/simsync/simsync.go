// Package sync stands for the package of that name in the programs of the
// schedules: the scheduler of package sim knows who waits for a lock.
//
// The package imports package sim.
package sync

import (
	"sync"

	"holdfast/tests/faultlab/schedule/sim"
)

// These never wait for a lock while they have one.
type (
	// Pool is that of package sync.
	Pool = sync.Pool
	// Map is that of package sync.
	Map = sync.Map
	// Cond is that of package sync.
	Cond = sync.Cond
	// Locker is that of package sync.
	Locker = sync.Locker
)

// NewCond is that of package sync.
func NewCond(l Locker) *Cond { return sync.NewCond(l) }

// Mutex is a lock of package sim.
type Mutex struct{ l sim.Lock }

// Lock waits for the lock.
func (m *Mutex) Lock() { m.l.Take(true) }

// Unlock gives it back.
func (m *Mutex) Unlock() { m.l.Give(true) }

// TryLock takes it if it is free.
func (m *Mutex) TryLock() bool { return m.l.Try(true) }

// RWMutex is a lock of package sim that readers share.
type RWMutex struct{ l sim.Lock }

// Lock waits for the lock.
func (m *RWMutex) Lock() { m.l.Take(true) }

// Unlock gives it back.
func (m *RWMutex) Unlock() { m.l.Give(true) }

// TryLock takes it if it is free.
func (m *RWMutex) TryLock() bool { return m.l.Try(true) }

// RLock waits for the lock as a reader.
func (m *RWMutex) RLock() { m.l.Take(false) }

// RUnlock gives it back.
func (m *RWMutex) RUnlock() { m.l.Give(false) }

// TryRLock takes it as a reader if that is possible.
func (m *RWMutex) TryRLock() bool { return m.l.Try(false) }

// Once does something once.
type Once struct {
	m    Mutex
	done bool
}

// Do calls f the first time.
func (o *Once) Do(f func()) {
	o.m.Lock()
	defer o.m.Unlock()
	if !o.done {
		defer func() { o.done = true }()
		f()
	}
}

// OnceFunc returns a function that calls f the first time.
func OnceFunc(f func()) func() {
	var o Once
	return func() { o.Do(f) }
}

// OnceValue returns a function that calls f the first time.
func OnceValue[T any](f func() T) func() T {
	var o Once
	var v T
	return func() T {
		o.Do(func() { v = f() })
		return v
	}
}

// WaitGroup counts tasks.
type WaitGroup struct{ c sim.Latch }

// Add changes the count.
func (wg *WaitGroup) Add(n int) { wg.c.Add(n) }

// Done counts one less.
func (wg *WaitGroup) Done() { wg.c.Add(-1) }

// Wait waits until the count is zero.
func (wg *WaitGroup) Wait() { wg.c.Wait() }

// Go runs f as a task.
func (wg *WaitGroup) Go(f func()) {
	wg.Add(1)
	sim.Go(func() {
		defer wg.Done()
		f()
	})
}
