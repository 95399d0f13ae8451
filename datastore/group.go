package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// Files in the directory of a group, and how much of them is read, in bytes.
const (
	ownerName = "owner"
	// copiesName is the file that tells whose copies of encrypted chunks the
	// snapshots of the group read: those of who made it, whoever owns it now.
	copiesName = "copies"
	// ownCopiesName is the same in the directory of a snapshot that reads others than
	// its group does.
	ownCopiesName = ".copies"
	notesName     = "notes"
	ownerMax      = 256
)

// ErrOwner is returned when a backup group belongs to somebody else (section
// 7.4 of the protocol specification).
var ErrOwner = wire.ErrOwner

// ErrOwnerFile is wrapped, with chunkstore.ErrCorrupt, when what is recorded of
// a group's owner cannot be understood.
var ErrOwnerFile = errors.New("the file owner cannot be understood, holdfast repair makes it anew")

// checkOwner returns ErrOwner, naming both, unless caller counts as owner.
func checkOwner(caller, owner wire.AuthID) error {
	if caller.Owns(owner) {
		return nil
	}
	return fmt.Errorf("%w (%s != %s)", ErrOwner, caller, owner)
}

// checkGroup checks all parts of a group's name.
func checkGroup(g wire.Group) error {
	if _, err := wire.ParseNamespace(string(g.NS)); err != nil {
		return err
	}
	return g.Validate()
}

// Owner returns who a group belongs to. A group of snapshots that no owner was
// recorded for belongs to wire.RootUser, one that nobody has ever begun a
// backup in is chunkstore.ErrNotExist, and an owner file that cannot be
// understood is chunkstore.ErrCorrupt.
func (s *Store) Owner(g wire.Group) (wire.AuthID, error) {
	if err := checkGroup(g); err != nil {
		return "", err
	}
	defer s.locks.edit(g)() // one that is new is not told before it is durable
	return s.owner(g)
}

// OwnerNow is Owner that waits for nobody, for a session that asks at each of its
// requests and while it is being finished: who is being made the owner may be
// told before that is durable.
func (s *Store) OwnerNow(g wire.Group) (wire.AuthID, error) {
	if err := checkGroup(g); err != nil {
		return "", err
	}
	return s.owner(g)
}

// owner is who a group belongs to, one of which there is nothing but that somebody has
// begun it, too.
func (s *Store) owner(g wire.Group) (wire.AuthID, error) {
	id, err := s.recordedOwner(g)
	if errors.Is(err, chunkstore.ErrNotExist) {
		if claimed, ok := s.claims.of(g); ok {
			return claimed, nil
		}
	}
	return id, err
}

func (s *Store) recordedOwner(g wire.Group) (wire.AuthID, error) {
	raw, err := s.readFile(path.Join(groupPath(g), ownerName), ownerMax)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return s.unrecordedOwner(g)
	}
	if errors.Is(err, chunkstore.ErrCorrupt) {
		return "", fmt.Errorf("backup group %s: %w: %w", g, ErrOwnerFile, err)
	}
	if err != nil {
		return "", fmt.Errorf("owner of backup group %s: %w", g, err)
	}
	id, err := wire.ParseAuthID(strings.TrimSuffix(string(raw), "\n"))
	if err != nil {
		return "", fmt.Errorf("backup group %s: %w: %w: %w", g, ErrOwnerFile, chunkstore.ErrCorrupt, err)
	}
	return id, nil
}

// BadOwner is a backup group whose owner cannot be read.
type BadOwner struct {
	Group wire.Group
	Err   error
}

// BadOwners lists the groups, those without a snapshot among them, whose owner
// cannot be read: nobody can back up to them.
func (s *Store) BadOwners(ctx context.Context) ([]BadOwner, error) {
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return nil, err
	}
	var bad []BadOwner
	for _, ns := range spaces {
		groups, err := s.groupDirs(ns)
		if err != nil {
			return nil, err
		}
		for _, g := range groups {
			if _, err := s.owner(g); err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
				bad = append(bad, BadOwner{g, err})
			}
		}
	}
	return bad, ctx.Err()
}

// RepairOwner makes the owner of a group anew if what is recorded cannot be
// understood, and returns it: the one that a removed snapshot of the group
// remembers, or else wire.RootUser, who can give the group to somebody. An owner
// that can be read is not touched.
func (s *Store) RepairOwner(ctx context.Context, g wire.Group) (id wire.AuthID, err error) {
	err = s.editGroup(ctx, nil, g, func() error {
		if id, err = s.owner(g); !errors.Is(err, chunkstore.ErrCorrupt) {
			return err
		}
		if id, err = s.rememberedOwner(g); err != nil {
			return err
		}
		defer s.locks.give()
		return s.writeOwner(g, id)
	})
	return id, err
}

// rememberedOwner is who a group belonged to when a snapshot was last removed
// from it, as far as the trash tells.
func (s *Store) rememberedOwner(g wire.Group) (wire.AuthID, error) {
	list, err := s.trash()
	if err != nil {
		return "", err
	}
	for _, e := range slices.Backward(list) {
		w, err := s.where(e)
		if err == nil && w.snapshot().Group == g && w.Owner != "" {
			return w.Owner, nil
		}
	}
	return wire.RootUser, nil
}

