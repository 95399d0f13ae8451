package datastore

import (
	"context"
	"errors"
	"fmt"
	"iter"
	"slices"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// OwnedGroup is a group and who it belongs to, "" if that cannot be told.
type OwnedGroup struct {
	Group wire.Group
	Owner wire.AuthID
}

// Owners lists the groups of a namespace, sorted by type and id, those without a
// finished snapshot among them. It reads nothing of a group but its owner.
func (s *Store) Owners(ctx context.Context, ns wire.Namespace) ([]OwnedGroup, error) {
	if _, err := wire.ParseNamespace(string(ns)); err != nil {
		return nil, err
	}
	if err := s.checkNamespace(ns); err != nil {
		return nil, err
	}
	groups, err := s.groupDirs(ns)
	if err != nil {
		return nil, err
	}
	slices.SortFunc(groups, wire.Group.Compare)
	list := make([]OwnedGroup, 0, len(groups))
	for _, g := range groups {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		// What cannot be read of an owner is for Owner to tell; it must not hide
		// the group.
		owner, err := s.owner(g)
		if err != nil {
			owner = ""
		}
		list = append(list, OwnedGroup{Group: g, Owner: owner})
	}
	return list, nil
}

// Groups implements wire.Source.
func (s *Store) Groups(ctx context.Context, ns wire.Namespace) ([]wire.GroupInfo, error) {
	groups, err := s.Owners(ctx, ns)
	if err != nil {
		return nil, err
	}
	var list []wire.GroupInfo
	for _, g := range groups {
		info, err := s.groupInfo(ctx, g)
		if err != nil {
			return nil, err
		}
		if info.Count > 0 {
			list = append(list, info)
		}
	}
	return list, ctx.Err()
}

// Group describes a group as Groups does. One without a finished snapshot is
// chunkstore.ErrNotExist.
func (s *Store) Group(ctx context.Context, g OwnedGroup) (wire.GroupInfo, error) {
	if err := checkGroup(g.Group); err != nil {
		return wire.GroupInfo{}, err
	}
	info, err := s.groupInfo(ctx, g)
	if err == nil && info.Count == 0 {
		err = fmt.Errorf("backup group %s: %w", g.Group, chunkstore.ErrNotExist)
	}
	return info, err
}

// AllSnapshots implements wire.Source. Each group's directory and each manifest
// is read once.
func (s *Store) AllSnapshots(ctx context.Context, ns wire.Namespace) iter.Seq2[wire.SnapshotInfo, error] {
	return func(yield func(wire.SnapshotInfo, error) bool) {
		groups, err := s.Owners(ctx, ns)
		if err != nil {
			yield(wire.SnapshotInfo{}, err)
			return
		}
		for _, g := range groups {
			for info, err := range s.SnapshotsOf(ctx, g) {
				if !yield(info, err) || err != nil {
					return
				}
			}
		}
	}
}

// Snapshots implements wire.Source.
func (s *Store) Snapshots(ctx context.Context, g wire.Group) ([]wire.SnapshotInfo, error) {
	var list []wire.SnapshotInfo
	err := s.EachSnapshot(ctx, g, func(info wire.SnapshotInfo) error {
		list = append(list, info)
		return nil
	})
	if err != nil {
		return nil, err
	}
	return list, nil
}

// EachSnapshot visits what Snapshots lists one by one, so that of a group with many
// snapshots not all notes and files are in memory at a time. It ends with the first error.
func (s *Store) EachSnapshot(ctx context.Context, g wire.Group, visit func(wire.SnapshotInfo) error) error {
	if err := checkGroup(g); err != nil {
		return err
	}
	owner, err := s.owner(g)
	if err != nil {
		owner = "" // it is for Owner to tell
	}
	none := true
	for info, err := range s.SnapshotsOf(ctx, OwnedGroup{Group: g, Owner: owner}) {
		if err == nil {
			err = visit(info)
		}
		if err != nil {
			return err
		}
		none = false
	}
	if none {
		return fmt.Errorf("backup group %s: %w", g, chunkstore.ErrNotExist)
	}
	return nil
}

// SnapshotsOf describes the finished snapshots of a group one by one, the oldest
// first; of a group that does not exist there are none. It ends with the first
// error.
func (s *Store) SnapshotsOf(ctx context.Context, g OwnedGroup) iter.Seq2[wire.SnapshotInfo, error] {
	return func(yield func(wire.SnapshotInfo, error) bool) {
		err := checkGroup(g.Group)
		var list []listed
		if err == nil {
			list, err = s.inOrder(g.Group)
		}
		if err != nil {
			yield(wire.SnapshotInfo{}, err)
			return
		}
		for _, d := range list {
			info, err := s.snapshot(ctx, wire.Snapshot{Group: g.Group, Time: d.Claimed}, d)
			if errors.Is(err, chunkstore.ErrNotExist) {
				continue // removed since the times were listed
			}
			info.Owner = g.Owner
			if !yield(info, err) || err != nil {
				return
			}
		}
	}
}

// Snapshot describes one finished snapshot as Snapshots does, but for the owner
// of its group, or returns chunkstore.ErrNotExist.
func (s *Store) Snapshot(ctx context.Context, snap wire.Snapshot) (wire.SnapshotInfo, error) {
	if err := snap.Validate(); err != nil {
		return wire.SnapshotInfo{}, err
	}
	if err := checkGroup(snap.Group); err != nil {
		return wire.SnapshotInfo{}, err
	}
	return s.snapshot(ctx, snap, s.listed(snap, s.now()))
}

// snapshot is Snapshot for a name that is one, with what is known of its arrival.
func (s *Store) snapshot(ctx context.Context, snap wire.Snapshot, at listed) (wire.SnapshotInfo, error) {
	info, err := s.snapshotInfo(ctx, snap)
	info.Arrived, info.Undated = at.Arrived, at.lost
	if err != nil || info.Damage == "" {
		return info, err
	}
	if there, err := s.there(snap); err == nil && !there {
		return info, fmt.Errorf("snapshot %s: %w", snap, chunkstore.ErrNotExist)
	}
	return info, nil
}

// Count tells how many finished snapshots a group has.
func (s *Store) Count(g wire.Group) (int, error) {
	if err := checkGroup(g); err != nil {
		return 0, err
	}
	times, err := s.times(g)
	return len(times), err
}

// CheckNamespace returns chunkstore.ErrNotExist if there is no such namespace.
func (s *Store) CheckNamespace(ns wire.Namespace) error {
	if _, err := wire.ParseNamespace(string(ns)); err != nil {
		return err
	}
	return s.checkNamespace(ns)
}

// Unfinished names the snapshot that a session of this process is writing to a
// group, if there is one. No listing of the Store has it.
func (s *Store) Unfinished(g wire.Group) (wire.Snapshot, bool) {
	at, ok := s.locks.unfinished(g)
	return wire.Snapshot{Group: g, Time: at}, ok
}
