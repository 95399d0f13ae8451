package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// reader is one open snapshot. It implements wire.Reader.
type reader struct {
	store *Store
	snap  wire.Snapshot
}

// Open implements wire.Source.
func (s *Store) Open(_ context.Context, snap wire.Snapshot) (wire.Reader, error) {
	if err := s.exists(snap); err != nil {
		return nil, err
	}
	return &reader{store: s, snap: snap}, nil
}

// Snapshot implements wire.Reader.
func (r *reader) Snapshot() wire.Snapshot { return r.snap }

// Get implements chunkstore.Getter.
func (r *reader) Get(ctx context.Context, id chunkstore.ID) (chunkstore.Sealed, error) {
	c, err := r.store.chunkStore(ctx)
	if err != nil {
		return nil, err
	}
	return c.Get(ctx, id)
}

// Blob implements wire.Reader.
func (r *reader) Blob(_ context.Context, name string) (chunkstore.Sealed, error) {
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return nil, err
	}
	if kind != wire.Blob {
		return nil, fmt.Errorf("%s is no blob: %w", name, wire.ErrName)
	}
	b, err := r.store.readFile(path.Join(snapshotPath(r.snap), name), chunkstore.SealedSizeMax)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", r.snap, err)
	}
	return b, nil
}

// Index implements wire.Reader.
func (r *reader) Index(_ context.Context, name string) (*index.Reader, error) {
	kind, err := indexKind(name)
	if err != nil {
		return nil, err
	}
	f, err := r.store.root.Open(path.Join(snapshotPath(r.snap), name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, fmt.Errorf("snapshot %s: %s: %w", r.snap, name, chunkstore.ErrNotExist)
	}
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", r.snap, err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	idx, err := index.Open(f, st.Size(), kind)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("snapshot %s: %s: %w", r.snap, name, err), f.Close())
	}
	return idx, nil
}

// Close implements wire.Reader.
func (r *reader) Close() error { return nil }

// indexKind checks the name of an index file.
func indexKind(name string) (index.Kind, error) {
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return 0, err
	}
	switch kind {
	case wire.Dynamic:
		return index.Dynamic, nil
	case wire.Fixed:
		return index.Fixed, nil
	}
	return 0, fmt.Errorf("%s is no index: %w", name, wire.ErrName)
}
