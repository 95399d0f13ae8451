package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// Deleted is a snapshot in the trash.
type Deleted struct {
	Snapshot wire.Snapshot
	Owner    wire.AuthID // of its group, when it was removed; "" if not known
	// Time is what the wall clock said when it was removed, in Unix seconds.
	Time int64
	// Left is how much longer it is kept, at least; 0 if it may go with the
	// next garbage collection.
	Left time.Duration
	// Protected tells that it never goes: it has a mark that snapshots are
	// not removed with.
	Protected bool
	// Damage says why it cannot be brought back, "" if it can. Snapshot may
	// be empty then.
	Damage string
}

// TrashTime returns how long removed snapshots can be brought back; 0 means not
// at all.
func (s *Store) TrashTime() time.Duration { return s.trashTime }

// left is how much longer an entry stays.
func (s *Store) left(e trashed) time.Duration {
	gone := min(max(s.clock.read()-e.mark, 0), s.trashTime.Milliseconds())
	return s.trashTime - time.Duration(gone)*time.Millisecond
}

// Deleted lists the snapshots in the trash, the last one removed first. A
// snapshot that was removed several times is listed several times.
func (s *Store) Deleted(ctx context.Context) ([]Deleted, error) {
	entries, err := s.trash()
	if err != nil {
		return nil, err
	}
	var list []Deleted
	for _, e := range slices.Backward(entries) {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		there, err := s.holds(e)
		if err != nil {
			return nil, fmt.Errorf("list the trash: %w", err)
		}
		if !there {
			continue
		}
		d := Deleted{Left: s.left(e)}
		w, err := s.where(e)
		if err != nil {
			d.Damage = fmt.Sprintf("%s: %v", e.dir(), err)
		} else {
			d.Snapshot, d.Owner, d.Time = w.snapshot(), w.Owner, w.Deleted
		}
		if d.Protected, err = s.protectedAt(e.snapshot()); err != nil {
			return nil, fmt.Errorf("list the trash: %w", err)
		}
		list = append(list, d)
	}
	return list, nil
}

// find returns the entries of a snapshot, the last one removed first.
func (s *Store) find(snap wire.Snapshot) (list []trashed, last where, err error) {
	entries, err := s.trash()
	if err != nil {
		return nil, last, err
	}
	for _, e := range slices.Backward(entries) {
		w, err := s.where(e)
		if unusable(err) || err == nil && w.snapshot() != snap {
			continue // what is damaged is for Deleted to tell
		}
		if err != nil {
			return nil, last, fmt.Errorf("look into the trash: %s: %w", e.dir(), err)
		}
		there, err := s.holds(e)
		if err != nil {
			return nil, last, err
		}
		if there && len(list) == 0 {
			last = w
		}
		if there {
			list = append(list, e)
		}
	}
	return list, last, nil
}

// unusable tells that an entry does not say where it belongs, and that this is
// not for lack of a disk that can be read.
func unusable(err error) bool {
	return errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, chunkstore.ErrCorrupt)
}

// RestoreDeleted brings a removed snapshot back to its place, as it was; of
// several of that name the one that was removed last. Its namespace and its
// group, with owner and notes, are made again if they are gone. One that is not
// in the trash is chunkstore.ErrNotExist, a name that is taken wire.ErrExists,
// a group that is being written to wire.ErrBusy, and one that has gone to
// somebody else since ErrOwner.
func (s *Store) RestoreDeleted(ctx context.Context, snap wire.Snapshot) error {
	return s.restoreDeletedFor(ctx, nil, snap)
}

func (s *Store) restoreDeletedFor(ctx context.Context, may Guard, snap wire.Snapshot) error {
	if err := errors.Join(checkGroup(snap.Group), snap.Validate()); err != nil {
		return err
	}
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	s.tree.RLock()
	defer s.tree.RUnlock()
	defer s.locks.edit(snap.Group)()
	defer s.locks.edit(snap)()
	if err := s.ask(may, snap.Group); err != nil {
		return err
	}
	if err := s.restoreDeleted(snap); err != nil {
		return fmt.Errorf("restore deleted snapshot %s: %w", snap, err)
	}
	return nil
}

func (s *Store) restoreDeleted(snap wire.Snapshot) error {
	entries, w, err := s.find(snap)
	if err != nil {
		return err
	}
	if len(entries) == 0 {
		return fmt.Errorf("it is not in the trash: %w", chunkstore.ErrNotExist)
	}
	if s.locks.occupied(snap.Group) {
		return fmt.Errorf("backup group %s is being written to: %w", snap.Group, wire.ErrBusy)
	}
	if _, err := s.root.Lstat(snapshotPath(snap)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("its place is taken: %w", errors.Join(wire.ErrExists, err))
	}
	if w.Owner == "" {
		w.Owner = wire.RootUser
	}
	if w.Copies == "" {
		w.Copies = w.Owner
	}
	if err := s.remakeGroup(snap.Group, w); err != nil {
		return err
	}
	defer s.counted.forgetEntry(entries[0])
	err = s.keepCopies(entries[0], w)
	if err == nil {
		err = s.putBack(entries[0], snap)
	}
	if err != nil {
		_, e := s.removeGroup(snap.Group) // if it was made for this
		return errors.Join(noSpace(err), e)
	}
	s.step("back in the tree")
	// What is left of the entry goes at the next opening if it cannot go now.
	_ = s.dropEntry(entries[0])
	s.step("entry dropped")
	return nil
}

