package datastore

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"sync"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// session is a snapshot being written. It implements wire.Session and
// wire.Asker.
type session struct {
	store  *Store
	snap   wire.Snapshot
	chunks *pack.Store
	puts   chunkstore.Session
	dir    string // below .tmp, relative to the store

	mu       sync.Mutex
	open     map[string]*indexWriter // indexes not yet closed
	files    map[string]written      // files that are complete
	finished bool
	closed   bool
}

// written is what the session knows of a file it has completed.
type written struct {
	size uint64 // as a manifest counts it
	csum [32]byte
}

// Begin implements wire.Target.
func (s *Store) Begin(ctx context.Context, snap wire.Snapshot) (wire.Session, error) {
	if err := snap.Validate(); err != nil {
		return nil, err
	}
	if _, err := wire.ParseNamespace(string(snap.Group.NS)); err != nil {
		return nil, err
	}
	chunks, err := s.writable(ctx)
	if err != nil {
		return nil, err
	}
	if err := s.occupy(snap.Group); err != nil {
		return nil, err
	}
	ss := &session{store: s, snap: snap, chunks: chunks, open: make(map[string]*indexWriter), files: make(map[string]written)}
	if err := ss.begin(ctx); err != nil {
		s.vacate(snap.Group)
		return nil, fmt.Errorf("begin snapshot %s: %w", snap, err)
	}
	return ss, nil
}

func (s *Store) occupy(g wire.Group) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy[g] {
		return fmt.Errorf("backup group %s is being written to by another backup: %w", g, wire.ErrBusy)
	}
	s.busy[g] = true
	return nil
}

func (s *Store) vacate(g wire.Group) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.busy, g)
}

func (ss *session) begin(ctx context.Context) error {
	times, err := ss.store.times(ss.snap.Group)
	if err != nil {
		return err
	}
	if n := len(times); n > 0 && times[n-1] >= ss.snap.Time {
		last := wire.Snapshot{Group: ss.snap.Group, Time: times[n-1]}
		return fmt.Errorf("the group's newest snapshot %s is not older: %w", last, wire.ErrExists)
	}
	var random [8]byte
	rand.Read(random[:])
	ss.dir = path.Join(tempDir, hex.EncodeToString(random[:]))
	if err := ss.store.root.MkdirAll(ss.dir, 0o700); err != nil {
		return noSpace(err)
	}
	ss.puts, err = ss.chunks.Begin(ctx)
	return err
}

// Previous implements wire.Session.
func (ss *session) Previous(ctx context.Context) (wire.Reader, error) {
	times, err := ss.store.times(ss.snap.Group)
	if err != nil {
		return nil, err
	}
	if len(times) == 0 {
		return nil, fmt.Errorf("backup group %s has no snapshot yet: %w", ss.snap.Group, chunkstore.ErrNotExist)
	}
	return ss.store.Open(ctx, wire.Snapshot{Group: ss.snap.Group, Time: times[len(times)-1]})
}

// Has implements wire.Asker.
func (ss *session) Has(ctx context.Context, id chunkstore.ID, plainSize uint32) (bool, error) {
	info, err := ss.chunks.Stat(ctx, id)
	if errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, chunkstore.ErrCorrupt) {
		return false, nil
	}
	return err == nil && info.PlainSize == plainSize, err
}

// Blob implements wire.Session.
func (ss *session) Blob(_ context.Context, name string, sealed chunkstore.Sealed) error {
	kind, err := wire.CheckFileName(name)
	if err == nil && kind != wire.Blob {
		err = fmt.Errorf("%s is no blob: %w", name, wire.ErrName)
	}
	if err == nil && len(sealed) > chunkstore.SealedSizeMax {
		err = fmt.Errorf("%s has %d bytes, more than %d: %w", name, len(sealed), chunkstore.SealedSizeMax, chunkstore.ErrInvalid)
	}
	if err == nil {
		_, err = blob.Check(sealed)
	}
	if err != nil {
		return err
	}
	if err := ss.store.root.WriteFile(path.Join(ss.dir, name), sealed, 0o600); err != nil {
		return fmt.Errorf("write %s: %w", name, noSpace(err))
	}
	ss.mu.Lock()
	defer ss.mu.Unlock()
	ss.files[name] = written{size: uint64(len(sealed)), csum: crypto.Sum(sealed)}
	return nil
}

// Finish implements wire.Session. The order is that of DESIGN: chunks durable,
// references proven, files durable, one rename.
func (ss *session) Finish(ctx context.Context) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if err := ss.finish(ctx); err != nil {
		return fmt.Errorf("finish snapshot %s: %w", ss.snap, err)
	}
	ss.finished = true
	return nil
}

