package datastore

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack"
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
func (s *Store) Stat(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	chunks, err := s.chunkStore(ctx)
	if err != nil {
		return chunkstore.Info{}, err
	}
	return chunks.Stat(ctx, k)
}

// Check compares a chunk on the medium with its recorded SHA-256. It needs no key.
func (s *Store) Check(ctx context.Context, k chunkstore.Key) error {
	chunks, err := s.chunkStore(ctx)
	if err != nil {
		return err
	}
	return chunks.Check(ctx, k)
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

// freeReserve makes room on a full disk until take is called, see
// pack.Store.FreeReserve.
func (s *Store) freeReserve(ctx context.Context) (take func(), err error) {
	chunks, err := s.writable(ctx)
	if err != nil {
		return nil, err
	}
	return chunks.FreeReserve(ctx)
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
