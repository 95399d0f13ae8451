package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// What lies in the directory of a store and is not of it: file managers, file
// systems and people leave things everywhere. A foreign file is let be: it is
// neither read nor removed, and it is nobody's doubt. A foreign directory may be
// part of the store whose name is damaged, so a collection keeps what the
// indexes in it refer to.

// litter is what file systems and file managers put into a directory by
// themselves, in lower case.
var litter = []string{
	"lost+found", ".ds_store", "thumbs.db", "desktop.ini", "system volume information", "$recycle.bin",
	"@eadir", ".snapshots", ".zfs", ".directory", ".stfolder",
}

// isLitter reports whether a name is one of those, or of the trash of a desktop.
func isLitter(name string) bool {
	name = strings.ToLower(name)
	return slices.Contains(litter, name) || strings.HasPrefix(name, ".trash-") || strings.HasPrefix(name, "._")
}

// strayDepthMax is how deep a foreign directory is looked into: as deep as the
// deepest namespace, with its groups and snapshots.
const strayDepthMax = 2*wire.NamespaceDepthMax + 3

// readTreeDir lists a directory of namespaces or groups; one that is not there
// is empty. A file that has the place of the directory is foreign.
func (s *Store) readTreeDir(dir string) ([]fs.DirEntry, error) {
	names, err := s.readDir(dir)
	if errors.Is(err, unix.ENOTDIR) && s.noDir(dir) {
		return nil, nil
	}
	return names, err
}

// noDir reports whether what a path of the store names is no directory, for sure.
func (s *Store) noDir(name string) bool {
	st, err := s.root.Lstat(name)
	return err == nil && !st.IsDir()
}

// checkPlace returns an error if a foreign file has the place of a directory
// that a group needs, so that a backup is refused before it begins.
func (s *Store) checkPlace(g wire.Group) error {
	for dir := groupPath(g); dir != "."; dir = path.Dir(dir) {
		st, err := s.root.Lstat(dir)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENOTDIR) {
			continue // what is above it tells
		}
		if err != nil {
			return fmt.Errorf("backup group %s: %w", g, err)
		}
		if !st.IsDir() && st.Mode()&fs.ModeSymlink == 0 {
			return fmt.Errorf("backup group %s: the file %s has the place of a directory and is not part of the repository; move it away: %w",
				g, dir, wire.ErrExists)
		}
	}
	return nil
}

// strays are the foreign directories of a tree.
type strays struct {
	dirs  []string
	files []IndexFile // in them
}

// findStrays looks for directories in the tree whose names are none that the
// store gives, and for the indexes in them.
func (s *Store) findStrays(ctx context.Context, spaces []wire.Namespace) (strays, error) {
	var all strays
	for _, ns := range spaces {
		dir := namespacePath(ns)
		if err := s.straysIn(ctx, &all, dir, func(name string) bool { return ofNamespace(name, ns == "") }); err != nil {
			return all, err
		}
		below := func(name string) bool {
			_, err := wire.ParseNamespace(path.Join(string(ns), name))
			return err == nil
		}
		if err := s.straysIn(ctx, &all, path.Join(dir, nsDir), below); err != nil {
			return all, err
		}
		for _, typ := range groupTypes {
			if err := s.straysOfType(ctx, &all, ns, typ); err != nil {
				return all, err
			}
		}
	}
	return all, nil
}

// straysOfType looks into the groups of one type.
func (s *Store) straysOfType(ctx context.Context, all *strays, ns wire.Namespace, typ string) error {
	dir := path.Join(namespacePath(ns), typ)
	isGroup := func(name string) bool { return wire.CheckSafeID("backup id", name) == nil }
	if err := s.straysIn(ctx, all, dir, isGroup); err != nil {
		return err
	}
	groups, err := s.readTreeDir(dir)
	if err != nil {
		return fmt.Errorf("list groups: %w", err)
	}
	isTime := func(name string) bool { _, _, ok := snapshotTime(name); return ok }
	for _, g := range groups {
		if !g.IsDir() || !isGroup(g.Name()) {
			continue
		}
		if err := s.straysIn(ctx, all, path.Join(dir, g.Name()), isTime); err != nil {
			return err
		}
	}
	return nil
}

// ofNamespace reports whether a directory of a namespace is one that the store
// makes. Those of the root that begin with a dot are the store's own, or litter.
func ofNamespace(name string, root bool) bool {
	return slices.Contains(groupTypes, name) || name == nsDir || root && strings.HasPrefix(name, ".")
}

// straysIn notes the directories in one whose names are not ours, with the
// indexes in them.
func (s *Store) straysIn(ctx context.Context, all *strays, dir string, ours func(name string) bool) error {
	names, err := s.readTreeDir(dir)
	if err != nil {
		return fmt.Errorf("list %s: %w", dir, err)
	}
	for _, n := range names {
		if !n.IsDir() || ours(n.Name()) {
			continue
		}
		sub := path.Join(dir, n.Name())
		before := len(all.files)
		if all.files, err = s.strayIndexes(ctx, sub, all.files, strayDepthMax); err != nil {
			if isLitter(n.Name()) && errors.Is(err, fs.ErrPermission) {
				continue // lost+found is root's; the store has never been in there
			}
			return fmt.Errorf("look into %s, which may be a part of the repository with a damaged name: %w", sub, err)
		}
		if !isLitter(n.Name()) || len(all.files) > before {
			all.dirs = append(all.dirs, sub)
		}
	}
	return nil
}

// strayIndexes adds the indexes in a foreign directory, and below it, to list.
// Links are not followed.
func (s *Store) strayIndexes(ctx context.Context, dir string, list []IndexFile, depth int) ([]IndexFile, error) {
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	if depth == 0 {
		return list, nil
	}
	// Not with dirIndexes: a damaged name may be no UTF-8, which fs.FS refuses.
	d, err := durable.OpenDirIn(s.root, dir)
	if err != nil {
		return nil, err
	}
	st, err := d.Stat()
	var names []fs.DirEntry
	if err == nil {
		names, err = d.ReadDir(-1)
	}
	if err = errors.Join(err, d.Close()); err != nil {
		return nil, err
	}
	for _, n := range names {
		if kind, err := wire.CheckFileName(n.Name()); err == nil && kind != wire.Blob {
			list = append(list, IndexFile{Name: n.Name(), place: dir, dir: st})
		}
	}
	for _, n := range names {
		if !n.IsDir() {
			continue
		}
		if list, err = s.strayIndexes(ctx, path.Join(dir, n.Name()), list, depth-1); err != nil {
			return nil, err
		}
	}
	return list, nil
}

// tellStrays warns of foreign directories.
func (s *Store) tellStrays(all strays) {
	const most = 20
	for i, dir := range all.dirs {
		if s.opts.Notify == nil || i == most {
			return
		}
		kept := "nothing in it looks like a snapshot"
		n := slices.ContainsFunc(all.files, func(f IndexFile) bool { return f.place == dir || strings.HasPrefix(f.place, dir+"/") })
		if n {
			kept = "what the indexes in it refer to is kept"
		}
		s.opts.Notify(fmt.Sprintf("%s is no name that the repository gives; %s; move it away, or give it its name back", path.Join(s.path, dir), kept))
	}
}

// locateStray finds the directory of an index that was found in a foreign directory. One that has
// gone since is an error: nobody of the store removes it.
func (s *Store) locateStray(f IndexFile) (string, error) {
	dir, same, err := s.inode(f, []string{f.place})
	if err == nil && !same {
		err = fmt.Errorf("%s has been moved since it was listed: %w", f.place, chunkstore.ErrCorrupt)
	}
	return dir, err
}
