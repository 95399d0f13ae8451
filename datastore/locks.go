package datastore

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"holdfast/datastore/wire"
)

// removing is the number of holders of a snapshot that is being removed.
const removing = -1

// locks are those of one open store. They count within this process; the lock
// of the chunk store keeps other writing processes away. None but edit and
// occupySoon waits.
type locks struct {
	mu    sync.Mutex
	busy  map[wire.Group]*occupant // groups that a session writes to
	held  map[wire.Snapshot]int    // open readers and bases, or removing
	edits map[any]*countedMutex    // changes, by wire.Snapshot or wire.Group
	given chan struct{}            // closed when a group gets another owner
}

// occupant has a group.
type occupant struct {
	free chan struct{} // closed when the group is vacated
	left chan struct{} // closed before, when it is known that it will be soon
	time int64         // of the snapshot that is being written, 0 if there is none
}

// countedMutex is dropped from its map with its last user.
type countedMutex struct {
	sync.Mutex
	users int
}

func newLocks() *locks {
	return &locks{busy: make(map[wire.Group]*occupant), held: make(map[wire.Snapshot]int), edits: make(map[any]*countedMutex), given: make(chan struct{})}
}

// occupy takes a group for a session, or for its removal.
func (l *locks) occupy(g wire.Group) error {
	_, err := l.tryOccupy(g)
	return err
}

// tryOccupy is occupy that tells who has the group.
func (l *locks) tryOccupy(g wire.Group) (*occupant, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.busy[g]; o != nil {
		return o, fmt.Errorf("backup group %s is being written to by another backup: %w", g, wire.ErrBusy)
	}
	l.busy[g] = &occupant{free: make(chan struct{}), left: make(chan struct{})}
	return nil, nil
}

// writing says which snapshot the group is occupied for.
func (l *locks) writing(snap wire.Snapshot) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.busy[snap.Group]; o != nil {
		o.time = snap.Time
	}
}

// unfinished tells the time of the snapshot that is being written to a group.
func (l *locks) unfinished(g wire.Group) (at int64, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.busy[g]
	if o == nil || o.time == 0 {
		return 0, false
	}
	return o.time, true
}

// leavingMost is how long occupySoon waits for a session that is ending: it has
// to make durable what has arrived.
const leavingMost = time.Minute

// occupySoon is occupy that waits up to patience for a group that another
// session has, and longer for one that is ending.
func (l *locks) occupySoon(ctx context.Context, g wire.Group, patience time.Duration) error {
	end, cancel := context.WithTimeout(ctx, leavingMost)
	defer cancel()
	alive, stop := context.WithTimeout(end, patience)
	defer stop()
	for {
		o, err := l.tryOccupy(g)
		if err == nil {
			return nil
		}
		select {
		case <-o.free:
			continue
		case <-o.left:
		case <-alive.Done():
		}
		select {
		case <-o.left:
		default:
			return errors.Join(err, ctx.Err())
		}
		select {
		case <-o.free:
		case <-end.Done():
			return errors.Join(err, ctx.Err())
		}
	}
}

func (l *locks) vacate(g wire.Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if o := l.busy[g]; o != nil {
		close(o.free)
		delete(l.busy, g)
	}
}

// leave says that a group will be vacated soon.
func (l *locks) leave(g wire.Group) {
	l.mu.Lock()
	defer l.mu.Unlock()
	o := l.busy[g]
	if o == nil {
		return
	}
	select {
	case <-o.left:
	default:
		close(o.left)
	}
}

// give says that a group has got another owner.
func (l *locks) give() {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.given)
	l.given = make(chan struct{})
}

// giving is closed by the next give.
func (l *locks) giving() <-chan struct{} {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.given
}

func (l *locks) occupied(g wire.Group) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.busy[g] != nil
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
