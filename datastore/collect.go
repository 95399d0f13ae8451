package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// BeginSweep begins the removal of chunks without use. What is in use has to be
// found out after it, with EachIndex.
func (s *Store) BeginSweep(ctx context.Context) (*pack.Sweep, error) {
	chunks, err := s.writable(ctx)
	if err != nil {
		return nil, err
	}
	return chunks.BeginSweep(ctx)
}

// IndexFile is one index of one snapshot.
type IndexFile struct {
	Snapshot wire.Snapshot
	Name     string
}

// String names the file for messages.
func (f IndexFile) String() string {
	if f.Snapshot.Group.NS == "" {
		return f.Snapshot.String() + "/" + f.Name
	}
	return string(f.Snapshot.Group.NS) + ": " + f.Snapshot.String() + "/" + f.Name
}

// Indexes lists every index of every snapshot, whether its manifest names it
// or not. Anything that cannot be listed is an error: whoever removes what is
// not referred to must have seen everything.
func (s *Store) Indexes(ctx context.Context) ([]IndexFile, error) {
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return nil, err
	}
	var list []IndexFile
	for _, ns := range spaces {
		for _, typ := range []string{"ct", "host", "vm"} {
			groups, err := s.readDir(path.Join(namespacePath(ns), typ))
			if err != nil {
				return nil, fmt.Errorf("list groups: %w", err)
			}
			for _, g := range groups {
				if list, err = s.groupIndexes(ctx, wire.Group{NS: ns, Type: typ, ID: g.Name()}, list); err != nil {
					return nil, err
				}
			}
		}
	}
	return list, nil
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
		t, err := wire.ParseTime(e.Name())
		if err != nil || !e.IsDir() {
			continue // not ours
		}
		snap := wire.Snapshot{Group: g, Time: t}
		files, err := s.readDir(snapshotPath(snap))
		if err != nil {
			return nil, fmt.Errorf("list snapshot %s: %w", snap, err)
		}
		for _, f := range files {
			if kind, err := wire.CheckFileName(f.Name()); err == nil && kind != wire.Blob {
				list = append(list, IndexFile{snap, f.Name()})
			}
		}
	}
	return list, nil
}

// OpenIndex opens one of Indexes. One that has been removed since, with its
// whole snapshot, is chunkstore.ErrNotExist.
func (s *Store) OpenIndex(ctx context.Context, f IndexFile) (*index.Reader, error) {
	r := &reader{store: s, snap: f.Snapshot}
	idx, err := r.Index(ctx, f.Name)
	if !errors.Is(err, chunkstore.ErrNotExist) {
		return idx, err
	}
	if _, e := s.root.Lstat(snapshotPath(f.Snapshot)); !errors.Is(e, fs.ErrNotExist) {
		return nil, fmt.Errorf("snapshot %s: %s has vanished from it: %w", f.Snapshot, f.Name, chunkstore.ErrCorrupt)
	}
	return nil, err
}
