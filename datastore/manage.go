package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Forget implements wire.Manager. The snapshot leaves the tree by one rename,
// so that a crash leaves it there or in the trash, from where RestoreDeleted
// brings it back until it has been there for the trash time. One that is being
// read, or that a running backup builds on, is wire.ErrBusy.
func (s *Store) Forget(ctx context.Context, snap wire.Snapshot) error {
	return s.forgetFor(ctx, nil, snap)
}

func (s *Store) forgetFor(ctx context.Context, may Guard, snap wire.Snapshot) error {
	if err := s.forget(ctx, may, snap, s.takeAway); err != nil {
		return err
	}
	return s.removeEmpty(may, snap.Group)
}

// takeAway moves a snapshot to the trash, or removes it if the store has none.
func (s *Store) takeAway(snap wire.Snapshot) error {
	if s.trashTime == 0 {
		return s.destroySnapshot(snap)
	}
	return s.throw(snap)
}

// forget has takeAway take a snapshot out of the tree, if that may be done.
func (s *Store) forget(ctx context.Context, may Guard, snap wire.Snapshot, takeAway func(wire.Snapshot) error) error {
	defer s.locks.edit(snap.Group)() // so that the group does not go meanwhile
	defer s.locks.edit(snap)()
	if err := s.change(ctx, may, snap); err != nil {
		return err
	}
	release, err := s.locks.remove(snap)
	if err != nil {
		return err
	}
	defer release()
	defer s.counted.forget(snap)
	protected, err := s.protectedAt(snapshotPath(snap))
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", snap, err)
	}
	if protected {
		return fmt.Errorf("snapshot %s: %w", snap, wire.ErrProtected)
	}
	if err := takeAway(snap); err != nil {
		return fmt.Errorf("forget %s: %w", snap, err)
	}
	return nil
}

// change checks that a snapshot is there and may be changed. The caller has its edit
// lock and that of its group.
func (s *Store) change(ctx context.Context, may Guard, snap wire.Snapshot) error {
	if _, err := s.writable(ctx); err != nil {
		return err
	}
	if err := s.exists(snap); err != nil {
		return err
	}
	return s.ask(may, snap.Group)
}

// Notes implements wire.Manager.
func (s *Store) Notes(ctx context.Context, snap wire.Snapshot) (text string, err error) {
	if err := s.exists(snap); err != nil {
		return "", err
	}
	done, err := s.turns.Read(ctx)
	if err != nil {
		return "", err
	}
	defer done()
	defer s.locks.edit(snap)()
	_, err = s.useManifest(ctx, snapshotPath(snap), func(m *manifest.Manifest) error {
		text = m.Notes()
		return nil
	})
	if err != nil {
		return "", fmt.Errorf("snapshot %s: %w", snap, err)
	}
	return text, nil
}

// notesMax caps a comment, in bytes.
const notesMax = wire.NotesSizeMax

func checkNotes(text string) error {
	if len(text) > notesMax {
		return fmt.Errorf("notes of %d bytes are longer than %d: %w", len(text), notesMax, chunkstore.ErrInvalid)
	}
	return nil
}

// SetNotes implements wire.Manager. Notes lie in the part of the manifest that
// the signature does not cover.
func (s *Store) SetNotes(ctx context.Context, snap wire.Snapshot, text string) error {
	return s.setNotes(ctx, nil, snap, text)
}

func (s *Store) setNotes(ctx context.Context, may Guard, snap wire.Snapshot, text string) error {
	if err := checkNotes(text); err != nil {
		return err
	}
	return s.editManifest(ctx, may, snap, func(m *manifest.Manifest) error {
		m.SetNotes(text)
		return nil
	})
}

// upidMax caps the name of a task in a manifest, in bytes.
const upidMax = 1024

// SetVerifyState records what a verification of a snapshot has found, in the
// part of the manifest that the signature does not cover.
func (s *Store) SetVerifyState(ctx context.Context, snap wire.Snapshot, v wire.VerifyState) error {
	if v.State != wire.VerifyOK && v.State != wire.VerifyFailed || len(v.UPID) > upidMax {
		return fmt.Errorf("snapshot %s: the result of a verification is %q or %q: %w", snap, wire.VerifyOK, wire.VerifyFailed, chunkstore.ErrInvalid)
	}
	return s.editManifest(ctx, nil, snap, func(m *manifest.Manifest) error {
		return m.SetVerification(manifest.Verification{State: v.State, UPID: v.UPID})
	})
}

