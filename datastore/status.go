package datastore

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore/pack"
	"holdfast/datastore/wire"
)

// Status is how full a store is. Sizes are in bytes.
type Status struct {
	Path      string
	Groups    int
	Snapshots int
	// Undated is of how many of them it is lost when they arrived.
	Undated int
	// LogicalBytes is the sum of the sizes of all archives of all snapshots.
	LogicalBytes uint64
	Chunks       uint64
	PlainBytes   uint64 // of the chunks
	StoredBytes  uint64 // of the chunks in their envelopes
	Packs        int
	MissingPacks int
	// The file system the store is on.
	DiskTotal uint64
	DiskUsed  uint64
	DiskAvail uint64
}

// Status looks at the whole store.
func (s *Store) Status(ctx context.Context) (Status, error) {
	st := Status{Path: s.path}
	chunks, err := s.chunkStore(ctx)
	if err != nil {
		return st, err
	}
	u, err := chunks.Usage(ctx)
	if err != nil {
		return st, fmt.Errorf("status of %s: %w", s.path, err)
	}
	st.Chunks, st.PlainBytes, st.StoredBytes = u.Chunks, u.PlainBytes, u.StoredBytes
	st.Packs, st.MissingPacks = u.Packs, u.MissingPacks
	if err := s.countSnapshots(ctx, &st); err != nil {
		return st, err
	}
	var fs unix.Statfs_t
	if err := unix.Statfs(s.path, &fs); err != nil {
		return st, fmt.Errorf("status of %s: %w", s.path, err)
	}
	unit := uint64(fs.Bsize)
	st.DiskTotal, st.DiskAvail, st.DiskUsed = fs.Blocks*unit, fs.Bavail*unit, (fs.Blocks-fs.Bfree)*unit
	return st, nil
}

func (s *Store) countSnapshots(ctx context.Context, st *Status) error {
	all, err := s.Namespaces(ctx, "")
	if err != nil {
		return err
	}
	for _, ns := range all {
		var last wire.Group
		for snap, err := range s.AllSnapshots(ctx, ns) {
			if err != nil {
				return err
			}
			if g := snap.Snapshot.Group; g != last {
				last = g
				st.Groups++
			}
			st.Snapshots++
			if snap.Undated {
				st.Undated++
			}
			st.LogicalBytes += snap.Size
		}
	}
	return nil
}

// ReindexReport says what the building of a catalogue has found.
type ReindexReport = pack.ReindexReport

// Reindex builds the catalogue of the chunk store anew from the packs. progress,
// if not nil, is called with the packs read so far and their number.
func (s *Store) Reindex(ctx context.Context, progress func(done, total int64)) (ReindexReport, error) {
	chunks, err := s.writable(ctx)
	if err != nil {
		return ReindexReport{}, err
	}
	r, err := chunks.Reindex(ctx, func(p pack.Progress) {
		if progress != nil {
			progress(int64(p.PacksDone), int64(p.PacksTotal))
		}
	})
	if err != nil {
		return r, fmt.Errorf("reindex %s: %w", s.path, err)
	}
	return r, nil
}

// notify tells what the opening of the chunk store has found and put right.
func (s *Store) notify(r pack.OpenReport) {
	if r.Rebuilt != nil {
		s.tell("the catalogue was rebuilt from %s with %s: %v", count(r.Reindex.Packs, "pack"), count(r.Reindex.Chunks, "chunk"), r.Rebuilt)
		switch n := r.Reindex.RecordsDamaged + r.Reindex.Unreadable; n {
		case 0:
		case 1:
			s.tell("1 damaged place was found in %s; run: holdfast verify", firstOf(r.Reindex.Names, 1))
		default:
			s.tell("%d damaged places were found in %s; run: holdfast verify", n, strings.Join(r.Reindex.Names, ", "))
		}
	}
	if r.BytesCut > 0 {
		s.tell("the last writer was interrupted: %s of an unfinished chunk dropped", count(r.BytesCut, "byte"))
	}
	switch r.PacksMissing {
	case 0:
	case 1:
		s.tell("1 pack is missing: %s; holdfast verify tells which snapshots need it. When they have been backed up anew, or forgotten, holdfast gc ends this", firstOf(r.Missing, 1))
	default:
		s.tell("%d packs are missing: %s; holdfast verify tells which snapshots need them. When they have been backed up anew, or forgotten, holdfast gc ends this", r.PacksMissing, firstOf(r.Missing, r.PacksMissing))
	}
}

// count is a number of things: "1 pack", "2 packs".
func count[N int | int64 | uint64](n N, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// firstOf lists names, of which there are all in all total.
func firstOf(names []string, total int) string {
	list := strings.Join(names, ", ")
	if len(names) < total {
		list += ", …"
	}
	return list
}
