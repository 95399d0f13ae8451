package image

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Trust says what a manifest is believed on.
type Trust struct {
	// Key checks the signature; without it nothing is authenticated.
	Key *crypto.Key
	// AnyOrigin accepts a signed snapshot wherever it is found, and whatever has
	// become of the file that says where it belongs: a copy may be moved, and that
	// file may be all that was lost.
	AnyOrigin bool
}

// A MovedError tells of a signed snapshot that was made for another namespace
// than the one in which it was found. It is a crypto.ErrTampered: whoever keeps
// the snapshots may have put one in the place of another.
type MovedError struct{ Found, Made wire.Namespace }

func (e *MovedError) Error() string {
	return fmt.Sprintf("it was made for %s and was found in %s: %v", place(e.Made), place(e.Found), crypto.ErrTampered)
}

// Unwrap makes it a crypto.ErrTampered.
func (e *MovedError) Unwrap() error { return crypto.ErrTampered }

// An OriginError tells that the file with a snapshot's origin cannot be read. It
// says nothing about the rest of the snapshot.
type OriginError struct{ err error }

func (e *OriginError) Error() string { return e.err.Error() }

// Unwrap returns what is wrong with the file.
func (e *OriginError) Unwrap() error { return e.err }

func place(ns wire.Namespace) string {
	if ns == "" {
		return "the root namespace"
	}
	return "namespace " + string(ns)
}

// OpenManifest reads the manifest of an open snapshot and checks that it is the
// one of that snapshot, so that a store cannot answer with another. With a key
// the signature must be there and right, and the snapshot must have been made for
// its namespace, if it says for which; those of other programs do not. Without a
// key nothing is authenticated.
func OpenManifest(ctx context.Context, r wire.Reader, t Trust) (*manifest.Manifest, error) {
	s := r.Snapshot()
	m, err := readManifest(ctx, r)
	if err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s, err)
	}
	if m.Type != s.Group.Type || m.ID != s.Group.ID || m.Time != s.Time {
		was := wire.Snapshot{Group: wire.Group{Type: m.Type, ID: m.ID}, Time: m.Time}
		return nil, fmt.Errorf("snapshot %s: its manifest belongs to %s: %w", s, was, crypto.ErrTampered)
	}
	if t.Key == nil {
		return m, nil
	}
	if err := m.Verify(t.Key); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s, err)
	}
	if t.AnyOrigin {
		return m, nil
	}
	if _, _, err := CheckOrigin(ctx, r, m, t.Key); err != nil {
		return nil, fmt.Errorf("snapshot %s: %w", s, err)
	}
	return m, nil
}

// CheckOrigin compares where a snapshot was found with where it says that it
// belongs, and returns what it says and whether it says anything. That is worth as
// much as the signature of m, which the caller has verified with the key. Another
// place than the one it was found in is a *MovedError.
func CheckOrigin(ctx context.Context, r wire.Reader, m *manifest.Manifest, key *crypto.Key) (manifest.Origin, bool, error) {
	o, ok, err := readOrigin(ctx, r, m, key)
	if err != nil || !ok {
		return o, false, err
	}
	made, found := wire.Namespace(o.Namespace), r.Snapshot().Group.NS
	if made != found {
		return o, true, &MovedError{Found: found, Made: made}
	}
	return o, true, nil
}

func readOrigin(ctx context.Context, r wire.Reader, m *manifest.Manifest, key *crypto.Key) (manifest.Origin, bool, error) {
	i := slices.IndexFunc(m.Files, func(f manifest.File) bool { return f.Name == manifest.OriginName })
	if i < 0 {
		return manifest.Origin{}, false, nil
	}
	plain, err := ReadBlob(ctx, r, m.Files[i], key)
	if errors.Is(err, chunkstore.ErrNotExist) {
		err = fmt.Errorf("%s is missing: %w", manifest.OriginName, chunkstore.ErrCorrupt)
	}
	if err != nil {
		return manifest.Origin{}, false, &OriginError{err}
	}
	o, err := manifest.DecodeOrigin(plain)
	if err == nil {
		_, err = wire.ParseNamespace(o.Namespace)
	}
	if err != nil {
		return o, false, &OriginError{fmt.Errorf("%s: %w: %w", manifest.OriginName, err, manifest.ErrFormat)}
	}
	return o, true, nil
}

// unfolder is a Reader that takes manifests apart itself, when there is memory for it.
type unfolder interface {
	Manifest(ctx context.Context) (*manifest.Manifest, error)
}

func unfold(ctx context.Context, r wire.Reader) (*manifest.Manifest, error) {
	if u, ok := r.(unfolder); ok {
		return u.Manifest(ctx)
	}
	raw, err := r.Blob(ctx, wire.ManifestName)
	if err != nil {
		return nil, err
	}
	return manifest.Open(raw)
}

func readManifest(ctx context.Context, r wire.Reader) (*manifest.Manifest, error) {
	m, err := unfold(ctx, r)
	if errors.Is(err, chunkstore.ErrNotExist) {
		// The snapshot was there when it was opened, and had one once.
		err = fmt.Errorf("%s is missing: %w", wire.ManifestName, chunkstore.ErrCorrupt)
	}
	if err != nil {
		return nil, err
	}
	Bound(r, m)
	return m, nil
}

// Bound tells a reader how large the files of its snapshot are, if it asks the other
// side for them.
func Bound(r wire.Reader, m *manifest.Manifest) {
	b, ok := r.(wire.Bounder)
	if !ok {
		return
	}
	sizes := make(map[string]uint64, len(m.Files))
	for _, f := range m.Files {
		sizes[f.Name] = f.Size
	}
	b.Bound(sizes)
}

// ReadBlob reads a small file of a snapshot, checked against the manifest's
// entry and opened. An encrypted one needs the key.
func ReadBlob(ctx context.Context, r wire.Reader, f manifest.File, key *crypto.Key) (chunkstore.Plain, error) {
	raw, err := CheckBlob(ctx, r, f)
	if err != nil {
		return nil, err
	}
	encrypted, err := blob.Check(raw)
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
	plain, err := codec.Decode(nil, raw, blob.PlainSizeMax)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", f.Name, err)
	}
	return plain, nil
}

// CheckBlob reads a small file as it is stored and compares size and checksum
// with the manifest's entry. It needs no key.
func CheckBlob(ctx context.Context, r wire.Reader, f manifest.File) (chunkstore.Blob, error) {
	raw, err := r.Blob(ctx, f.Name)
	if err != nil {
		return nil, fmt.Errorf("read %s: %w", f.Name, err)
	}
	if uint64(len(raw)) != f.Size || crypto.Sum(raw) != f.Csum {
		err = fmt.Errorf("read %s: size or checksum is not the manifest's: %w", f.Name, chunkstore.ErrCorrupt)
	}
	if _, checkErr := blob.Check(raw); err == nil && checkErr != nil {
		err = fmt.Errorf("read %s: %w", f.Name, checkErr)
	}
	return raw, err
}