// editManifest rewrites the unprotected part of a manifest. Changes of one
// snapshot come one after the other, so that none is lost.
func (s *Store) editManifest(ctx context.Context, may Guard, snap wire.Snapshot, edit func(*manifest.Manifest) error) error {
	done, err := s.turns.Read(ctx)
	if err != nil {
		return err
	}
	defer done()
	defer s.locks.edit(snap.Group)() // so that the group stays whose it is
	defer s.locks.edit(snap)()
	if err := s.change(ctx, may, snap); err != nil {
		return err
	}
	var raw chunkstore.Blob
	_, err = s.useManifest(ctx, snapshotPath(snap), func(m *manifest.Manifest) error {
		if err := edit(m); err != nil {
			return err
		}
		raw, err = m.Blob()
		return err
	})
	if err != nil {
		return fmt.Errorf("snapshot %s: %w", snap, err)
	}
	defer s.counted.forget(snap)
	name := filepath.Join(s.path, snapshotPath(snap), wire.ManifestName)
	if err := durable.WriteFile(name, raw, 0o600); err != nil {
		return fmt.Errorf("snapshot %s: write the manifest: %w", snap, noSpace(err))
	}
	return nil
}

// SetProtected implements wire.Manager.
func (s *Store) SetProtected(ctx context.Context, snap wire.Snapshot, protected bool) error {
	return s.setProtected(ctx, nil, snap, protected)
}

func (s *Store) setProtected(ctx context.Context, may Guard, snap wire.Snapshot, protected bool) error {
	defer s.locks.edit(snap.Group)()
	defer s.locks.edit(snap)()
	if err := s.change(ctx, may, snap); err != nil {
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

// LogName is the log of the client, which comes when the snapshot is finished
// and which no manifest names.
const LogName = "client.log.blob"

// AddLog stores the log of a finished snapshot; a second one is
// wire.ErrExists.
func (s *Store) AddLog(ctx context.Context, snap wire.Snapshot, raw chunkstore.Blob) error {
	return s.addBlob(ctx, nil, blobOf{snap, LogName, raw})
}

// blobOf is a file for a snapshot.
type blobOf struct {
	snap wire.Snapshot
	name string
	raw  chunkstore.Blob
}

// addBlob adds a file to a finished snapshot, beside its manifest.
func (s *Store) addBlob(ctx context.Context, may Guard, b blobOf) error {
	snap, name, raw := b.snap, b.name, b.raw
	if err := checkBlob(name, raw); err != nil {
		return err
	}
	defer s.locks.edit(snap.Group)()
	defer s.locks.edit(snap)()
	if err := s.change(ctx, may, snap); err != nil {
		return err
	}
	if _, err := s.root.Lstat(path.Join(snapshotPath(snap), name)); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("snapshot %s: %s: %w", snap, name, errors.Join(wire.ErrExists, err))
	}
	defer s.counted.forget(snap)
	if err := durable.WriteFile(filepath.Join(s.path, snapshotPath(snap), name), raw, 0o600); err != nil {
		return fmt.Errorf("snapshot %s: write %s: %w", snap, name, noSpace(err))
	}
	return nil
}

// checkBlob checks the name and the envelope of a blob.
func checkBlob(name string, raw chunkstore.Blob) error {
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return err
	}
	if kind != wire.Blob {
		return fmt.Errorf("%s is no blob: %w", name, wire.ErrName)
	}
	if len(raw) > chunkstore.BlobSizeMax {
		return fmt.Errorf("%s has %d bytes, more than %d: %w", name, len(raw), chunkstore.BlobSizeMax, chunkstore.ErrInvalid)
	}
	_, err = blob.Check(raw)
	return err
}

// Files lists the archives in a finished snapshot's directory, sorted, whether
// the manifest names them or not.
func (s *Store) Files(snap wire.Snapshot) ([]string, error) {
	if err := s.exists(snap); err != nil {
		return nil, err
	}
	return s.files(snap)
}

func (s *Store) files(snap wire.Snapshot) ([]string, error) {
	entries, err := s.readDir(snapshotPath(snap))
	if err != nil {
		return nil, fmt.Errorf("list the files of snapshot %s: %w", snap, err)
	}
	var names []string
	for _, e := range entries {
		if _, err := wire.CheckFileName(e.Name()); err == nil && e.Type().IsRegular() {
			names = append(names, e.Name())
		}
	}
	return names, nil
}