func (ss *session) finish(ctx context.Context) error {
	if ss.finished || ss.closed {
		return fmt.Errorf("the session has ended: %w", chunkstore.ErrInvalid)
	}
	for name := range ss.open {
		return fmt.Errorf("index %s has not been closed: %w", name, chunkstore.ErrInvalid)
	}
	if err := ss.checkManifest(); err != nil {
		return err
	}
	if err := ss.puts.Sync(ctx); err != nil {
		return err
	}
	if err := ss.prove(ctx); err != nil {
		return err
	}
	if err := ss.syncFiles(); err != nil {
		return noSpace(err)
	}
	return ss.commit()
}

// checkManifest makes sure that the manifest is this snapshot's and names only
// files that are here, as they are.
func (ss *session) checkManifest() error {
	sealed, err := ss.store.readFile(path.Join(ss.dir, wire.ManifestName), chunkstore.SealedSizeMax)
	if err != nil {
		return err
	}
	m, err := manifest.Open(sealed)
	if err != nil {
		return err
	}
	g := ss.snap.Group
	if m.Type != g.Type || m.ID != g.ID || m.Time != ss.snap.Time {
		return fmt.Errorf("the manifest is that of %s/%s at %d: %w", m.Type, m.ID, m.Time, chunkstore.ErrInvalid)
	}
	for _, f := range m.Files {
		w, ok := ss.files[f.Name]
		if !ok {
			return fmt.Errorf("the manifest names %s, which was not sent: %w", f.Name, chunkstore.ErrInvalid)
		}
		if w.size != f.Size || w.csum != f.Csum {
			return fmt.Errorf("the manifest describes another %s than was sent: %w", f.Name, chunkstore.ErrInvalid)
		}
	}
	return nil
}

// prove looks up every reference of every index.
func (ss *session) prove(ctx context.Context) error {
	missing := &wire.MissingError{}
	for name := range ss.files {
		if kind, err := wire.CheckFileName(name); err != nil || kind == wire.Blob {
			continue
		}
		if err := ss.proveIndex(ctx, name, missing); err != nil {
			return fmt.Errorf("prove %s: %w", name, err)
		}
	}
	if missing.Count > 0 {
		return missing
	}
	return nil
}

func (ss *session) proveIndex(ctx context.Context, name string, missing *wire.MissingError) error {
	idx, err := ss.openIndex(name)
	if err != nil {
		return err
	}
	defer idx.Close()
	var last index.Entry // runs of one chunk are looked up once
	for e, err := range idx.All(0) {
		if err != nil {
			return err
		}
		if e.ID == last.ID && e.Size == last.Size {
			continue
		}
		info, err := ss.chunks.Stat(ctx, e.ID)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil && info.PlainSize == e.Size {
			last = e
			continue
		}
		if err == nil {
			err = fmt.Errorf("%d bytes, not %d: %w", info.PlainSize, e.Size, chunkstore.ErrInvalid)
		}
		missing.Count++
		if len(missing.Refs) < wire.MissingShown {
			missing.Refs = append(missing.Refs, wire.MissingRef{File: name, Off: e.Off, ID: e.ID, Why: err})
		}
	}
	return nil
}

// syncFiles makes the snapshot's files and their directory durable.
func (ss *session) syncFiles() error {
	for name := range ss.files {
		f, err := ss.store.root.Open(path.Join(ss.dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(durable.SyncFile(f), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", name, err)
		}
	}
	return durable.SyncDir(filepath.Join(ss.store.path, ss.dir))
}

// commit gives the snapshot its place in the tree.
func (ss *session) commit() error {
	group := filepath.Join(ss.store.path, groupPath(ss.snap.Group))
	if err := durable.MkdirAll(group, 0o700); err != nil {
		return noSpace(err)
	}
	final := filepath.Join(ss.store.path, snapshotPath(ss.snap))
	if _, err := os.Lstat(final); err == nil {
		return fmt.Errorf("%s: %w", final, wire.ErrExists)
	}
	written := filepath.Join(ss.store.path, ss.dir)
	err := durable.Rename(written, final)
	if err == nil {
		return nil
	}
	// It may have moved and only its parent could not be synced. What is not
	// acknowledged must not be listed.
	if back := os.Rename(final, written); back != nil && !errors.Is(back, fs.ErrNotExist) {
		err = errors.Join(err, back)
	}
	return noSpace(err)
}

// Close implements wire.Session.
func (ss *session) Close() error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if ss.closed {
		return nil
	}
	ss.closed = true
	defer ss.store.vacate(ss.snap.Group)
	var errs []error
	for _, w := range ss.open {
		errs = append(errs, w.file.Close())
	}
	errs = append(errs, ss.puts.Close())
	if !ss.finished {
		errs = append(errs, ss.store.root.RemoveAll(ss.dir))
	}
	return errors.Join(errs...)
}
