package datastore

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"path"
	"path/filepath"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Finish implements wire.Session. The order is that of DESIGN: chunks durable,
// references proven, files durable, one rename. When it returns nil, the next
// session of the group may begin.
func (ss *Session) Finish(ctx context.Context) error {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	if err := ss.finish(ctx); err != nil {
		return fmt.Errorf("finish snapshot %s: %w", ss.snap, err)
	}
	ss.state.Store(stateFinished)
	// From here on the snapshot says what is needed. Whoever stays connected with
	// nothing left to do holds nothing.
	_ = ss.puts.Close()
	ss.unbase()
	// The snapshot is there; what is left in .tmp goes at the next opening
	// if it cannot go now.
	_ = ss.resume.close(ss.store, false)
	if !ss.unsettled {
		_ = ss.leave(false)
	}
	ss.store.locks.vacate(ss.snap.Group)
	return nil
}

func (ss *Session) finish(ctx context.Context) error {
	if err := ss.running(); err != nil {
		return err
	}
	for name := range ss.open {
		return fmt.Errorf("index %s has not been closed: %w", name, chunkstore.ErrInvalid)
	}
	if ss.o.Benchmark {
		return nil
	}
	m, err := ss.checkManifest()
	if err != nil {
		return err
	}
	if err := ss.proveChunks(ctx, m); err != nil {
		return err
	}
	if err := errors.Join(ss.writeOwned(m), ss.stamp()); err != nil {
		return noSpace(err)
	}
	ss.store.step("stamped")
	if err := ss.syncFiles(); err != nil {
		return noSpace(err)
	}
	return ss.commit()
}

// proveChunks makes sure that every chunk is there, and durable.
func (ss *Session) proveChunks(ctx context.Context, m *manifest.Manifest) error {
	if err := ss.syncChunks(ctx); err != nil {
		return err
	}
	if err := ss.prove(ctx, m); err != nil {
		return err
	}
	// What another session has put since then was found, too.
	return ss.syncChunks(ctx)
}

func (ss *Session) syncChunks(ctx context.Context) error {
	if err := ss.puts.Sync(ctx); err != nil {
		return fmt.Errorf("make the chunks durable: %w", err)
	}
	return nil
}

// checkManifest makes sure that the manifest is this snapshot's and names only
// files that are here, as they are.
func (ss *Session) checkManifest() (*manifest.Manifest, error) {
	sealed, err := ss.store.readFile(path.Join(ss.dir, wire.ManifestName), chunkstore.SealedSizeMax)
	if err != nil {
		return nil, err
	}
	m, err := ss.store.openManifest(sealed)
	if err != nil {
		return nil, err
	}
	if err := m.CheckNew(); err != nil {
		return nil, err
	}
	g := ss.snap.Group
	if m.Type != g.Type || m.ID != g.ID || m.Time != ss.snap.Time {
		return nil, fmt.Errorf("the manifest is that of %s/%s at %d: %w", m.Type, m.ID, m.Time, chunkstore.ErrInvalid)
	}
	for _, f := range m.Files {
		w, ok := ss.files[f.Name]
		if !ok {
			return nil, fmt.Errorf("the manifest names %s, which was not sent: %w", f.Name, chunkstore.ErrInvalid)
		}
		if w.size != f.Size || w.csum != f.Csum {
			return nil, fmt.Errorf("the manifest describes another %s than was sent: %w", f.Name, chunkstore.ErrInvalid)
		}
	}
	return m, ss.checkClasses(m)
}

// checkClasses makes sure that every index is of the class that the manifest says, so
// that nothing is read through it which has not been sent for it.
func (ss *Session) checkClasses(m *manifest.Manifest) error {
	for name, w := range ss.files {
		if kind, err := wire.CheckFileName(name); err != nil || kind == wire.Blob {
			continue
		}
		if class := m.ClassOf(name); !w.classes.Has(class) {
			return fmt.Errorf("the chunks of %s are %s by the manifest and were sent otherwise: %w", name, class, chunkstore.ErrInvalid)
		}
	}
	return nil
}

