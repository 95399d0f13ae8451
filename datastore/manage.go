package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/wire"
)

// Forget implements wire.Manager. The snapshot leaves the tree by one rename,
// so that a crash leaves it whole or gone; its chunks stay.
func (s *Store) Forget(ctx context.Context, snap wire.Snapshot) error {
	if err := s.change(ctx, snap); err != nil {
		return err
	}
	protected, err := s.protected(snap)
	if err != nil {
		return err
	}
	if protected {
		return fmt.Errorf("snapshot %s: %w", snap, wire.ErrProtected)
	}
	dir := filepath.Join(s.path, snapshotPath(snap))
	trash := path.Join(tempDir, "forgotten-"+snap.Group.Type+"-"+snap.Group.ID+"-"+snap.TimeString())
	if err := s.root.RemoveAll(trash); err != nil {
		return fmt.Errorf("forget %s: %w", snap, err)
	}
	if err := durable.Rename(dir, filepath.Join(s.path, trash)); err != nil {
		return fmt.Errorf("forget %s: %w", snap, err)
	}
	if err := s.root.RemoveAll(trash); err != nil {
		return fmt.Errorf("forget %s: %w", snap, err)
	}
	return s.removeEmpty(snap.Group)
}

// removeEmpty removes a group's directory with its last snapshot.
func (s *Store) removeEmpty(g wire.Group) error {
	left, err := s.readDir(groupPath(g))
	if err != nil || len(left) > 0 {
		return err
	}
	return durable.Remove(filepath.Join(s.path, groupPath(g)))
}

// change checks that a snapshot is there and may be changed.
func (s *Store) change(ctx context.Context, snap wire.Snapshot) error {
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	return s.exists(snap)
}

func (s *Store) protected(snap wire.Snapshot) (bool, error) {
	_, err := s.root.Lstat(path.Join(snapshotPath(snap), protectedName))
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("snapshot %s: %w", snap, err) // never delete on doubt
	}
	return true, nil
}

// Notes implements wire.Manager.
func (s *Store) Notes(_ context.Context, snap wire.Snapshot) (string, error) {
	if err := s.exists(snap); err != nil {
		return "", err
	}
	m, err := s.manifest(snap)
	if err != nil {
		return "", err
	}
	return m.Notes(), nil
}

// notesMax caps a comment, in bytes.
const notesMax = 64 << 10

// SetNotes implements wire.Manager. Notes lie in the part of the manifest that
// the signature does not cover.
func (s *Store) SetNotes(ctx context.Context, snap wire.Snapshot, text string) error {
	if len(text) > notesMax {
		return fmt.Errorf("notes of %d bytes are longer than %d: %w", len(text), notesMax, chunkstore.ErrInvalid)
	}
	if err := s.change(ctx, snap); err != nil {
		return err
	}
	m, err := s.manifest(snap)
	if err != nil {
		return err
	}
	m.SetNotes(text)
	sealed, err := m.Seal()
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", snap, err)
	}
	name := filepath.Join(s.path, snapshotPath(snap), wire.ManifestName)
	if err := durable.WriteFile(name, sealed, 0o600); err != nil {
		return fmt.Errorf("snapshot %s: write notes: %w", snap, noSpace(err))
	}
	return nil
}

// SetProtected implements wire.Manager.
func (s *Store) SetProtected(ctx context.Context, snap wire.Snapshot, protected bool) error {
	if err := s.change(ctx, snap); err != nil {
		return err
	}
	name := filepath.Join(s.path, snapshotPath(snap), protectedName)
	var err error
	if protected {
		err = durable.WriteFile(name, nil, 0o600)
	} else {
		err = durable.Remove(name)
	}
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", snap, noSpace(err))
	}
	return nil
}
