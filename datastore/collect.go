package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"slices"
	"strings"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// BeginSweep begins the removal of chunks without use. What is in use has to be
// found out after it, with Indexes. Before the first chunk goes, what unfinished
// sessions have left ends (DropUnfinished).
func (s *Store) BeginSweep(ctx context.Context) (*pack.Sweep, error) {
	chunks, err := s.writable(ctx)
	if err != nil {
		return nil, err
	}
	sw, err := chunks.BeginSweep(ctx)
	if err != nil {
		return nil, err
	}
	sw.Before = s.DropUnfinished
	return sw, nil
}

// IndexFile is one index of one snapshot.
type IndexFile struct {
	Snapshot wire.Snapshot
	Name     string
	// Deleted tells that the snapshot was in the trash.
	Deleted bool

	entry string      // of the trash, if it was there
	place string      // the directory, if its name is none of a snapshot
	dir   fs.FileInfo // of the snapshot
}

// String names the file for messages.
func (f IndexFile) String() string {
	if f.place != "" {
		return path.Join(f.place, f.Name)
	}
	name := f.Snapshot.String() + "/" + f.Name
	if f.Snapshot.Group.NS != "" {
		name = string(f.Snapshot.Group.NS) + ": " + name
	}
	if f.Deleted {
		name += " (deleted, in " + path.Join(trashDir, f.entry) + ")"
	}
	return name
}

// Indexes lists every index of every snapshot, whether its manifest names it
// or not, those in the trash as well. A snapshot that is removed meanwhile is
// listed once or twice. Anything that cannot be listed is an error: whoever
// removes what is not referred to must have seen everything.
func (s *Store) Indexes(ctx context.Context) ([]IndexFile, error) {
	// Nothing comes back from the trash while this is held. So whatever has
	// left the tree before it was listed is in the trash afterwards.
	s.returns.RLock()
	defer s.returns.RUnlock()
	list, err := s.treeIndexes(ctx)
	if err != nil {
		return nil, err
	}
	if list, err = s.trashIndexes(ctx, list); err != nil {
		return nil, err
	}
	s.awaitLeaving()
	return list, nil
}

// awaitLeaving waits until removals are durable. Who has not seen a snapshot
// because it has just left must not take its chunks before: a power cut would
// bring it back without them.
func (s *Store) awaitLeaving() {
	s.leaving.Lock()
	defer s.leaving.Unlock()
}

func (s *Store) treeIndexes(ctx context.Context) ([]IndexFile, error) {
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return nil, err
	}
	var list []IndexFile
	for _, ns := range spaces {
		for _, typ := range groupTypes {
			groups, err := s.readTreeDir(path.Join(namespacePath(ns), typ))
			if err != nil {
				return nil, fmt.Errorf("list groups: %w", err)
			}
			for _, g := range groups {
				if g.Type()&(fs.ModeDir|fs.ModeSymlink) == 0 {
					continue // not ours
				}
				if list, err = s.groupIndexes(ctx, wire.Group{NS: ns, Type: typ, ID: g.Name()}, list); err != nil {
					return nil, s.explainLink(path.Join(namespacePath(ns), typ, g.Name()), err)
				}
			}
		}
	}
	foreign, err := s.findStrays(ctx, spaces)
	if err != nil {
		return nil, err
	}
	s.tellStrays(foreign)
	return append(list, foreign.files...), nil
}

// explainLink tells why what a link leads to cannot be read: there may be snapshots,
// whose chunks a collection would take.
func (s *Store) explainLink(name string, err error) error {
	if _, e := s.root.Stat(name); e == nil || !s.isLink(name) {
		return err
	}
	return fmt.Errorf("%w: %s is a symbolic link that leads out of the repository; move what it leads to into its place, or remove it", err, name)
}

func (s *Store) isLink(name string) bool {
	st, err := s.root.Lstat(name)
	return err == nil && st.Mode()&fs.ModeSymlink != 0
}

// groupIndexes adds the indexes of a group to list.
func (s *Store) groupIndexes(ctx context.Context, g wire.Group, list []IndexFile) ([]IndexFile, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if g.Validate() != nil {
		return list, nil // not ours
	}
	entries, err := s.readDir(groupPath(g))
	if err != nil {
		return nil, fmt.Errorf("list group %s: %w", g, err)
	}
	for _, e := range entries {
		t, _, ok := snapshotTime(e.Name())
		if !ok || !e.IsDir() {
			continue // not ours
		}
		f := IndexFile{Snapshot: wire.Snapshot{Group: g, Time: t}}
		// One that is pending counts: it may be on the medium.
		if list, err = s.dirIndexes(path.Join(groupPath(g), e.Name()), f, list); err != nil {
			return nil, fmt.Errorf("list snapshot %s: %w", f.Snapshot, err)
		}
	}
	return list, nil
}

