package datastore

import (
	"cmp"
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
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// protectedName is the empty file that marks a protected snapshot.
const protectedName = ".protected"

// namespacePath returns the directory of a namespace below the store's.
func namespacePath(ns wire.Namespace) string {
	p := "."
	for _, c := range ns.Components() {
		p = path.Join(p, nsDir, c)
	}
	return p
}

func groupPath(g wire.Group) string { return path.Join(namespacePath(g.NS), g.Type, g.ID) }

func snapshotPath(s wire.Snapshot) string { return path.Join(groupPath(s.Group), s.TimeString()) }

// readDir lists a directory of the tree; one that is not there is empty.
func (s *Store) readDir(dir string) ([]fs.DirEntry, error) {
	names, err := durable.ReadDirIn(s.root, dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return names, err
}

// Namespaces implements wire.Source.
func (s *Store) Namespaces(ctx context.Context, parent wire.Namespace) ([]wire.Namespace, error) {
	if _, err := wire.ParseNamespace(string(parent)); err != nil {
		return nil, err
	}
	// One that is being made is not told before it is durable.
	s.making.RLock()
	defer s.making.RUnlock()
	return s.namespaces(ctx, parent)
}

func (s *Store) namespaces(ctx context.Context, parent wire.Namespace) ([]wire.Namespace, error) {
	if err := s.checkNamespace(parent); err != nil {
		return nil, err
	}
	list := []wire.Namespace{parent}
	names, err := s.readTreeDir(path.Join(namespacePath(parent), nsDir))
	if err != nil {
		return nil, fmt.Errorf("list namespace %q: %w", parent, err)
	}
	for _, n := range names {
		child, err := wire.ParseNamespace(path.Join(string(parent), n.Name()))
		if err != nil || !n.IsDir() {
			continue // not ours
		}
		below, err := s.namespaces(ctx, child)
		if err != nil {
			return nil, err
		}
		list = append(list, below...)
	}
	return list, ctx.Err()
}

func (s *Store) groupInfo(ctx context.Context, g OwnedGroup) (wire.GroupInfo, error) {
	info := wire.GroupInfo{Group: g.Group, Owner: g.Owner}
	times, err := s.times(g.Group)
	if err != nil || len(times) == 0 {
		return info, err
	}
	info.Count, info.LastTime = len(times), s.newest(g.Group, times).Claimed
	// What cannot be read of the notes is for GroupNotes to tell; it must not
	// hide the group.
	if notes, err := s.readNotes(g.Group); err == nil {
		info.Comment, _, _ = strings.Cut(notes, "\n")
	}
	last, err := s.snapshotInfo(ctx, wire.Snapshot{Group: g.Group, Time: info.LastTime})
	for _, f := range last.Files {
		info.LastFiles = append(info.LastFiles, f.Name)
	}
	return info, err
}

// times lists the times in the names of a group's snapshots, the least first.
func (s *Store) times(g wire.Group) ([]int64, error) {
	names, err := s.readDir(groupPath(g))
	if err != nil {
		return nil, fmt.Errorf("list group %s: %w", g, err)
	}
	var times []int64
	for _, n := range names {
		t, err := wire.ParseTime(n.Name())
		if err != nil {
			t, err = s.foldedTime(g, n.Name())
		}
		if err == nil && n.IsDir() { // otherwise it is not ours
			times = append(times, t)
		}
	}
	slices.SortFunc(times, cmp.Compare[int64])
	return slices.Compact(times), nil
}

// there reports whether a snapshot is in the tree. It gets there whole, so one
// without a manifest is one that is damaged, and is there all the same: it can
// be listed, verified and forgotten.
func (s *Store) there(snap wire.Snapshot) (bool, error) {
	st, err := s.root.Lstat(snapshotPath(snap))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at snapshot %s: %w", snap, err)
	}
	return st.IsDir(), nil
}

// exists checks a snapshot's name, and that it is there.
func (s *Store) exists(snap wire.Snapshot) error {
	if err := snap.Validate(); err != nil {
		return err
	}
	if _, err := wire.ParseNamespace(string(snap.Group.NS)); err != nil {
		return err
	}
	ok, err := s.there(snap)
	if err == nil && !ok {
		err = fmt.Errorf("snapshot %s: %w", snap, chunkstore.ErrNotExist)
	}
	return err
}

// snapshotInfo reads a manifest for a listing; one that is damaged is told, not
// an error, so that the others can be listed.
func (s *Store) snapshotInfo(ctx context.Context, snap wire.Snapshot) (wire.SnapshotInfo, error) {
	info := wire.SnapshotInfo{Snapshot: snap}
	if err := ctx.Err(); err != nil {
		return info, err
	}
	done, err := s.turns.Read(ctx)
	if err != nil {
		return info, err
	}
	defer done()
	// What is being changed is not told before it is durable.
	defer s.locks.edit(snap)()
	var unsure error
	info.Protected, unsure = s.protectedAt(snapshotPath(snap))
	names, err := s.files(snap)
	if err != nil {
		return info, err
	}
	size, err := s.useManifest(ctx, snapshotPath(snap), func(m *manifest.Manifest) error {
		describe(&info, m)
		return nil
	})
	if e := ctx.Err(); e != nil {
		return info, e // who has gone has found no damage
	}
	if err != nil {
		err = fmt.Errorf("snapshot %s: %w", snap, err)
	}
	if err := errors.Join(unsure, err); err != nil {
		info.Damage = err.Error()
	}
	info.ManifestSize = uint64(size)
	info.Extra = slices.DeleteFunc(names, func(name string) bool {
		named := func(f wire.FileInfo) bool { return f.Name == name }
		return name == wire.ManifestName || slices.ContainsFunc(info.Files, named)
	})
	return info, nil
}

// describe fills in what the manifest says.
func describe(info *wire.SnapshotInfo, m *manifest.Manifest) {
	for _, f := range m.Files {
		info.Files = append(info.Files, wire.FileInfo{Name: f.Name, CryptMode: string(f.CryptMode), Size: f.Size})
		info.Size += f.Size
	}
	info.Notes, info.Signed = m.Notes(), m.Signature != ""
	if fp, ok, err := m.KeyFingerprint(); err == nil && ok {
		info.Fingerprint = fp.String()
	}
	if v, ok := m.Verification(); ok {
		info.Verify = &wire.VerifyState{State: v.State, UPID: v.UPID}
	}
}

// readFile reads a file of the tree of at most limit bytes.
func (s *Store) readFile(name string, limit int64) ([]byte, error) {
	f, err := durable.OpenIn(s.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("%s: %w", path.Base(name), chunkstore.ErrNotExist)
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return durable.ReadCapped(f, limit)
}

// noSpace marks errors of a full disk.
func noSpace(err error) error {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		return fmt.Errorf("%w: %w", chunkstore.ErrNoSpace, err)
	}
	return err
}
