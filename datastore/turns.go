package datastore

import (
	"context"
	"fmt"
	"path"

	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// Turns say when a manifest of a store may be read and taken apart. That takes many
// times its size in memory, and some time, whoever has made it. Both methods wait for
// the turn of who ctx says asks, or until ctx ends, and return what ends the turn.
//
// Who has a turn may wait for a change of a snapshot to end, so that nobody who is
// changing one may wait for a turn.
type Turns interface {
	// Read is waited for before a manifest is read.
	Read(ctx context.Context) (done func(), err error)
	// Unfold is waited for by who has a turn to read, before what was read is taken
	// apart. Nobody who has it waits for a disk or for anybody else.
	Unfold(ctx context.Context) (done func(), err error)
}

// manifestsAtOnce is how many manifests are read and taken apart at a time if nothing
// was said about turns.
const manifestsAtOnce = 4

// fewTurns are the turns of a store for one user. Each element is one that was taken.
type fewTurns chan struct{}

// Read implements Turns.
func (f fewTurns) Read(ctx context.Context) (done func(), err error) {
	select {
	case f <- struct{}{}:
		return func() { <-f }, nil
	case <-ctx.Done():
		return nil, fmt.Errorf("wait to read a manifest: %w", context.Cause(ctx))
	}
}

// Unfold implements Turns: who may read may do that, too.
func (f fewTurns) Unfold(context.Context) (done func(), err error) { return func() {}, nil }

// useManifest has use look at the manifest in the directory of a snapshot,
// unauthenticated. What use keeps of it stays in memory when the turn to read, which
// the caller has, is over. size is how long the manifest's blob is, in bytes.
func (s *Store) useManifest(ctx context.Context, dir string, use func(*manifest.Manifest) error) (size int, err error) {
	raw, err := s.readFile(path.Join(dir, wire.ManifestName), manifest.BlobSizeMax)
	if err != nil {
		return 0, err
	}
	done, err := s.turns.Unfold(ctx)
	if err != nil {
		return len(raw), err
	}
	defer done()
	m, err := manifest.OpenWith(s.proofs.codec, raw)
	if err != nil {
		return len(raw), fmt.Errorf("%s: %w", wire.ManifestName, err)
	}
	return len(raw), use(m)
}

// lookAt is useManifest for who has no turn yet.
func (s *Store) lookAt(ctx context.Context, dir string, use func(*manifest.Manifest) error) error {
	done, err := s.turns.Read(ctx)
	if err != nil {
		return err
	}
	defer done()
	_, err = s.useManifest(ctx, dir, use)
	return err
}
