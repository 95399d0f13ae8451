package datastore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"
	"strings"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// A snapshot appears in its group, finished or back from the trash, in two
// steps, because a rename is seen by all before it is durable, and whoever lists
// a snapshot tells somebody that it is there:
//
//  1. it is renamed to a name that no list shows, .pending-TIME, and the group's
//     directory is synced. If that fails, nobody has seen it, and it is taken
//     back;
//  2. it is renamed to TIME, and the group's directory is synced again.
//
// So what is listed is on the medium under one of both names. A power cut within
// the second step may leave the first: then the next opening for writing takes
// the second again. It need not search the tree for that: a directory in .tmp,
// that of the session for one that is finished, says in where.json where the
// snapshot goes, and stays until the second step is durable. Readers pay nothing,
// in whatever process they are, and take no lock.
const pendingPrefix = ".pending-"

func pendingPath(s wire.Snapshot) string {
	return path.Join(groupPath(s.Group), pendingPrefix+s.TimeString())
}

// snapshotTime reads the name of a snapshot's directory; pending tells that it
// is not in its place yet.
func snapshotTime(name string) (t int64, pending, ok bool) {
	rest, pending := strings.CutPrefix(name, pendingPrefix)
	t, err := wire.ParseTime(rest)
	return t, pending, err == nil
}

// appear moves the directory of a snapshot, whose content is synced, from where
// it is to its place, which must be free. The group is there, and the caller has
// its edit lock. After an error the snapshot is where it was, and nobody has
// seen it anywhere else. settled is false if what says where it goes must stay
// until the store is opened again.
func (s *Store) appear(from string, snap wire.Snapshot) (settled bool, err error) {
	pending, final := pendingPath(snap), snapshotPath(snap)
	if err := s.move(from, pending); err != nil {
		return false, errors.Join(err, s.takeBack(pending, from))
	}
	s.step("pending")
	if err := s.root.Rename(pending, final); err != nil {
		return false, errors.Join(err, s.takeBack(pending, from))
	}
	s.step("visible")
	if err := durable.SyncDir(filepath.Join(s.path, groupPath(snap.Group))); err != nil {
		// It is made all the same: the name that the first step has made
		// durable is enough for the next opening.
		s.tell("snapshot %s is there, but its disk reports an error; look at the disk: %v", snap, err)
		return false, nil
	}
	return true, nil
}

// takeBack undoes the first step of appear.
func (s *Store) takeBack(pending, from string) error {
	if err := s.root.Rename(pending, from); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err // it stays unseen until the next opening
	}
	return nil
}

// settle takes the second step for a snapshot that a crash has kept from it. One
// that is not pending is left alone.
func (s *Store) settle(snap wire.Snapshot) error {
	st, err := s.root.Lstat(pendingPath(snap))
	if errors.Is(err, fs.ErrNotExist) || err == nil && !st.IsDir() {
		return nil
	}
	if err != nil {
		return err
	}
	dir := filepath.Join(s.path, groupPath(snap.Group))
	if err := durable.SyncDir(dir); err != nil {
		return err
	}
	if err := s.root.Rename(pendingPath(snap), snapshotPath(snap)); err != nil {
		return fmt.Errorf("finish snapshot %s: %w", snap, noSpace(err))
	}
	return durable.SyncDir(dir)
}

// announce says in a directory of .tmp where a snapshot is about to appear.
func (s *Store) announce(dir string, snap wire.Snapshot) error {
	g := snap.Group
	raw, err := json.Marshal(where{NS: g.NS, Type: g.Type, ID: g.ID, Time: snap.Time})
	if err == nil {
		err = durable.WriteFile(filepath.Join(s.path, dir, whereName), append(raw, '\n'), 0o600)
	}
	if err == nil {
		err = durable.SyncDir(filepath.Join(s.path, tempDir))
	}
	return err
}

// announced reads what announce has written, if dir is such a directory. What is
// torn was written for a snapshot that nobody has seen, and counts as nothing.
func (s *Store) announced(dir string) (snap wire.Snapshot, ok bool, err error) {
	raw, err := s.readFile(path.Join(dir, whereName), whereMax)
	if err == nil {
		var w where
		w, err = decodeWhere(raw, 0)
		snap = w.snapshot()
	}
	if errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, chunkstore.ErrCorrupt) {
		return wire.Snapshot{}, false, nil
	}
	return snap, err == nil, err
}

// settlePending opens the store for writing, which settles what is pending, if
// there is such a snapshot and nobody else has the store open. On a disk that
// cannot be written it stays pending, and that is told.
func (s *Store) settlePending(ctx context.Context) {
	snap, ok := s.anyPending()
	if !ok {
		return
	}
	w, err := Open(ctx, s.path, Options{Notify: s.opts.Notify, Now: s.opts.Now, Uptime: s.opts.Uptime, Turns: s.opts.Turns})
	if err == nil {
		err = w.Close()
	}
	if err != nil && !errors.Is(err, chunkstore.ErrLocked) { // a writer that is there has it in hand
		s.tell("snapshot %s is whole, but not listed before the store can be opened for writing: %v", snap, err)
	}
}

// anyPending finds a pending snapshot.
func (s *Store) anyPending() (wire.Snapshot, bool) {
	names, err := s.readDir(tempDir)
	if err != nil {
		return wire.Snapshot{}, false // it is for a writer to tell
	}
	for _, n := range names {
		snap, ok, err := s.announced(path.Join(tempDir, n.Name()))
		if err != nil || !ok {
			continue
		}
		if _, err := s.root.Lstat(pendingPath(snap)); err == nil {
			return snap, true
		}
	}
	return wire.Snapshot{}, false
}

// tell tells the person at the store, if there is somebody.
func (s *Store) tell(format string, args ...any) {
	if s.opts.Notify != nil {
		s.opts.Notify(fmt.Sprintf(format, args...))
	}
}
