package datastore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack"
	"holdfast/datastore/wire"
)

// Scrub reads every stored byte of the chunk store and quarantines what is
// damaged, see pack.Store.Scrub. A store opened for reading keeps no dates.
func (s *Store) Scrub(ctx context.Context, o pack.ScrubOptions) (pack.ScrubReport, error) {
	chunks, err := s.chunkStore(ctx)
	if err != nil {
		return pack.ScrubReport{}, err
	}
	return chunks.Scrub(ctx, o)
}

// Stat tells the sizes of a chunk that can be read as far as is known, or
// chunkstore.ErrNotExist.
func (s *Store) Stat(ctx context.Context, id chunkstore.ID) (chunkstore.Info, error) {
	chunks, err := s.chunkStore(ctx)
	if err != nil {
		return chunkstore.Info{}, err
	}
	return chunks.Stat(ctx, id)
}

// Packs lists the packs with the dates of their last good checks.
func (s *Store) Packs(ctx context.Context) ([]pack.PackStatus, error) {
	chunks, err := s.chunkStore(ctx)
	if err != nil {
		return nil, err
	}
	return chunks.Packs(ctx)
}

// Salvage rebuilds damaged chunks from what is there and removes nothing, see
// pack.Store.Salvage.
func (s *Store) Salvage(ctx context.Context) (pack.SalvageReport, error) {
	chunks, err := s.writable(ctx)
	if err != nil {
		return pack.SalvageReport{}, err
	}
	return chunks.Salvage(ctx)
}

// FreeReserve makes room on a full disk until take is called, see
// pack.Store.FreeReserve.
func (s *Store) FreeReserve(ctx context.Context) (take func(), err error) {
	chunks, err := s.writable(ctx)
	if err != nil {
		return nil, err
	}
	return chunks.FreeReserve(ctx)
}

// Broken lists the snapshots in the tree that have lost their manifest, which no
// other list shows. A snapshot gets its place whole, so this is always damage.
// Their chunks are kept. With an error the list is of what was seen before.
func (s *Store) Broken(ctx context.Context) ([]wire.Snapshot, error) {
	spaces, err := s.Namespaces(ctx, "")
	if err != nil {
		return nil, err
	}
	var list []wire.Snapshot
	for _, ns := range spaces {
		groups, err := s.groupDirs(ns)
		if err != nil {
			return list, err
		}
		for _, g := range groups {
			if list, err = s.groupBroken(ctx, g, list); err != nil {
				return list, err
			}
		}
	}
	return list, nil
}

// groupBroken adds the broken snapshots of a group to list.
func (s *Store) groupBroken(ctx context.Context, g wire.Group, list []wire.Snapshot) ([]wire.Snapshot, error) {
	if err := ctx.Err(); err != nil {
		return list, err
	}
	entries, err := s.readDir(groupPath(g))
	if err != nil {
		return list, fmt.Errorf("list group %s: %w", g, err)
	}
	for _, e := range entries {
		t, err := wire.ParseTime(e.Name())
		if err != nil || !e.IsDir() {
			continue // not ours
		}
		snap := wire.Snapshot{Group: g, Time: t}
		broken, err := s.broken(snap)
		if err != nil {
			return list, err
		}
		if broken {
			list = append(list, snap)
		}
	}
	return list, nil
}

// broken reports whether the directory of a snapshot is there and its manifest
// is not.
func (s *Store) broken(snap wire.Snapshot) (bool, error) {
	finished, err := s.finished(snap)
	if err != nil || finished {
		return false, err
	}
	// While it is held nobody removes it between the looks.
	release, err := s.locks.hold(snap)
	if errors.Is(err, wire.ErrBusy) {
		return false, nil // it is being removed
	}
	if err != nil {
		return false, err
	}
	defer release()
	_, err = s.root.Lstat(snapshotPath(snap))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("look at snapshot %s: %w", snap, err)
	}
	finished, err = s.finished(snap)
	return err == nil && !finished, err
}

// RestoreConfig makes the configuration of a store anew if it is missing or
// damaged while the chunk store is there. It reports whether it has. Settings
// that the lost one held take their defaults.
func RestoreConfig(path string) (bool, error) {
	_, err := readConfig(path)
	if err == nil || !errors.Is(err, ErrNoStore) && !errors.Is(err, chunkstore.ErrCorrupt) {
		return false, err
	}
	if st, serr := os.Stat(filepath.Join(path, chunksDir, "packs")); serr != nil || !st.IsDir() {
		return false, err
	}
	raw, err := json.Marshal(newConfig(nil))
	if err != nil {
		return false, fmt.Errorf("restore configuration: %w", err)
	}
	if err := durable.WriteFile(filepath.Join(path, configName), append(raw, '\n'), 0o600); err != nil {
		return false, fmt.Errorf("restore configuration: %w", noSpace(err))
	}
	return true, nil
}
