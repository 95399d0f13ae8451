package datastore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"slices"
	"strconv"
	"time"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// A snapshot that is removed goes to the trash, and comes back from it, by one
// rename, so that a crash leaves it in the one place or in the other:
//
//	.trash/MARK-NUMBER/where.json   where it belongs
//	.trash/MARK-NUMBER/snapshot/    it
//
// MARK is that of the clock at the removal, in 16 hexadecimal digits, NUMBER
// counts the removals of a process from somewhere on, in 8. Names are thus in the order of
// the removals. An entry without snapshot is one that has not come yet, or has
// gone.
const (
	trashDir    = ".trash"
	whereName   = "where.json"
	trashedName = "snapshot"
)

// whereMax caps how much of where.json is read, in bytes: notes that are all
// escaped, and the rest.
const whereMax = 6*notesMax + 64<<10

// reserveName is a file that gives up its room when there is none to remove a
// snapshot with; reserveSize and reservePiece are in bytes. A piece is what one
// entry needs. sparesName is a directory of empty files that give up their
// inodes, for where those run out first: as many as the same number of entries
// needs, each of which is a directory and a file. sparesShare is the part of the
// inodes of a file system that they may be of.
const (
	reserveName  = "reserve"
	reserveSize  = 1 << 20
	reservePiece = 32 << 10
	sparesName   = "spare"
	sparesPiece  = 2
	sparesShare  = 16
	sparesCount  = reserveSize / reservePiece * sparesPiece
)

// where is the content of where.json.
type where struct {
	NS    wire.Namespace `json:"ns"`
	Type  string         `json:"type"`
	ID    string         `json:"id"`
	Time  int64          `json:"time"`
	Mark  int64          `json:"mark"`
	Owner wire.AuthID    `json:"owner,omitempty"`
	// Copies is whose copies of encrypted chunks it reads.
	Copies wire.AuthID `json:"copies,omitempty"`
	// Deleted is what the wall clock said, for people, in Unix seconds.
	Deleted int64 `json:"deleted"`
	// Notes are those of the group, which may go with its last snapshot.
	Notes string `json:"notes,omitempty"`
}

func (w where) snapshot() wire.Snapshot {
	return wire.Snapshot{Group: wire.Group{NS: w.NS, Type: w.Type, ID: w.ID}, Time: w.Time}
}

// decodeWhere reads a where.json that lies in an entry of this mark.
func decodeWhere(raw []byte, mark int64) (where, error) {
	var w where
	if err := json.Unmarshal(raw, &w); err != nil {
		return where{}, fmt.Errorf("%s: %w", whereName, chunkstore.ErrCorrupt)
	}
	err := errors.Join(checkGroup(w.snapshot().Group), w.snapshot().Validate())
	for _, id := range []wire.AuthID{w.Owner, w.Copies} {
		if id != "" {
			_, e := wire.ParseAuthID(string(id))
			err = errors.Join(err, e)
		}
	}
	if err != nil || w.Mark != mark || len(w.Notes) > notesMax {
		return where{}, fmt.Errorf("%s: %w", whereName, errors.Join(chunkstore.ErrCorrupt, err))
	}
	return w, nil
}

// trashed is one entry of the trash.
type trashed struct {
	name string
	mark int64
}

func (e trashed) dir() string      { return path.Join(trashDir, e.name) }
func (e trashed) snapshot() string { return path.Join(trashDir, e.name, trashedName) }

// trashEntry reads the name of an entry.
func trashEntry(name string) (e trashed, ok bool) {
	if len(name) != 16+1+8 || name[16] != '-' {
		return e, false
	}
	mark, err := strconv.ParseUint(name[:16], 16, 63)
	if err != nil {
		return e, false
	}
	number, err := strconv.ParseUint(name[17:], 16, 32)
	e = trashed{name, int64(mark)}
	return e, err == nil && trashName(e.mark, uint32(number)) == name
}

func trashName(mark int64, number uint32) string { return fmt.Sprintf("%016x-%08x", mark, number) }

