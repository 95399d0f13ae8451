package datastore

import (
	"context"
	"errors"
	"io/fs"
	"path"

	"holdfast/chunkstore"
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
func (s *Store) UsageOf(snap wire.Snapshot) (list []Usage, err error) {
	n, err := s.filesUsage(snapshotPath(snap))
	if err != nil {
		return nil, err
	}
	if owner, err := s.owner(snap.Group); err == nil && n > 0 {
		list = append(list, Usage{Snapshot: snap, Owner: owner, Bytes: n})
	}
	entries, _, err := s.find(snap)
	if err != nil {
		return nil, err
	}
	for _, e := range entries {
		w, err := s.where(e)
		if err != nil {
			return nil, err
		}
		if n, err = s.filesUsage(e.snapshot()); err != nil {
			return nil, err
		}
		list = append(list, Usage{Snapshot: snap, Owner: w.Owner, Bytes: n})
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
		n, err := s.filesUsage(snapshotPath(snap))
		if err == nil {
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
		w, err := s.where(e)
		if err != nil {
			continue // it is for Deleted to tell
		}
		n, err := s.filesUsage(e.snapshot())
		if err == nil {
			err = visit(Usage{Snapshot: w.snapshot(), Owner: w.Owner, Bytes: n})
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// filesUsage sums what the files of a snapshot count that lies in a directory.
func (s *Store) filesUsage(dir string) (total uint64, err error) {
	names, err := s.readDir(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return 0, nil
	}
	if err != nil {
		return 0, err
	}
	logical := s.logicalSizes(dir)
	for _, name := range names {
		st, err := name.Info()
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return 0, err
		}
		n := uint64(st.Size())
		if kind, err := wire.CheckFileName(name.Name()); err == nil && kind != wire.Blob {
			n = max((n-min(n, indexHeader))*entryGrowth, logical[name.Name()])
		}
		total += n
	}
	return total, nil
}

// logicalSizes are what the manifest in a directory says of its archives; a manifest
// that cannot be read says nothing.
func (s *Store) logicalSizes(dir string) map[string]uint64 {
	sealed, err := s.readFile(path.Join(dir, wire.ManifestName), chunkstore.SealedSizeMax)
	if err != nil {
		return nil
	}
	m, err := s.openManifest(sealed)
	if err != nil {
		return nil
	}
	sizes := make(map[string]uint64, len(m.Files))
	for _, f := range m.Files {
		sizes[f.Name] = f.Size
	}
	return sizes
}
