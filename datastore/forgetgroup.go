package datastore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// Removed says what a removal of several snapshots has done. Protected is how
// many stayed because they are.
type Removed struct {
	Groups    int
	Snapshots int
	Protected int
}

func (r *Removed) add(more Removed) {
	r.Groups += more.Groups
	r.Snapshots += more.Snapshots
	r.Protected += more.Protected
}

// ForgetGroup removes the snapshots of a group, as Forget does, and then the
// group with its owner and notes. Protected snapshots stay, and the group with
// them; that is no error. Snapshots that are being read stay too, and a group
// that is being written to stays whole; that is wire.ErrBusy. What it returns
// has been done, with an error as well.
func (s *Store) ForgetGroup(ctx context.Context, g wire.Group) (Removed, error) {
	return s.forgetGroupFor(ctx, nil, g)
}

func (s *Store) forgetGroupFor(ctx context.Context, may Guard, g wire.Group) (Removed, error) {
	if err := checkGroup(g); err != nil {
		return Removed{}, err
	}
	if _, err := s.writable(ctx); err != nil {
		return Removed{}, err
	}
	if was, err := s.forgetClaim(may, g); err != nil {
		return Removed{}, err
	} else if was {
		return Removed{Groups: 1}, nil
	}
	if err := s.checkDir(groupPath(g)); err != nil {
		return Removed{}, fmt.Errorf("backup group %s: %w", g, err)
	}
	return s.forgetGroup(ctx, may, g)
}

// forgetClaim removes a group that was begun and holds nothing. It reports whether it is
// one.
func (s *Store) forgetClaim(may Guard, g wire.Group) (bool, error) {
	defer s.locks.edit(g)()
	if _, ok := s.claims.of(g); !ok {
		return false, nil
	}
	err := s.ask(may, g)
	if err == nil {
		s.claims.drop(g)
	}
	return true, err
}

func (s *Store) forgetGroup(ctx context.Context, may Guard, g wire.Group) (r Removed, err error) {
	if err := s.locks.occupy(g); err != nil {
		return r, err
	}
	defer s.locks.vacate(g)
	times, err := s.times(g)
	if err != nil {
		return r, err
	}
	var errs []error
	for _, t := range times {
		err := s.forget(ctx, may, wire.Snapshot{Group: g, Time: t}, s.takeAway)
		switch {
		case err == nil:
			r.Snapshots++
		case errors.Is(err, wire.ErrProtected):
			r.Protected++
		case !errors.Is(err, chunkstore.ErrNotExist):
			errs = append(errs, err)
		}
	}
	defer s.locks.edit(g)()
	if err := s.ask(may, g); err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		return r, errors.Join(append(errs, err)...)
	}
	gone, err := s.removeGroup(g)
	if gone {
		r.Groups++
	}
	return r, errors.Join(append(errs, err)...)
}

// removeEmpty removes a group with its last snapshot, unless a session writes
// to it or it has become somebody else's.
func (s *Store) removeEmpty(may Guard, g wire.Group) error {
	defer s.locks.edit(g)()
	if s.locks.occupied(g) || s.ask(may, g) != nil {
		return nil
	}
	_, err := s.removeGroup(g)
	return err
}

// removeGroup removes the directory of a group that holds nothing but owner
// and notes. The caller has the group's edit lock.
func (s *Store) removeGroup(g wire.Group) (gone bool, err error) {
	names, err := durable.ReadDirIn(s.root, groupPath(g))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil // it went with another snapshot
	}
	if err != nil {
		return false, fmt.Errorf("remove backup group %s: %w", g, err)
	}
	for _, n := range names {
		if n.Name() != ownerName && n.Name() != begunName && n.Name() != copiesName && n.Name() != notesName && !durable.IsTemp(n.Name()) {
			return false, nil
		}
	}
	if err := s.removeDir(groupPath(g)); err != nil {
		return false, fmt.Errorf("remove backup group %s: %w", g, err)
	}
	return true, s.dropResume(g)
}

// removeDir removes a directory by one rename, so that a crash leaves it whole
// or gone.
func (s *Store) removeDir(dir string) error {
	var random [8]byte
	rand.Read(random[:])
	to := path.Join(tempDir, "forgotten-"+hex.EncodeToString(random[:]))
	if err := s.takeOut(dir, to); err != nil {
		return err
	}
	s.step("on its way out")
	return s.root.RemoveAll(to)
}

// takeOut moves a directory out of tree or trash, for good.
func (s *Store) takeOut(dir, to string) error {
	s.leaving.RLock()
	defer s.leaving.RUnlock()
	return s.move(dir, to)
}