// trash lists the entries of the trash, the oldest first, those without a
// snapshot among them.
func (s *Store) trash() ([]trashed, error) {
	names, err := s.readDir(trashDir)
	if err != nil {
		return nil, fmt.Errorf("list the trash: %w", err)
	}
	var list []trashed
	for _, n := range names { // sorted
		if e, ok := trashEntry(n.Name()); ok && n.IsDir() {
			list = append(list, e)
		}
	}
	return list, nil
}

// holds reports whether the snapshot of an entry is there.
func (s *Store) holds(e trashed) (bool, error) {
	_, err := s.root.Lstat(e.snapshot())
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err
}

func (s *Store) where(e trashed) (where, error) {
	raw, err := s.readFile(path.Join(e.dir(), whereName), whereMax)
	if err != nil {
		return where{}, err
	}
	return decodeWhere(raw, e.mark)
}

// passTrash gives the entries of a group that were one owner's to another. The
// caller has the group's edit lock.
func (s *Store) passTrash(g wire.Group, from, to wire.AuthID) error {
	list, err := s.trash()
	if err != nil {
		return err
	}
	for _, e := range list {
		w, err := s.where(e)
		if unusable(err) || err == nil && (w.snapshot().Group != g || w.Owner != from) {
			continue
		}
		if err != nil {
			return fmt.Errorf("look into the trash: %s: %w", e.dir(), err)
		}
		w.Owner = to
		if err := s.passEntry(e, w); err != nil {
			return err
		}
	}
	return nil
}

// passEntry replaces where.json of an entry, unless that has gone meanwhile.
func (s *Store) passEntry(e trashed, w where) error {
	defer s.locks.edit(w.snapshot())()
	defer s.counted.forgetEntry(e)
	if there, err := s.holds(e); err != nil || !there {
		return err
	}
	raw, err := json.Marshal(w)
	if err == nil {
		err = durable.WriteFile(filepath.Join(s.path, e.dir(), whereName), append(raw, '\n'), 0o600)
	}
	if err != nil {
		return fmt.Errorf("%s: write %s: %w", e.dir(), whereName, noSpace(err))
	}
	return nil
}

// highMark is the last mark that something was removed at, as far as the trash
// tells.
func (s *Store) highMark() (int64, error) {
	list, err := s.trash()
	if err != nil {
		return 0, err
	}
	for _, e := range slices.Backward(list) {
		// A name alone may be anything.
		if _, err := s.where(e); err == nil && e.mark <= markMax {
			return e.mark, nil
		}
	}
	return 0, nil
}

// throw moves a snapshot to the trash. The caller has its edit lock and has
// taken it for removal.
func (s *Store) throw(snap wire.Snapshot) error {
	w := where{NS: snap.Group.NS, Type: snap.Group.Type, ID: snap.Group.ID, Time: snap.Time, Deleted: time.UnixMilli(s.clock.wall()).Unix()}
	// What cannot be read of owner and notes must not keep a snapshot from
	// being removed.
	if owner, err := s.owner(snap.Group); err == nil {
		w.Owner = owner
	}
	if copies, err := s.copiesIn(snapshotPath(snap), snap.Group); err == nil {
		w.Copies = copies
	}
	if notes, err := s.groupNotes(snap.Group); err == nil {
		w.Notes = notes
	}
	e, err := s.newEntry(w)
	for tries := 0; errors.Is(err, chunkstore.ErrNoSpace) && tries < reserveSize/reservePiece && s.giveReserve(); tries++ {
		e, err = s.newEntry(w)
	}
	if errors.Is(err, chunkstore.ErrNoSpace) {
		// One that copies on write does not give blocks free piece by piece.
		take, freeErr := s.freeReserve(context.Background())
		if freeErr != nil {
			return fmt.Errorf("make room in the trash: %w", errors.Join(err, freeErr))
		}
		defer take()
		e, err = s.newEntry(w)
	}
	if err != nil {
		return fmt.Errorf("make room in the trash: %w", err)
	}
	if err := s.moveInFull(snapshotPath(snap), e.snapshot()); err != nil {
		// If it has moved, it stays there.
		return errors.Join(noSpace(err), s.dropEntry(e))
	}
	s.step("in the trash")
	_ = s.clock.save() // it is slow then, no more
	return nil
}