func (s *Store) unrecordedOwner(g wire.Group) (wire.AuthID, error) {
	times, err := s.times(g)
	if err == nil && len(times) == 0 {
		err = fmt.Errorf("backup group %s: %w", g, chunkstore.ErrNotExist)
	}
	if err != nil {
		return "", err
	}
	return wire.RootUser, nil
}

// Copies returns whose copies of encrypted chunks the snapshots of a group read and
// new ones add to. It is the owner that the group was made for, and stays.
func (s *Store) Copies(g wire.Group) (wire.AuthID, error) {
	if err := checkGroup(g); err != nil {
		return "", err
	}
	owner, ownerErr := s.owner(g)
	if errors.Is(ownerErr, chunkstore.ErrNotExist) {
		return "", ownerErr // what is there is of a group that has never come to be
	}
	id, err := s.readCopies(path.Join(groupPath(g), copiesName))
	if errors.Is(err, chunkstore.ErrNotExist) {
		return owner, ownerErr
	}
	return id, err
}

// readCopies reads a file that tells whose copies are read.
func (s *Store) readCopies(name string) (wire.AuthID, error) {
	raw, err := s.readFile(name, ownerMax)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return "", err
	}
	id := wire.AuthID(strings.TrimSuffix(string(raw), "\n"))
	if err == nil {
		_, err = wire.ParseAuthID(string(id))
	}
	if err != nil {
		return "", fmt.Errorf("whose encrypted chunks %s reads: %w: %w (write the name of its first owner into %s)",
			path.Dir(name), chunkstore.ErrCorrupt, err, filepath.Join(s.path, name))
	}
	return id, nil
}

// inherit takes away a group that holds nothing from who claims it, and what he has
// said about it, his copies among it. The caller has the group's edit lock.
func (s *Store) inherit(g wire.Group) error {
	s.claims.drop(g)
	gone, err := s.removeGroup(g)
	if _, there := s.root.Lstat(groupPath(g)); err == nil && !gone && !errors.Is(there, fs.ErrNotExist) {
		err = fmt.Errorf("backup group %s: %w", g, ErrOwner)
	}
	return err
}

// writeCopies writes down whose copies a group reads.
func (s *Store) writeCopies(g wire.Group, id wire.AuthID) error {
	return s.writeCopiesTo(path.Join(groupPath(g), copiesName), id)
}

func (s *Store) writeCopiesTo(name string, id wire.AuthID) error {
	return noSpace(durable.WriteFile(filepath.Join(s.path, name), []byte(id+"\n"), 0o600))
}

// ownerTag is what chunks are told apart by.
func ownerTag(id wire.AuthID) chunkstore.Owner { return chunkstore.OwnerOf(string(id)) }

// SetOwner gives a group to somebody else, with those of its snapshots that are
// in the trash. It goes on reading the chunks it has.
func (s *Store) SetOwner(ctx context.Context, g wire.Group, id wire.AuthID) error {
	return s.setOwner(ctx, nil, g, id)
}

func (s *Store) setOwner(ctx context.Context, may Guard, g wire.Group, id wire.AuthID) error {
	if _, err := wire.ParseAuthID(string(id)); err != nil {
		return err
	}
	if err := checkGroup(g); err != nil {
		return err
	}
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	if was, err := s.passClaim(may, g, id); was || err != nil {
		return err
	}
	return s.editGroup(ctx, may, g, func() error {
		copies, err := s.Copies(g)
		if err == nil {
			err = s.writeCopies(g, copies)
		}
		if err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
			return err
		}
		before, err := s.owner(g)
		if err == nil {
			err = s.passTrash(g, before, id)
		}
		if err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
			return err
		}
		defer s.locks.give()
		return s.writeOwner(g, id)
	})
}

// OwnersChanged returns what is closed when a group gets another owner the next time,
// so that whoever has asked may ask again.
func (s *Store) OwnersChanged() <-chan struct{} { return s.locks.giving() }

// passClaim gives a group to somebody that was begun and holds nothing, with what was
// removed from it. It reports whether it is one.
func (s *Store) passClaim(may Guard, g wire.Group, id wire.AuthID) (bool, error) {
	defer s.locks.edit(g)()
	_, err := s.recordedOwner(g)
	before, ok := s.claims.of(g)
	if !ok || !errors.Is(err, chunkstore.ErrNotExist) {
		return false, nil
	}
	if err := s.ask(may, g); err != nil {
		return true, err
	}
	if err := s.passTrash(g, before, id); err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
		return true, err
	}
	defer s.locks.give()
	s.claims.add(g, id)
	return true, nil
}

func (s *Store) writeOwner(g wire.Group, id wire.AuthID) error {
	name := filepath.Join(s.path, groupPath(g), ownerName)
	return noSpace(durable.WriteFile(name, []byte(id+"\n"), 0o600))
}

