package datastore

import (
	"context"
	"errors"
	"io/fs"
	"strings"

	"holdfast/chunkstore"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Usage is what a snapshot counts, wherever it lies.
type Usage struct {
	Snapshot wire.Snapshot
	Owner    wire.AuthID // of its group, "" if not known
	// Bytes are those that a restore brings back, or those of its files where these
	// are more: EntryBytes for each entry of an index.
	Bytes uint64
}

// EntryBytes is the least that a reference to a chunk counts, in bytes: the entry, and
// what the smallest chunk takes in a pack and in the catalogue.
const EntryBytes = 320

// FileBytes is the least that a file of a snapshot counts, in bytes: what the smallest
// takes on a disk, and its name.
const FileBytes = 4096

// indexHeader is what an index file has before its entries, in bytes.
const indexHeader = 4096

// entryGrowth is how much more an entry counts than it takes in its index file.
const entryGrowth = 8

// EachUsage tells what every snapshot counts, those in the trash too. One that goes
// meanwhile may be left out.
func (s *Store) EachUsage(ctx context.Context, visit func(Usage) error) error {
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return err
	}
	for _, ns := range spaces {
		groups, err := s.groupDirs(ns)
		if errors.Is(err, fs.ErrNotExist) || errors.Is(err, chunkstore.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		for _, g := range groups {
			if err := s.groupUsage(ctx, g, visit); err != nil {
				return err
			}
		}
	}
	return s.trashUsage(ctx, visit)
}

// UsageOf tells what a snapshot counts in its place and, under the same name, in the
// trash.
func (s *Store) UsageOf(ctx context.Context, snap wire.Snapshot) (list []Usage, err error) {
	n, there, err := s.usage(ctx, snap)
	if err != nil {
		return nil, err
	}
	if owner, err := s.owner(snap.Group); err == nil && there {
		list = append(list, Usage{Snapshot: snap, Owner: owner, Bytes: n})
	}
	entries, _, err := s.find(snap)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		u, there, err := s.entryUsage(ctx, e)
		if err != nil {
			return nil, err
		}
		if there {
			list = append(list, u)
		}
	}
	return list, nil
}

func (s *Store) groupUsage(ctx context.Context, g wire.Group, visit func(Usage) error) error {
	times, err := s.times(g)
	if err != nil {
		return err
	}
	owner, err := s.owner(g)
	if err != nil {
		owner = "" // it is for Owner to tell
	}
	for _, t := range times {
		if err := ctx.Err(); err != nil {
			return err
		}
		snap := wire.Snapshot{Group: g, Time: t}
		n, there, err := s.usage(ctx, snap)
		if err == nil && there {
			err = visit(Usage{Snapshot: snap, Owner: owner, Bytes: n})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *Store) trashUsage(ctx context.Context, visit func(Usage) error) error {
	entries, err := s.trash()
	if err != nil {
		return err
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		u, there, err := s.entryUsage(ctx, e)
		if unusable(err) {
			continue // it is for Deleted to tell
		}
		if err == nil && there {
			err = visit(u)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// usage tells what a snapshot of the tree counts, in bytes. It is found out once.
func (s *Store) usage(ctx context.Context, snap wire.Snapshot) (bytes uint64, there bool, err error) {
	if n, ok := s.counted.of(snap); ok {
		return n, true, nil
	}
	done, err := s.turns.Read(ctx)
	if err != nil {
		return 0, false, err
	}
	defer done()
	defer s.locks.edit(snap)()
	if n, ok := s.counted.of(snap); ok {
		return n, true, nil
	}
	bytes, there, err = s.filesUsage(ctx, snapshotPath(snap))
	if err == nil && there && !s.opts.ReadOnly { // or somebody else changes it
		s.counted.put(snap, bytes)
	}
	return bytes, there, err
}

// entryUsage is usage for an entry of the trash.
func (s *Store) entryUsage(ctx context.Context, e trashed) (u Usage, there bool, err error) {
	if u, ok := s.counted.ofEntry(e); ok {
		return u, true, nil
	}
	w, err := s.where(e)
	if err != nil {
		return Usage{}, false, err
	}
	done, err := s.turns.Read(ctx)
	if err != nil {
		return Usage{}, false, err
	}
	defer done()
	defer s.locks.edit(w.snapshot())()
	if u, ok := s.counted.ofEntry(e); ok {
		return u, true, nil
	}
	if w, err = s.where(e); err != nil { // it may be somebody else's by now
		return Usage{}, false, err
	}
	u = Usage{Snapshot: w.snapshot(), Owner: w.Owner}
	u.Bytes, there, err = s.filesUsage(ctx, e.snapshot())
	if err == nil && there && !s.opts.ReadOnly {
		s.counted.putEntry(e, u)
	}
	return u, there, err
}

// filesUsage sums what the files of a snapshot count that lies in a directory. The
// caller has a turn to read its manifest, and the edit lock of the snapshot.
func (s *Store) filesUsage(ctx context.Context, dir string) (total uint64, there bool, err error) {
	_, err = s.root.Lstat(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, false, nil
	}
	if err != nil {
		return 0, false, err
	}
	names, err := s.readDir(dir)
	if err != nil {
		return 0, false, err
	}
	s.step("counted")
	logical := s.logicalSizes(ctx, dir)
	if err := ctx.Err(); err != nil {
		return 0, false, err
	}
	for _, name := range names {
		st, err := name.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, false, err
		}
		n := uint64(st.Size())
		if !strings.HasPrefix(name.Name(), ".") { // a mark
			n = max(n, FileBytes)
		}
		if kind, err := wire.CheckFileName(name.Name()); err == nil && kind != wire.Blob {
			n = FileBytes + max((n-min(n, indexHeader))*entryGrowth, logical[name.Name()])
		}
		total += n
	}
	return total, true, nil
}

// logicalSizes are what the manifest in a directory says of its archives; a manifest
// that cannot be read says nothing.
func (s *Store) logicalSizes(ctx context.Context, dir string) map[string]uint64 {
	sizes := make(map[string]uint64)
	_, err := s.useManifest(ctx, dir, func(m *manifest.Manifest) error {
		for _, f := range m.Files {
			sizes[f.Name] = f.Size
		}
		return nil
	})
	if err != nil {
		return nil
	}
	return sizes
}
