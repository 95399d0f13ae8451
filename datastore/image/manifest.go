package image

import (
	"context"
	"errors"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// OpenManifest reads the manifest of an open snapshot and checks that it is the
// one of that snapshot, so that a store cannot answer with another. With a key
// the signature must be there and right; without one nothing is authenticated.
func OpenManifest(ctx context.Context, r wire.Reader, key *crypto.Key) (*manifest.Manifest, error) {
	s := r.Snapshot()
	m, err := readManifest(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s, err)
	}
	if m.Type != s.Group.Type || m.ID != s.Group.ID || m.Time != s.Time {
		was := wire.Snapshot{Group: wire.Group{Type: m.Type, ID: m.ID}, Time: m.Time}
		return nil, fmt.Errorf("snapshot %s: its manifest belongs to %s: %w", s, was, crypto.ErrTampered)
	}
	if key == nil {
		return m, nil
	}
	if err := m.Verify(key); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s, err)
	}
	return m, nil
}

func readManifest(ctx context.Context, r wire.Reader) (*manifest.Manifest, error) {
	sealed, err := r.Blob(ctx, wire.ManifestName)
	if errors.Is(err, chunkstore.ErrNotExist) {
		// The snapshot was there when it was opened, and had one once.
		err = fmt.Errorf("%s is missing: %w", wire.ManifestName, chunkstore.ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	return manifest.Open(sealed)
}

// ReadBlob reads a small file of a snapshot, checked against the manifest's
// entry and opened. An encrypted one needs the key.
func ReadBlob(ctx context.Context, r wire.Reader, f manifest.File, key *crypto.Key) (chunkstore.Plain, error) {
	sealed, err := CheckBlob(ctx, r, f)
	if err != nil {
		return nil, err
	}
	encrypted, err := blob.Check(sealed)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name, err)
	}
	if encrypted && key == nil {
		return nil, fmt.Errorf("open %s: %w", f.Name, crypto.ErrNoKey)
	}
	codec, err := blob.NewCodec(blob.Options{Key: key, Encrypt: encrypted, Workers: 1})
	if err != nil {
		return nil, err
	}
	plain, err := codec.Open(nil, sealed, blob.PlainSizeMax)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name, err)
	}
	return plain, nil
}

// CheckBlob reads a small file as it is stored and compares size and checksum
// with the manifest's entry. It needs no key.
func CheckBlob(ctx context.Context, r wire.Reader, f manifest.File) (chunkstore.Sealed, error) {
	sealed, err := r.Blob(ctx, f.Name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name, err)
	}
	if uint64(len(sealed)) != f.Size || crypto.Sum(sealed) != f.Csum {
		err = fmt.Errorf("read %s: size or checksum is not the manifest's: %w", f.Name, chunkstore.ErrCorrupt)
	}
	if _, checkErr := blob.Check(sealed); err == nil && checkErr != nil {
		err = fmt.Errorf("read %s: %w", f.Name, checkErr)
	}
	return sealed, err
}