// prove looks up every reference of every index.
func (ss *Session) prove(ctx context.Context, m *manifest.Manifest) error {
	missing := &wire.MissingError{}
	for name := range ss.files {
		if kind, err := wire.CheckFileName(name); err != nil || kind == wire.Blob {
			continue
		}
		if err := ss.proveIndex(ctx, name, m.ClassOf(name), missing); err != nil {
			return fmt.Errorf("prove %s: %w", name, err)
		}
	}
	if missing.Count > 0 {
		return missing
	}
	return nil
}

func (ss *Session) proveIndex(ctx context.Context, name string, class chunkstore.Class, missing *wire.MissingError) error {
	idx, err := ss.store.openIndex(path.Join(ss.dir, name))
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
		// A sweep that does not see this snapshot, and not the one it builds
		// on because that goes right afterwards, keeps what is kept here.
		ref := chunkstore.Ref{ID: e.ID, Size: e.Size, Class: class}
		_, err := ss.puts.Keep(ctx, ref.Key(ss.copies))
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err == nil {
			last = e
			continue
		}
		missing.Count++
		if len(missing.Refs) < wire.MissingShown {
			missing.Refs = append(missing.Refs, wire.MissingRef{File: name, Off: e.Off, ID: e.ID, Why: err})
		}
	}
	return nil
}

// writeOwned replaces what the server owns in the manifest: nothing of it is
// taken from who has sent it, and the counts of the upload are put in, if there
// are any.
func (ss *Session) writeOwned(m *manifest.Manifest) error {
	if !m.StripOwned() && ss.stats == nil {
		return nil
	}
	if ss.stats != nil {
		if err := m.SetUploadStats(*ss.stats); err != nil {
			return err
		}
	}
	sealed, err := m.Seal()
	if err != nil {
		return err
	}
	return durable.WriteFile(filepath.Join(ss.store.path, ss.dir, wire.ManifestName), sealed, 0o600)
}

// syncFiles makes the snapshot's files and their directory durable.
func (ss *Session) syncFiles() error {
	names := append(slices.Sorted(maps.Keys(ss.files)), ArrivedName)
	for _, name := range names {
		f, err := durable.OpenIn(ss.store.root, path.Join(ss.dir, name))
		if err != nil {
			return err
		}
		if err := errors.Join(durable.SyncFile(f), f.Close()); err != nil {
			return fmt.Errorf("sync %s: %w", name, err)
		}
	}
	return durable.SyncDir(filepath.Join(ss.store.path, ss.dir))
}

// commit gives the snapshot its place in the tree. Who has the answer of a list
// that shows it may count on it, and so may who has that of Finish.
func (ss *Session) commit() error {
	ss.store.tree.RLock()
	defer ss.store.tree.RUnlock()
	defer ss.store.locks.edit(ss.snap.Group)()
	if err := ss.store.makeGroup(ss.snap.Group, ss.o.Owner); err != nil {
		return err
	}
	if err := ss.checkCopies(); err != nil {
		return err
	}
	if err := ss.store.ask(ss.still, ss.snap.Group); err != nil {
		return err
	}
	final := snapshotPath(ss.snap)
	if _, err := ss.store.root.Lstat(final); !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%s: %w", final, errors.Join(wire.ErrExists, err))
	}
	if err := ss.store.announce(ss.temp, ss.snap); err != nil {
		return noSpace(err)
	}
	if err := ss.store.unmarkBegun(ss.snap.Group); err != nil {
		return err
	}
	settled, err := ss.store.appear(ss.dir, ss.snap)
	ss.unsettled = !settled
	return noSpace(err)
}

// checkCopies makes sure that the snapshot will read the copies which were proved.
func (ss *Session) checkCopies() error {
	copies, err := ss.store.Copies(ss.snap.Group)
	if err == nil && ownerTag(copies) != ss.copies {
		err = fmt.Errorf("the encrypted chunks of backup group %s are not those of who began this backup: %w", ss.snap.Group, ErrOwner)
	}
	return err
}
