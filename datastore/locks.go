package datastore

import (
	"fmt"
	"sync"

	"holdfast/datastore/wire"
)

// removing is the number of holders of a snapshot that is being removed.
const removing = -1

// locks are those of one open store. They count within this process; the lock
// of the chunk store keeps other writing processes away. None but edit waits.
type locks struct {
	mu    sync.Mutex
	busy  map[wire.Group]bool   // groups that a session writes to
	held  map[wire.Snapshot]int // open readers and bases, or removing
	edits map[any]*countedMutex // changes, by wire.Snapshot or wire.Group
}

// countedMutex is dropped from its map with its last user.
type countedMutex struct {
	sync.Mutex
	users int
}

func newLocks() *locks {
	return &locks{busy: make(map[wire.Group]bool), held: make(map[wire.Snapshot]int), edits: make(map[any]*countedMutex)}
}

// occupy takes a group for a session, or for its removal.
func (l *locks) occupy(g wire.Group) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.busy[g] {
		return fmt.Errorf("backup group %s is being written to by another backup: %w", g, wire.ErrBusy)
	}
	l.busy[g] = true
	return nil
}

func (l *locks) vacate(g wire.Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.busy, g)
}

func (l *locks) occupied(g wire.Group) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy[g]
}

// hold keeps a snapshot from being removed until release is called, once.
func (l *locks) hold(s wire.Snapshot) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[s] == removing {
		return nil, fmt.Errorf("snapshot %s is being removed: %w", s, wire.ErrBusy)
	}
	l.held[s]++
	return sync.OnceFunc(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		if l.held[s]--; l.held[s] == 0 {
			delete(l.held, s)
		}
	}), nil
}

// remove takes a snapshot for its removal, unless somebody holds it.
func (l *locks) remove(s wire.Snapshot) (release func(), err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.held[s] != 0 {
		return nil, fmt.Errorf("snapshot %s is being read, or a running backup builds on it: %w", s, wire.ErrBusy)
	}
	l.held[s] = removing
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		delete(l.held, s)
	}, nil
}

// edit waits until nobody else changes what key, a wire.Snapshot or a
// wire.Group, names.
func (l *locks) edit(key any) (release func()) {
	l.mu.Lock()
	m := l.edits[key]
	if m == nil {
		m = &countedMutex{}
		l.edits[key] = m
	}
	m.users++
	l.mu.Unlock()
	m.Lock()
	return func() {
		m.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if m.users--; m.users == 0 {
			delete(l.edits, key)
		}
	}
}
