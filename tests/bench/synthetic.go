package main

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"
	"path/filepath"
	"runtime"
	"strings"

	"golang.org/x/sync/errgroup"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// synthetic is a store that is made for what has to be counted, not for what
// is in it: many chunks of one byte, and snapshots that refer to them.
type synthetic struct {
	chunks, references, snapshots int
	groups                        int // machines that share the snapshots
}

// parseSynthetic reads "chunks,references,snapshots,groups,directory".
func parseSynthetic(text string) (s synthetic, dir string, err error) {
	_, err = fmt.Sscanf(strings.ReplaceAll(text, ",", " "), "%d %d %d %d %s", &s.chunks, &s.references, &s.snapshots, &s.groups, &dir)
	return s, dir, err
}

// encode writes what parseSynthetic reads.
func (s synthetic) encode(dir string) string {
	return fmt.Sprintf("%d,%d,%d,%d,%s", s.chunks, s.references, s.snapshots, s.groups, dir)
}

// make fills the empty repository in dir.
func (s synthetic) make(ctx context.Context, dir string) error {
	if err := s.makeChunks(ctx, filepath.Join(dir, ".chunks")); err != nil {
		return err
	}
	return s.makeSnapshots(ctx, dir)
}

// syntheticID names the i-th chunk.
func syntheticID(i int) chunkstore.ID {
	var seed [8]byte
	binary.LittleEndian.PutUint64(seed[:], uint64(i))
	return sha256.Sum256(seed[:])
}

// makeChunks puts all chunks.
func (s synthetic) makeChunks(ctx context.Context, dir string) error {
	store, err := pack.Open(ctx, dir, pack.Options{})
	if err != nil {
		return err
	}
	session, err := store.Begin(ctx)
	if err != nil {
		return errors.Join(err, store.Close())
	}
	raw := chunkstore.Blob{0x42, 0xab, 0x38, 0x07, 0xbe, 0x83, 0x70, 0xa1, 0, 0, 0, 0, 'x'}
	binary.LittleEndian.PutUint32(raw[8:], crc32.ChecksumIEEE(raw[12:]))
	for i := range s.chunks {
		if _, err = session.Put(ctx, chunkstore.Chunk{ID: syntheticID(i), PlainSize: 1, Blob: raw}); err != nil {
			break
		}
	}
	if err == nil {
		err = session.Sync(ctx)
	}
	return errors.Join(err, session.Close(), store.Close())
}

// makeSnapshots writes indexes and manifests straight to their places. Each
// group has chunks of its own, and each of its snapshots refers to a window of
// them that moves on by a bit, with a third of the references repeated.
func (s synthetic) makeSnapshots(ctx context.Context, dir string) error {
	if s.snapshots == 0 {
		return nil
	}
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(runtime.GOMAXPROCS(0))
	each := s.snapshots / s.groups
	for g := range s.groups {
		group.Go(func() error {
			for k := range each {
				if err := s.makeSnapshot(dir, g, k, each); err != nil || ctx.Err() != nil {
					return errors.Join(err, ctx.Err())
				}
			}
			return nil
		})
	}
	return group.Wait()
}

func (s synthetic) makeSnapshot(dir string, g, k, each int) error {
	own := s.chunks / s.groups
	references := s.references / s.snapshots
	distinct := min(references*2/3, own)
	first := g*own + (own-distinct)*k/max(1, each-1)
	snap := wire.Snapshot{Group: wire.Group{Type: "vm", ID: fmt.Sprint(100 + g)}, Time: 1700000000 + int64(k)*86400}
	place := filepath.Join(dir, "vm", snap.Group.ID, snap.TimeString())
	if err := os.MkdirAll(place, 0o700); err != nil {
		return err
	}
	f, err := os.Create(filepath.Join(place, "disk0.img.didx"))
	if err != nil {
		return err
	}
	sum, err := writeSyntheticIndex(f, first, distinct, references)
	if err = errors.Join(err, f.Close()); err != nil {
		return err
	}
	m := manifest.Manifest{Type: snap.Group.Type, ID: snap.Group.ID, Time: snap.Time,
		Files: []manifest.File{{Name: "disk0.img.didx", CryptMode: crypto.ModeNone, Size: sum.Size, Csum: sum.Csum}}}
	raw, err := m.Blob()
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(place, wire.ManifestName), raw, 0o600)
}

func writeSyntheticIndex(f *os.File, first, distinct, references int) (index.Summary, error) {
	w, err := index.NewWriter(f, index.Options{Kind: index.Dynamic, Ctime: 1700000000})
	if err != nil {
		return index.Summary{}, err
	}
	for i := range references {
		e := index.Entry{Off: uint64(i), Size: 1, ID: syntheticID(first + i%distinct)}
		if err := w.Append(e); err != nil {
			return index.Summary{}, err
		}
	}
	return w.Close()
}
