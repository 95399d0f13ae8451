package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

const (
	// rebuildBatch is how many entries are sorted in memory at a time, and then written
	// by one transaction; it bounds the memory, to about 60 MB and the pages they touch.
	rebuildBatch = 250_000
	// namesMax is how many names of files a report lists.
	namesMax = 16
)

// Progress says how far the building of a catalogue has come.
type Progress struct {
	PacksDone, PacksTotal int
	Chunks                uint64
}

// ReindexReport says what the building of a catalogue has found.
type ReindexReport struct {
	Packs          int    // pack files read
	OpenPacks      int    // of them, those that are not sealed
	Chunks         uint64 // different chunks
	Duplicates     uint64 // further copies of them
	FootersDamaged int    // sealed packs that had to be read whole
	RecordsDamaged int    // records, or stretches of a file, that are not sound
	BytesSkipped   int64  // in them
	Unreadable     int    // packs with places that could not be read
	// Names are the first files that something was wrong with.
	Names []string
}

func (r *ReindexReport) name(name string) {
	if len(r.Names) < namesMax && !slices.Contains(r.Names, name) {
		r.Names = append(r.Names, name)
	}
}

// Reindex builds the catalogue anew from the packs and puts it in place of the
// old one. Reading and putting go on meanwhile; Sync waits. progress, if not
// nil, is called after each pack.
func (s *Store) Reindex(ctx context.Context, progress func(Progress)) (ReindexReport, error) {
	if err := s.lockCommit(ctx); err != nil {
		return ReindexReport{}, fmt.Errorf("reindex: %w", err)
	}
	defer s.unlockCommit()
	if err := s.writable(); err != nil {
		return ReindexReport{}, fmt.Errorf("reindex: %w", err)
	}
	report, err := s.rebuildLocked(ctx, progress)
	if err != nil {
		return report, fmt.Errorf("reindex: %w", err)
	}
	return report, nil
}

// heal builds the catalogue anew because cause was met in old.
func (s *Store) heal(ctx context.Context, old *catalogue.File, cause error) error {
	if s.writable() != nil {
		return cause
	}
	if err := s.lockCommit(ctx); err != nil {
		return err
	}
	defer s.unlockCommit()
	s.catMu.RLock()
	done := s.cat != old
	s.catMu.RUnlock()
	if done {
		return nil
	}
	_, err := s.rebuildLocked(ctx, nil)
	return err
}

// healMiss builds the catalogue anew because a chunk that should be there is
// not in it, at most once while the store is open. It reports whether looking
// again makes sense.
func (s *Store) healMiss(ctx context.Context) bool {
	if s.writable() != nil || s.hasHealed() || s.lockCommit(ctx) != nil {
		return false
	}
	defer s.unlockCommit()
	if s.hasHealed() {
		return true
	}
	s.setHealed()
	_, err := s.rebuildLocked(ctx, nil)
	return err == nil
}

func (s *Store) hasHealed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.healed
}

func (s *Store) setHealed() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.healed = true
}

// rebuildLocked is Reindex for whoever holds commitLock. Records that are not
// in the catalogue yet stay pending: of a pack that is open only what has been
// committed is read.
func (s *Store) rebuildLocked(ctx context.Context, progress func(Progress)) (report ReindexReport, err error) {
	s.setHealed()
	if err := s.epoch.check(s.dir); err != nil {
		return ReindexReport{}, err
	}
	b := &builder{dir: packsDir(s.dir), epoch: s.epoch.Number, batch: s.options.rebuildBatch, progress: progress, number: s.takeNumber, runs: catalogue.NewRuns(s.disk, s.dir)}
	defer func() { err = errors.Join(err, b.runs.Close()) }()
	if b.files, err = packfile.List(b.dir); err != nil {
		return b.report, err
	}
	b.known, b.running = s.knownPacks()
	b.damaged = s.isQuarantined
	if err := catalogue.Create(s.disk, s.dir, func(c *catalogue.File) error { return b.all(ctx, c) }); err != nil {
		return b.report, fmt.Errorf("build catalogue: %w", err)
	}
	s.sumGone = true
	if !b.running {
		s.epoch.Number = max(s.epoch.Number, b.maxEpoch)
	}
	return b.report, s.swapCatalogue(b)
}

// numbered is a pack that the store has a number for.
type numbered struct {
	no   uint32
	info catalogue.PackInfo // as it should stand in the catalogue
}

// knownPacks returns the packs of the running store; there are none while it
// is being opened.
func (s *Store) knownPacks() (known map[packfile.ID]numbered, running bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known = make(map[packfile.ID]numbered, len(s.packs))
	for no, p := range s.packs {
		if p.Dropped {
			continue
		}
		info := *p
		info.Totals = info.Saved
		if info.State == packfile.StateOpen {
			info.Length = info.SavedTo
		}
		known[p.ID] = numbered{no: no, info: info}
	}
	return known, s.cat != nil
}

func (s *Store) takeNumber() uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.nextPack++
	return s.nextPack - 1
}

// swapCatalogue opens the catalogue that has just been built.
func (s *Store) swapCatalogue(b *builder) error {
	c, err := catalogue.OpenFile(filepath.Join(s.dir, catalogue.FileName), false, false)
	if err != nil {
		return err
	}
	// The packs come first: whoever finds a chunk finds its pack.
	s.mu.Lock()
	for no, p := range b.built {
		if q := s.packs[no]; q != nil {
			q.Saved, q.SavedTo = p.Saved, p.SavedTo
			continue
		}
		s.packs[no] = &p
	}
	s.rebuilt() // before a sweep asks the new one
	s.mu.Unlock()
	s.catMu.Lock()
	old := s.cat
	s.cat = c
	s.catMu.Unlock()
	s.mu.Lock()
	s.rebuilt() // after the last look into the old one
	s.mu.Unlock()
	if old == nil {
		return nil
	}
	return old.Close()
}
