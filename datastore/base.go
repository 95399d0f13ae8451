package datastore

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/chunkstore"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// ErrOlder is returned, with wire.ErrExists, for a snapshot that is not newer than
// the last one of its group.
var ErrOlder = errors.New("backup timestamp is older than last backup")

// findBase takes the newest finished snapshot as the one to build on and keeps
// it from being removed. One that a verification has found damaged, or whose
// manifest cannot be read, or that reads the copies of somebody else, is none; older
// ones are not looked at.
func (ss *Session) findBase(ctx context.Context) error {
	last, release, err := ss.store.holdLast(ss.snap.Group)
	if err != nil || last == nil {
		return err
	}
	var failed bool
	err = ss.store.lookAt(ctx, snapshotPath(*last), func(m *manifest.Manifest) error {
		v, ok := m.Verification()
		failed = ok && v.State == wire.VerifyFailed
		return nil
	})
	if e := ctx.Err(); e != nil {
		release()
		return e
	}
	if failed {
		release()
		return nil // an older time is accepted then, too
	}
	if e := ss.checkNewer(); e != nil {
		release()
		return e
	}
	if err != nil {
		release()
		return nil
	}
	// What came back from somebody else's time reads other copies than this one adds to.
	copies, err := ss.store.copiesIn(snapshotPath(*last), last.Group)
	if err != nil || ownerTag(copies) != ss.copies {
		release()
		return nil
	}
	ss.base, ss.unbase = last, release
	return nil
}

// checkNewer makes sure that a snapshot is newer than the others of the group. One
// whose own name had not come when it arrived says nothing about time.
func (ss *Session) checkNewer() error {
	g := ss.snap.Group
	times, err := ss.store.times(g)
	if err != nil {
		return err
	}
	for _, t := range slices.Backward(times) {
		if t < ss.snap.Time {
			return nil
		}
		if other := (wire.Snapshot{Group: g, Time: t}); !ss.store.dated(other).Ahead() {
			return fmt.Errorf("the group's newest snapshot %s is not older: %w", other, errors.Join(ErrOlder, wire.ErrExists))
		}
	}
	return nil
}

// holdLast finds the newest finished snapshot of a group and holds it; nil if
// there is none. The caller has occupied the group.
func (s *Store) holdLast(g wire.Group) (*wire.Snapshot, func(), error) {
	for {
		times, err := s.times(g)
		if err != nil || len(times) == 0 {
			return nil, nil, err
		}
		last := wire.Snapshot{Group: g, Time: s.newest(g, times).Claimed}
		release, err := s.locks.hold(last)
		if err != nil {
			s.locks.edit(last)() // waits until it has been removed, or not
			continue
		}
		ok, err := s.there(last)
		if ok {
			return &last, release, nil
		}
		release() // it went before it was held
		if err != nil {
			return nil, nil, err
		}
	}
}

// Base returns the snapshot that this one builds on: the newest finished one of
// the group, unless a verification has found it damaged. It cannot be removed
// before the session is finished or closed.
func (ss *Session) Base() (wire.Snapshot, bool) {
	if ss.base == nil {
		return wire.Snapshot{}, false
	}
	return *ss.base, true
}

// BaseClass returns the class that the chunks of an index of the base are of.
func (ss *Session) BaseClass(ctx context.Context, name string) (class chunkstore.Class, err error) {
	if ss.base == nil {
		return manifest.ClassIn(name, chunkstore.ClassPlain), nil
	}
	err = ss.store.lookAt(ctx, snapshotPath(*ss.base), func(m *manifest.Manifest) error {
		class = m.ClassOf(name)
		return nil
	})
	if err != nil {
		return class, fmt.Errorf("snapshot %s: %w", ss.base, err)
	}
	return class, nil
}

// Previous implements wire.Session: it opens the base.
func (ss *Session) Previous(ctx context.Context) (wire.Reader, error) {
	if ss.base == nil {
		return nil, fmt.Errorf("backup group %s has no snapshot to build on: %w", ss.snap.Group, chunkstore.ErrNotExist)
	}
	return ss.store.Open(ctx, *ss.base)
}
