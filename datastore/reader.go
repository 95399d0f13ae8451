package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// reader is one open snapshot. It implements wire.Reader.
type reader struct {
	store   *Store
	snap    wire.Snapshot
	release func()
	// copies is whose encrypted chunks the snapshot reads; unknown is why that is
	// not known.
	copies  chunkstore.Owner
	unknown error
}

// Open implements wire.Source. Until the reader is closed, nobody in this
// process can remove the snapshot.
func (s *Store) Open(_ context.Context, snap wire.Snapshot) (wire.Reader, error) {
	if err := snap.Validate(); err != nil {
		return nil, err
	}
	release, err := s.locks.hold(snap)
	if err != nil {
		return nil, err
	}
	if err := s.exists(snap); err != nil {
		release()
		return nil, err
	}
	r := &reader{store: s, snap: snap, release: release}
	copies, err := s.copiesIn(snapshotPath(snap), snap.Group)
	r.copies, r.unknown = ownerTag(copies), err
	return r, nil
}

// Snapshot implements wire.Reader.
func (r *reader) Snapshot() wire.Snapshot { return r.snap }

// Get implements chunkstore.RefGetter.
func (r *reader) Get(ctx context.Context, ref chunkstore.Ref) (chunkstore.Blob, error) {
	return r.GetInto(ctx, ref, nil)
}

// GetInto implements chunkstore.IntoGetter.
func (r *reader) GetInto(ctx context.Context, ref chunkstore.Ref, room []byte) (chunkstore.Blob, error) {
	c, k, err := r.find(ctx, ref)
	if err != nil {
		return nil, err
	}
	return c.GetInto(ctx, k, room)
}

// Check compares a chunk on the medium with its recorded SHA-256. It needs no key.
func (r *reader) Check(ctx context.Context, ref chunkstore.Ref) error {
	c, k, err := r.find(ctx, ref)
	if err != nil {
		return err
	}
	return c.Check(ctx, k)
}

// Key tells what the store finds a chunk of the snapshot by.
func (r *reader) Key(ref chunkstore.Ref) (chunkstore.Key, error) {
	if ref.Class.Encrypted() && r.unknown != nil {
		return chunkstore.Key{}, r.unknown
	}
	return ref.Key(r.copies), nil
}

func (r *reader) find(ctx context.Context, ref chunkstore.Ref) (*pack.Store, chunkstore.Key, error) {
	k, err := r.Key(ref)
	if err != nil {
		return nil, k, err
	}
	c, err := r.store.chunkStore(ctx)
	return c, k, err
}

// Blob implements wire.Reader.
func (r *reader) Blob(_ context.Context, name string) (chunkstore.Blob, error) {
	kind, err := wire.CheckFileName(name)
	if err != nil {
		return nil, err
	}
	if kind != wire.Blob {
		return nil, fmt.Errorf("%s is no blob: %w", name, wire.ErrName)
	}
	b, err := r.store.readFile(path.Join(snapshotPath(r.snap), name), chunkstore.BlobSizeMax)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", r.snap, err)
	}
	return b, nil
}

// Manifest reads the manifest of the snapshot, unauthenticated, when it is the turn of
// who asks. One that is missing is chunkstore.ErrNotExist.
func (r *reader) Manifest(ctx context.Context) (found *manifest.Manifest, err error) {
	err = r.store.lookAt(ctx, snapshotPath(r.snap), func(m *manifest.Manifest) error {
		found = m
		return nil
	})
	return found, err
}

// Index implements wire.Reader.
func (r *reader) Index(_ context.Context, name string) (*index.Reader, error) {
	if _, err := indexKind(name); err != nil {
		return nil, err
	}
	idx, err := r.store.openIndex(path.Join(snapshotPath(r.snap), name))
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", r.snap, err)
	}
	return idx, nil
}

// openIndex opens an index file of the store.
func (s *Store) openIndex(name string) (*index.Reader, error) {
	kind, err := indexKind(path.Base(name))
	if err != nil {
		return nil, err
	}
	f, err := durable.OpenIn(s.root, name)
	if errors.Is(err, fs.ErrNotExist) {
		err = chunkstore.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path.Base(name), err)
	}
	st, err := f.Stat()
	if err != nil {
		return nil, errors.Join(err, f.Close())
	}
	idx, err := index.Open(f, st.Size(), kind)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", path.Base(name), err), f.Close())
	}
	return idx, nil
}

// Close implements wire.Reader.
func (r *reader) Close() error {
	r.release()
	return nil
}

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
