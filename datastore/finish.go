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
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Finish implements wire.Session. The order is that of DESIGN: chunks durable,
// references proven, files durable, one rename. When it returns nil, the next
// session of the group may begin. It may be called again after an error, except one that
// wraps durable.ErrLost: that is the answer ever after.
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
	if ss.lost != nil {
		return ss.lost
	}
	for name := range ss.open {
		return fmt.Errorf("index %s has not been closed: %w", name, chunkstore.ErrInvalid)
	}
	if ss.o.Benchmark {
		return nil
	}
	classes, err := ss.settleManifest(ctx)
	if err != nil {
		return err
	}
	if err := ss.proveChunks(ctx, classes); err != nil {
		return err
	}
	if err := ss.stamp(); err != nil {
		return noSpace(err)
	}
	ss.store.step("stamped")
	err = ss.syncFiles()
	if err == nil {
		err = ss.commit()
	}
	if errors.Is(err, durable.ErrLost) {
		ss.lost = err
	}
	return noSpace(err)
}

// proveChunks makes sure that every chunk is there, and durable.
func (ss *Session) proveChunks(ctx context.Context, classes map[string]chunkstore.Class) error {
	if err := ss.syncChunks(ctx); err != nil {
		return err
	}
	if err := ss.prove(ctx, classes); err != nil {
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

// settleManifest checks the manifest and replaces what the server owns in it. It
// returns the classes of the session's indexes, and keeps nothing else of it: what it
// takes in memory nobody pays for who waits for chunks to be proven.
func (ss *Session) settleManifest(ctx context.Context) (map[string]chunkstore.Class, error) {
	done, err := ss.store.turns.Read(ctx)
	if err != nil {
		return nil, err
	}
	defer done()
	classes := make(map[string]chunkstore.Class)
	var raw chunkstore.Blob // nil if it can stay as it is
	_, err = ss.store.useManifest(ctx, ss.dir, func(m *manifest.Manifest) error {
		if err := ss.checkManifest(m); err != nil {
			return err
		}
		for name := range ss.files {
			if isIndex(name) {
				classes[name] = m.ClassOf(name)
			}
		}
		raw, err = ss.withOwned(m)
		return err
	})
	if err == nil && raw != nil {
		err = noSpace(durable.WriteFile(filepath.Join(ss.store.path, ss.dir, wire.ManifestName), raw, 0o600))
	}
	return classes, err
}

// isIndex tells whether a file of a session is an index.
func isIndex(name string) bool {
	kind, err := wire.CheckFileName(name)
	return err == nil && kind != wire.Blob
}

// checkManifest makes sure that the manifest is this snapshot's and names only
// files that are here, as they are.
func (ss *Session) checkManifest(m *manifest.Manifest) error {
	if err := m.CheckNew(); err != nil {
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
	return ss.checkClasses(m)
}

// checkClasses makes sure that every index is of the class that the manifest says, so
// that nothing is read through it which has not been sent for it.
func (ss *Session) checkClasses(m *manifest.Manifest) error {
	for name, w := range ss.files {
		if !isIndex(name) {
			continue
		}
		if class := m.ClassOf(name); !w.classes.Has(class) {
			return fmt.Errorf("the chunks of %s are %s by the manifest and were sent otherwise: %w", name, class, chunkstore.ErrInvalid)
		}
	}
	return nil
}

// prove looks up every reference of every index.
func (ss *Session) prove(ctx context.Context, classes map[string]chunkstore.Class) error {
	missing := &wire.MissingError{}
	for name, class := range classes {
		if err := ss.proveIndex(ctx, name, class, missing); err != nil {
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
	var refs []chunkstore.Ref
	for entries, err := range idx.Distinct() {
		if err != nil {
			return err
		}
		refs = refs[:0]
		for _, e := range entries {
			refs = append(refs, chunkstore.Ref{ID: e.ID, Size: e.Size, Class: class})
		}
		// A sweep that does not see this snapshot, and not the one it builds
		// on because that goes right afterwards, keeps what is kept here.
		err := ss.keepAll(ctx, refs, func(i int, why error) error {
			missing.Count++
			if len(missing.Refs) < wire.MissingShown {
				missing.Refs = append(missing.Refs, wire.MissingRef{File: name, Off: entries[i].Off, ID: entries[i].ID, Why: why})
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// withOwned replaces what the server owns in the manifest: nothing of it is taken from
// who has sent it, and the counts of the upload are put in, if there are any. It returns
// the blob to be written, nil if nothing has changed.
func (ss *Session) withOwned(m *manifest.Manifest) (chunkstore.Blob, error) {
	if !m.StripOwned() && ss.stats == nil {
		return nil, nil
	}
	if ss.stats != nil {
		if err := m.SetUploadStats(*ss.stats); err != nil {
			return nil, err
		}
	}
	return m.Blob()
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
		return err
	}
	if err := ss.store.unmarkBegun(ss.snap.Group); err != nil {
		return err
	}
	settled, err := ss.store.appear(ss.dir, ss.snap)
	ss.unsettled = !settled
	return err
}

// checkCopies makes sure that the snapshot will read the copies which were proved.
func (ss *Session) checkCopies() error {
	copies, err := ss.store.Copies(ss.snap.Group)
	if err == nil && ownerTag(copies) != ss.copies {
		err = fmt.Errorf("the encrypted chunks of backup group %s are not those of who began this backup: %w", ss.snap.Group, ErrOwner)
	}
	return err
}