// editGroup calls change while nobody else changes the group, which must be
// there, if may lets it.
func (s *Store) editGroup(ctx context.Context, may Guard, g wire.Group, change func() error) error {
	if err := checkGroup(g); err != nil {
		return err
	}
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	defer s.locks.edit(g)()
	if _, err := s.recordedOwner(g); err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
		return err
	}
	if err := s.ask(may, g); err != nil {
		return err
	}
	if err := change(); err != nil {
		return fmt.Errorf("backup group %s: %w", g, err)
	}
	return nil
}

// claim checks that caller may write to a group.
func (s *Store) claim(g wire.Group, caller wire.AuthID) error {
	if err := s.checkPlace(g); err != nil {
		return err
	}
	owner, err := s.owner(g)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	return checkOwner(caller, owner)
}

// claimsMax is how many groups of a namespace may be somebody's without holding
// anything. A first backup that is broken off leaves one, so that it is more than
// an unlucky administrator gets to.
const claimsMax = 128

// mayClaim is claim for who begins a backup. A group stays its owner's though its
// first backup came to nothing (section 2.1 of the protocol specification); but
// the groups of one who has claimed many and filled none keep nobody out, and
// caller inherits them.
func (s *Store) mayClaim(ctx context.Context, g wire.Group, caller wire.AuthID) (inherits bool, err error) {
	refusal := s.claim(g, caller)
	if !errors.Is(refusal, ErrOwner) {
		return false, refusal
	}
	if empty, err := s.holdsNothing(g); err != nil || !empty {
		return false, errors.Join(refusal, err)
	}
	owner, err := s.owner(g)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return false, nil // it has gone meanwhile
	}
	if err != nil {
		return false, err
	}
	groups, err := s.Owners(ctx, g.NS)
	if err != nil {
		return false, err
	}
	claims := 0
	for _, other := range groups {
		if other.Owner != owner {
			continue
		}
		if times, err := s.times(other.Group); err == nil && len(times) == 0 {
			claims++
		}
	}
	if claims <= claimsMax {
		return false, refusal
	}
	return true, nil
}

// holdsNothing reports whether a group has no snapshot, in the trash neither.
func (s *Store) holdsNothing(g wire.Group) (bool, error) {
	times, err := s.times(g)
	if err != nil || len(times) > 0 {
		return false, err
	}
	list, err := s.trash()
	if err != nil {
		return false, err
	}
	for _, e := range list {
		w, err := s.where(e)
		if err != nil || w.snapshot().Group == g {
			return false, err
		}
	}
	return true, nil
}

// makeGroup makes a group and records its owner where that has not been done;
// one that is new belongs to caller. The caller has the group's edit lock, and
// has occupied it or keeps the lock as long as the group must stay.
func (s *Store) makeGroup(g wire.Group, caller wire.AuthID) error {
	return s.makeGroupFor(g, caller, caller)
}

// makeGroupFor is makeGroup for a group that reads the copies of somebody else, if it is
// new.
func (s *Store) makeGroupFor(g wire.Group, caller, copies wire.AuthID) error {
	owner, err := s.owner(g)
	switch {
	case err == nil: // it has snapshots, at least
		copies, err = s.Copies(g)
	case errors.Is(err, chunkstore.ErrNotExist):
		owner, err = caller, nil
	}
	if err != nil {
		return err
	}
	if err := durable.MkdirAll(filepath.Join(s.path, groupPath(g)), 0o700); err != nil {
		return noSpace(err)
	}
	_, err = s.root.Lstat(path.Join(groupPath(g), ownerName))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	// First, so that nothing is ever read as another's. One that is there is of a
	// group that has never come to be.
	if err := s.writeCopies(g, copies); err != nil {
		return err
	}
	if err := s.writeOwner(g, owner); err != nil {
		return err
	}
	s.claims.drop(g)
	return nil
}

// GroupNotes returns the comment of a group, "" if it has none.
func (s *Store) GroupNotes(g wire.Group) (string, error) {
	if err := checkGroup(g); err != nil {
		return "", err
	}
	defer s.locks.edit(g)()
	return s.groupNotes(g)
}

func (s *Store) groupNotes(g wire.Group) (string, error) {
	if _, err := s.owner(g); err != nil && !errors.Is(err, chunkstore.ErrCorrupt) {
		return "", err
	}
	return s.readNotes(g)
}

func (s *Store) readNotes(g wire.Group) (string, error) {
	text, err := s.readFile(path.Join(groupPath(g), notesName), notesMax)
	if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		return "", fmt.Errorf("notes of backup group %s: %w", g, err)
	}
	return string(text), nil
}

// SetGroupNotes replaces the comment of a group; "" removes it.
func (s *Store) SetGroupNotes(ctx context.Context, g wire.Group, text string) error {
	return s.setGroupNotes(ctx, nil, g, text)
}

func (s *Store) setGroupNotes(ctx context.Context, may Guard, g wire.Group, text string) error {
	if err := checkNotes(text); err != nil {
		return err
	}
	return s.editGroup(ctx, may, g, func() error {
		name := filepath.Join(s.path, groupPath(g), notesName)
		if text == "" {
			return durable.Remove(name)
		}
		return noSpace(durable.WriteFile(name, []byte(text), 0o600))
	})
}