// remakeGroup makes the group that a snapshot was removed from, if it is gone.
func (s *Store) remakeGroup(g wire.Group, w where) error {
	owner, err := s.owner(g)
	if err == nil && owner != w.Owner && !owner.Owns(w.Owner) {
		return fmt.Errorf("%w (it was %s's, and the group is %s's now; to bring it back into the group of %s run first: holdfast change-owner %s '%s')",
			ErrOwner, w.Owner, owner, w.Owner, g, w.Owner)
	}
	gone := errors.Is(err, chunkstore.ErrNotExist)
	if err != nil && !gone {
		return err
	}
	if err := s.makeGroupFor(g, w.Owner, w.Copies); err != nil {
		return err
	}
	if err := s.unmarkBegun(g); err != nil {
		return err
	}
	s.step("group made")
	if !gone || w.Notes == "" {
		return nil
	}
	return noSpace(durable.WriteFile(filepath.Join(s.path, groupPath(g), notesName), []byte(w.Notes), 0o600))
}

// keepCopies lets the snapshot of an entry read the copies that it has read, whatever
// its group reads now.
func (s *Store) keepCopies(e trashed, w where) error {
	copies, err := s.Copies(w.snapshot().Group)
	if err != nil || copies == w.Copies {
		return err
	}
	return s.writeCopiesTo(path.Join(e.snapshot(), ownCopiesName), w.Copies)
}

// putBack moves the snapshot of an entry to its place.
func (s *Store) putBack(e trashed, snap wire.Snapshot) error {
	dir := path.Join(tempDir, "returned-"+e.name)
	if err := s.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return err
	}
	settled, err := s.returnFrom(e, snap, dir)
	if settled || err != nil {
		// What cannot go now goes at the next opening.
		_ = s.root.RemoveAll(dir)
	}
	return err
}

// returnFrom is putBack with a directory to say in where the snapshot goes.
func (s *Store) returnFrom(e trashed, snap wire.Snapshot, dir string) (settled bool, err error) {
	if err := s.announce(dir, snap); err != nil {
		return false, err
	}
	// Whoever lists tree and trash for a collection must not miss it.
	s.returns.Lock()
	defer s.returns.Unlock()
	return s.appear(e.snapshot(), snap)
}

// EmptyTrash removes for good what has been in the trash for the trash time, or
// all that is in it, and returns how many snapshots went. Protected ones stay.
func (s *Store) EmptyTrash(ctx context.Context, all bool) (n int, err error) {
	if _, err := s.writable(ctx); err != nil {
		return 0, err
	}
	entries, err := s.trash()
	if err != nil {
		return 0, err
	}
	var errs []error
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return n, err
		}
		if !all && s.left(e) > 0 {
			continue
		}
		gone, err := s.destroyEntry(e)
		if gone {
			n++
		}
		if !errors.Is(err, wire.ErrProtected) {
			errs = append(errs, err)
		}
	}
	_ = s.clock.save() // it is slow then, no more
	s.takeReserve()
	return n, errors.Join(errs...)
}

// destroyEntry removes an entry for good if its snapshot is there.
func (s *Store) destroyEntry(e trashed) (gone bool, err error) {
	there, err := s.holds(e)
	if err == nil && !there {
		return false, nil // one whose snapshot is on its way stays
	}
	// Only now: what says whose it is was there before it.
	if w, err := s.where(e); err == nil {
		defer s.locks.edit(w.snapshot())()
	}
	defer s.counted.forgetEntry(e)
	if err == nil {
		there, err = s.holds(e)
	}
	if err == nil && there {
		err = s.destroy(e.snapshot(), e.dir())
		gone = err == nil
	}
	if err != nil {
		return gone, fmt.Errorf("remove %s: %w", e.dir(), noSpace(err))
	}
	return gone, nil
}

// ForgetNow removes a snapshot for good, whether it is in its place or in the
// trash, or both. It can be brought back by nobody. The errors are those of
// Forget.
func (s *Store) ForgetNow(ctx context.Context, snap wire.Snapshot) error {
	return s.forgetNow(ctx, nil, snap)
}

func (s *Store) forgetNow(ctx context.Context, may Guard, snap wire.Snapshot) error {
	if err := errors.Join(checkGroup(snap.Group), snap.Validate()); err != nil {
		return err
	}
	absent := s.forget(ctx, may, snap, s.destroySnapshot)
	if absent != nil && !errors.Is(absent, chunkstore.ErrNotExist) {
		return absent
	}
	entries, _, err := s.find(snap)
	if err != nil {
		return err
	}
	if err := s.mayEmpty(may, snap.Group); err != nil && len(entries) > 0 {
		return err
	}
	for _, e := range entries {
		if _, err := s.destroyEntry(e); err != nil {
			return fmt.Errorf("snapshot %s in the trash: %w", snap, err)
		}
	}
	if absent != nil {
		if len(entries) == 0 {
			return absent
		}
		return nil
	}
	return s.removeEmpty(may, snap.Group)
}

// mayEmpty asks a guard about what a group has in the trash, where owners do not
// matter to who may destroy it.
func (s *Store) mayEmpty(may Guard, g wire.Group) error {
	defer s.locks.edit(g)()
	return s.ask(may, g)
}

func (s *Store) destroySnapshot(snap wire.Snapshot) error {
	return s.destroy(snapshotPath(snap), snapshotPath(snap))
}