// trashIndexes adds the indexes of the trash to list. It looks into every
// directory there, also into one whose name or description makes no sense.
func (s *Store) trashIndexes(ctx context.Context, list []IndexFile) ([]IndexFile, error) {
	entries, err := s.readDir(trashDir)
	if err != nil {
		return nil, fmt.Errorf("list the trash: %w", err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		if !e.IsDir() {
			continue
		}
		before := len(list)
		f := IndexFile{Deleted: true, entry: e.Name()}
		if list, err = s.dirIndexes(path.Join(trashDir, e.Name(), trashedName), f, list); err != nil {
			return nil, fmt.Errorf("list the trash: %s: %w", e.Name(), err)
		}
		// Only now: where a snapshot belongs is written before it comes.
		snap, err := s.belongs(e.Name())
		if err != nil {
			return nil, fmt.Errorf("list the trash: %s: %w", e.Name(), err)
		}
		for i := range list[before:] {
			list[before+i].Snapshot = snap
		}
	}
	return list, nil
}

// belongs is the snapshot of an entry, or none if that cannot be understood.
func (s *Store) belongs(name string) (wire.Snapshot, error) {
	e, ok := trashEntry(name)
	if !ok {
		return wire.Snapshot{}, nil
	}
	w, err := s.where(e)
	if unusable(err) {
		return wire.Snapshot{}, nil
	}
	return w.snapshot(), err
}

// dirIndexes adds the indexes in the directory of a snapshot to list, which are
// described by like. One that has gone meanwhile has none.
func (s *Store) dirIndexes(dir string, like IndexFile, list []IndexFile) ([]IndexFile, error) {
	st, err := s.root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return list, nil
	}
	if err != nil {
		return nil, err
	}
	files, err := s.readDir(dir)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if kind, err := wire.CheckFileName(f.Name()); err == nil && kind != wire.Blob {
			like.Name, like.dir = f.Name(), st
			list = append(list, like)
		}
	}
	return list, nil
}

// ErrNotNamed is the doubt about an index that the manifest of its snapshot does not
// name.
var ErrNotNamed = errors.New("the manifest does not name it")

// Scope is what the chunks of an index are found by besides their names and sizes.
type Scope struct {
	// Class is that of the archive. Owner is whose copies it reads if it is
	// encrypted.
	Class chunkstore.Class
	Owner chunkstore.Owner
	// Doubt says why class or owner are not known, nil if they are: then every
	// chunk of the name may be meant.
	Doubt error
}

// Key returns what a chunk of the index is found by. It says nothing if there is doubt.
func (c Scope) Key(e index.Entry) chunkstore.Key {
	return chunkstore.Ref{ID: e.ID, Size: e.Size, Class: c.Class}.Key(c.Owner)
}

// Scope tells which chunks one of Indexes means. If that cannot be found out it says
// so, also when the index has been removed since.
func (s *Store) Scope(ctx context.Context, f IndexFile) Scope {
	s.returns.RLock()
	defer s.returns.RUnlock()
	for {
		dir, err := s.locate(f)
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return Scope{Doubt: err}
		}
		sc := s.scopeIn(ctx, dir, f)
		// If it has moved meanwhile, its group may have gone and come again for
		// somebody else.
		if again, err := s.locate(f); err == nil && again == dir {
			return sc
		}
	}
}

// scopeIn reads the scope of an index in the directory where its snapshot is. An index
// that the manifest does not name is of either class.
func (s *Store) scopeIn(ctx context.Context, dir string, f IndexFile) Scope {
	var class chunkstore.Class
	err := s.lookAt(ctx, dir, func(m *manifest.Manifest) error {
		if !slices.ContainsFunc(m.Files, func(a manifest.File) bool { return a.Name == f.Name }) {
			return fmt.Errorf("%s: %w", f.Name, ErrNotNamed)
		}
		class = m.ClassOf(f.Name)
		return nil
	})
	if err != nil {
		return Scope{Doubt: err}
	}
	copies, err := s.copiesIn(dir, f.Snapshot.Group)
	return Scope{Class: class, Owner: ownerTag(copies), Doubt: err}
}

