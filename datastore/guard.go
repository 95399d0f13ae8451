package datastore

import (
	"context"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// Guard says whether somebody may make a change to a group, nil if he may. owner tells
// whose the group is while nobody can change that.
type Guard func(owner func() (wire.AuthID, error)) error

// Guarded changes a Store for somebody. His guard is asked inside the lock of each
// change, so that nobody changes what has ceased to be his between the question and the
// change; its error is returned, and nothing is changed then.
type Guarded struct {
	store *Store
	may   Guard
}

// Guarded returns what changes s with a guard.
func (s *Store) Guarded(may Guard) Guarded { return Guarded{s, may} }

// ask asks a guard, if there is one, about a group. The caller has its edit lock.
func (s *Store) ask(may Guard, g wire.Group) error {
	if may == nil {
		return nil
	}
	return may(func() (wire.AuthID, error) { return s.owner(g) })
}

// Snapshots is that of Store.
func (g Guarded) Snapshots(ctx context.Context, group wire.Group) ([]wire.SnapshotInfo, error) {
	return g.store.Snapshots(ctx, group)
}

// EachSnapshot is that of Store.
func (g Guarded) EachSnapshot(ctx context.Context, group wire.Group, visit func(wire.SnapshotInfo) error) error {
	return g.store.EachSnapshot(ctx, group, visit)
}

// Forget is that of Store.
func (g Guarded) Forget(ctx context.Context, snap wire.Snapshot) error {
	return g.store.forgetFor(ctx, g.may, snap)
}

// ForgetNow is that of Store.
func (g Guarded) ForgetNow(ctx context.Context, snap wire.Snapshot) error {
	return g.store.forgetNow(ctx, g.may, snap)
}

// ForgetGroup is that of Store.
func (g Guarded) ForgetGroup(ctx context.Context, group wire.Group) (Removed, error) {
	return g.store.forgetGroupFor(ctx, g.may, group)
}

// RestoreDeleted is that of Store.
func (g Guarded) RestoreDeleted(ctx context.Context, snap wire.Snapshot) error {
	return g.store.restoreDeletedFor(ctx, g.may, snap)
}

// SetOwner is that of Store.
func (g Guarded) SetOwner(ctx context.Context, group wire.Group, id wire.AuthID) error {
	return g.store.setOwner(ctx, g.may, group, id)
}

// SetGroupNotes is that of Store.
func (g Guarded) SetGroupNotes(ctx context.Context, group wire.Group, text string) error {
	return g.store.setGroupNotes(ctx, g.may, group, text)
}

// SetNotes is that of Store.
func (g Guarded) SetNotes(ctx context.Context, snap wire.Snapshot, text string) error {
	return g.store.setNotes(ctx, g.may, snap, text)
}

// SetProtected is that of Store.
func (g Guarded) SetProtected(ctx context.Context, snap wire.Snapshot, protected bool) error {
	return g.store.setProtected(ctx, g.may, snap, protected)
}

// AddLog is that of Store.
func (g Guarded) AddLog(ctx context.Context, snap wire.Snapshot, raw chunkstore.Blob) error {
	return g.store.addBlob(ctx, g.may, blobOf{snap, LogName, raw})
}