// move renames a directory of the store. The directory that it leaves may go at
// the same time, as a group does with its last snapshot; then there is nothing
// left in it to be made durable.
func (s *Store) move(from, to string) error {
	err := durable.Rename(filepath.Join(s.path, from), filepath.Join(s.path, to))
	if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	_, parent := s.root.Lstat(path.Dir(from))
	if _, moved := s.root.Lstat(to); moved == nil && errors.Is(parent, fs.ErrNotExist) {
		return nil
	}
	return err
}

// moveInFull is move on a disk that may be full: one that copies on write needs
// room for a rename, which is the reserve's of the chunk store.
func (s *Store) moveInFull(from, to string) error {
	err := s.move(from, to)
	if _, there := s.root.Lstat(from); there != nil || !errors.Is(noSpace(err), chunkstore.ErrNoSpace) {
		return err
	}
	take, freeErr := s.freeReserve(context.Background())
	if freeErr != nil {
		return errors.Join(err, freeErr)
	}
	defer take()
	return s.move(from, to)
}

// newEntry makes an entry without its snapshot.
func (s *Store) newEntry(w where) (trashed, error) {
	if err := durable.MkdirAll(filepath.Join(s.path, trashDir), 0o700); err != nil {
		return trashed{}, noSpace(err)
	}
	w.Mark = s.clock.read()
	e := trashed{mark: w.Mark}
	for {
		// Never a name again that a collection may have listed: another
		// snapshot would be taken for the one that was there.
		e.name = trashName(e.mark, s.removals.Add(1))
		err := s.root.Mkdir(e.dir(), 0o700)
		if err == nil {
			break
		}
		if !errors.Is(err, fs.ErrExist) {
			return e, noSpace(err)
		}
	}
	s.step("entry made")
	raw, err := json.Marshal(w)
	if err == nil {
		err = durable.WriteFile(filepath.Join(s.path, e.dir(), whereName), append(raw, '\n'), 0o600)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Join(s.path, trashDir))
	}
	if err != nil {
		return e, errors.Join(noSpace(err), s.dropEntry(e))
	}
	s.step("entry written")
	return e, nil
}

// dropEntry removes an entry, unless its snapshot is there.
func (s *Store) dropEntry(e trashed) error {
	there, err := s.holds(e)
	if err != nil || there {
		return err
	}
	names, err := s.readDir(e.dir())
	if err != nil {
		return err
	}
	for _, n := range names {
		// Only files: a snapshot that comes meanwhile is a directory.
		if n.Type().IsRegular() {
			if err := s.root.Remove(path.Join(e.dir(), n.Name())); err != nil && !errors.Is(err, fs.ErrNotExist) {
				return err
			}
		}
	}
	if err := s.root.Remove(e.dir()); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// sweepTrash removes the entries that a killed process left without a snapshot.
// The lock is held, so no snapshot is on its way.
func (s *Store) sweepTrash() error {
	list, err := s.trash()
	if err != nil {
		return err
	}
	for _, e := range list {
		if err := s.dropEntry(e); err != nil {
			return fmt.Errorf("clean up the trash: %w", err)
		}
	}
	return nil
}

// destroy is what removes snapshots for good: no other function does. snapshot
// is the directory of one, in the tree or in the trash, and whole what goes with
// it. It leaves by one rename; a crash leaves it there, or in .tmp.
func (s *Store) destroy(snapshot, whole string) error {
	protected, err := s.protectedAt(snapshot)
	if err != nil {
		return err
	}
	if protected {
		return wire.ErrProtected
	}
	return s.removeDir(whole)
}

// protectedAt reports whether the snapshot in a directory is protected.
func (s *Store) protectedAt(dir string) (bool, error) {
	_, err := s.root.Lstat(path.Join(dir, protectedName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	return err == nil, err // never delete on doubt
}

// step tells a test what has been done.
func (s *Store) step(name string) {
	if s.onStep != nil {
		s.onStep(name)
	}
}