// copiesIn tells whose copies a snapshot reads that lies in a directory of the trash,
// or else in its group: those of the group, unless it came back to one that was made
// again for somebody else.
func (s *Store) copiesIn(dir string, g wire.Group) (wire.AuthID, error) {
	entry, ok := strings.CutPrefix(path.Dir(dir), trashDir+"/")
	if !ok {
		own, err := s.readCopies(path.Join(dir, ownCopiesName))
		if errors.Is(err, chunkstore.ErrNotExist) {
			return s.Copies(g)
		}
		return own, err
	}
	e, ok := trashEntry(entry)
	if !ok {
		return "", fmt.Errorf("%s is no entry of the trash: %w", entry, chunkstore.ErrCorrupt)
	}
	w, err := s.where(e)
	if err == nil && w.Copies == "" {
		err = fmt.Errorf("%s of %s does not tell whose copies it reads: %w", whereName, entry, chunkstore.ErrCorrupt)
	}
	return w.Copies, err
}

// OpenIndex opens one of Indexes, wherever its snapshot is by now. One that has
// been removed for good since, with its whole snapshot, is
// chunkstore.ErrNotExist, and stays removed.
func (s *Store) OpenIndex(ctx context.Context, f IndexFile) (*index.Reader, error) {
	s.returns.RLock() // it can move once, from the tree to the trash
	defer s.returns.RUnlock()
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		dir, err := s.locate(f)
		if errors.Is(err, chunkstore.ErrNotExist) {
			s.awaitLeaving()
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		idx, err := s.openIndex(path.Join(dir, f.Name))
		if err == nil {
			return idx, nil
		}
		if !errors.Is(err, chunkstore.ErrNotExist) {
			return nil, fmt.Errorf("%s: %w", f, err)
		}
		if _, e := s.root.Lstat(dir); !errors.Is(e, fs.ErrNotExist) {
			return nil, fmt.Errorf("%s has vanished from its snapshot: %w", f, errors.Join(chunkstore.ErrCorrupt, e))
		}
	}
}

// locate finds the directory of the snapshot that an index was listed in. It is
// known again by its inode, because another one may have its name by now. On
// file systems that change inodes the name has to do.
func (s *Store) locate(f IndexFile) (string, error) {
	if f.place != "" {
		return s.locateStray(f)
	}
	var places []string
	if f.Deleted {
		places = append(places, path.Join(trashDir, f.entry, trashedName))
	}
	if f.Snapshot != (wire.Snapshot{}) {
		// In the order in which it is there.
		places = append(places, pendingPath(f.Snapshot), snapshotPath(f.Snapshot))
	}
	place, same, err := s.inode(f, places)
	if same || err != nil {
		return place, err
	}
	// Only now: what has left the tree before it was looked for is there.
	entries, err := s.readDir(trashDir)
	if err != nil {
		return "", fmt.Errorf("list the trash: %w", err)
	}
	places = nil
	for _, e := range entries {
		if e.IsDir() {
			places = append(places, path.Join(trashDir, e.Name(), trashedName))
		}
	}
	if other, same, err := s.inode(f, places); same || err != nil {
		return other, err
	}
	switch {
	case place != "":
		return place, nil
	case f.Snapshot == (wire.Snapshot{}):
		return "", fmt.Errorf("the snapshot has been removed: %w", chunkstore.ErrNotExist)
	}
	return s.locateByName(f, entries)
}

// locateByName finds a snapshot in the trash that is not known by its inode. One
// that may be in an entry that does not tell what it holds is not taken for
// removed.
func (s *Store) locateByName(f IndexFile, entries []fs.DirEntry) (string, error) {
	doubt := ""
	for _, e := range slices.Backward(entries) {
		if !e.IsDir() {
			continue
		}
		dir := path.Join(trashDir, e.Name(), trashedName)
		snap, err := s.belongs(e.Name())
		if err == nil && snap != f.Snapshot && snap != (wire.Snapshot{}) {
			continue
		}
		if err == nil {
			err = s.checkDir(dir)
		}
		switch {
		case errors.Is(err, chunkstore.ErrNotExist):
		case err != nil:
			return "", fmt.Errorf("look into the trash: %s: %w", e.Name(), err)
		case snap == f.Snapshot:
			return dir, nil
		default:
			doubt = dir
		}
	}
	if doubt != "" {
		return "", fmt.Errorf("it may be in %s, whose %s cannot be used: %w", doubt, whereName, chunkstore.ErrCorrupt)
	}
	return "", fmt.Errorf("the snapshot has been removed: %w", chunkstore.ErrNotExist)
}

// inode finds the directory that an index was listed in. If it is none of
// these, place is the first one that is there.
func (s *Store) inode(f IndexFile, dirs []string) (place string, same bool, err error) {
	for _, dir := range dirs {
		st, err := s.root.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return "", false, err
		}
		if os.SameFile(st, f.dir) {
			return dir, true, nil
		}
		if place == "" {
			place = dir
		}
	}
	return place, false, nil
}
