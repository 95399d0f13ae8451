// Package gc removes the chunks that no snapshot refers to.
//
// First it removes for good what has been in the trash for long enough. Then it
// marks, then sweeps. The mark reads every index of every snapshot, those in the
// trash too; an index that cannot be listed or read, or a store in which none is found
// though it holds chunks, ends the collection before anything is removed. The
// sweep is that of the chunk store, which keeps besides what open sessions
// count on. What unfinished sessions have left ends between mark and sweep: lists to
// resume by, and groups that hold nothing. Mark and sweep ask no clock, the trash has one that cannot be
// hurried, and backups, restores and verifications go on meanwhile.
//
// Memory: 24 to 48 bytes for each chunk in the store.
package gc

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/datastore"
	"holdfast/datastore/index"
)

// Store is what is collected; *datastore.Store is one.
type Store interface {
	EmptyTrash(ctx context.Context, all bool) (n int, err error)
	BeginSweep(ctx context.Context) (*pack.Sweep, error)
	Indexes(ctx context.Context) ([]datastore.IndexFile, error)
	OpenIndex(ctx context.Context, f datastore.IndexFile) (*index.Reader, error)
	Scope(ctx context.Context, f datastore.IndexFile) datastore.Scope
}

// Options say how to collect.
type Options struct {
	// DryRun tells what would be removed, were the trash left as it is.
	DryRun bool
	// AllowEmpty collects even if no snapshot refers to anything: without it a
	// tree that is not mounted would look like a store full of garbage.
	AllowEmpty bool
	// Workers is how many indexes are read at a time; 0 means one for each
	// core.
	Workers int
	// Progress, if set, is kept up to date.
	Progress *Progress
}

// Progress is what a running collection has done. It may be read at any time.
type Progress struct {
	Indexes    atomic.Int64 // to be read
	IndexesRun atomic.Int64
	Packs      atomic.Int64 // to be swept
	PacksDone  atomic.Int64
}

// Report says what a collection has found and removed.
type Report struct {
	// TrashRemoved is how many snapshots have gone from the trash for good.
	TrashRemoved int
	// Indexes is how many were read, and Deleted how many of them are in the
	// trash.
	Indexes, Deleted int
	References       uint64 // entries of all indexes
	// IndexBytes is the sum of the sizes of all archives, in bytes.
	IndexBytes uint64
	pack.SweepReport
}

// ErrNothingFound ends a collection that has found no reference at all in a
// store that holds chunks: more likely the snapshots are not where they should
// be than that all chunks are garbage.
var ErrNothingFound = chunkstore.ErrNothingFound

// Collect removes what nothing refers to.
func Collect(ctx context.Context, s Store, o Options) (Report, error) {
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Progress == nil {
		o.Progress = new(Progress)
	}
	m := &marker{store: s, o: o, hasher: chunkstore.NewHasher()}
	var err error
	if !o.DryRun {
		if m.report.TrashRemoved, err = s.EmptyTrash(ctx, false); err != nil {
			return m.report, fmt.Errorf("collect garbage: empty the trash: %w", err)
		}
	}
	sw, err := s.BeginSweep(ctx)
	if err != nil {
		return m.report, fmt.Errorf("collect garbage: %w", err)
	}
	defer sw.Close()
	m.used.reserve(sw.Records())
	if err := m.run(ctx); err != nil {
		return m.report, fmt.Errorf("collect garbage: %w", err)
	}
	r := m.report
	if r.References == 0 && !o.AllowEmpty {
		if r.SweepReport, err = sw.Run(ctx, m.isUsed, pack.SweepOptions{DryRun: true}); err == nil && r.Chunks > 0 {
			err = ErrNothingFound
		}
		if err != nil {
			return r, fmt.Errorf("collect garbage: %w", err)
		}
	}
	r.SweepReport, err = sw.Run(ctx, m.isUsed, pack.SweepOptions{DryRun: o.DryRun, Progress: func(p pack.SweepReport) {
		o.Progress.Packs.Store(int64(p.PacksTotal))
		o.Progress.PacksDone.Store(int64(p.PacksDone))
	}})
	if err != nil {
		return r, fmt.Errorf("collect garbage: %w", err)
	}
	return r, nil
}

// marker reads all indexes.
type marker struct {
	store Store
	o     Options

	hasher chunkstore.Hasher
	used   set
	// loose are names and sizes of which every owner's chunks are in use, since it
	// is not known who is meant.
	loose set

	mu     sync.Mutex
	report Report
}

func (m *marker) run(ctx context.Context) error {
	files, err := m.store.Indexes(ctx)
	if err != nil {
		return err
	}
	m.o.Progress.Indexes.Store(int64(len(files)))
	group, ctx := errgroup.WithContext(ctx)
	group.SetLimit(m.o.Workers)
	for _, f := range files {
		group.Go(func() error {
			defer m.o.Progress.IndexesRun.Add(1)
			return m.index(ctx, f)
		})
	}
	return group.Wait()
}

// isUsed reports whether a chunk was marked.
func (m *marker) isUsed(k chunkstore.Key) bool {
	return m.used.has(m.hasher.Of(k)) || m.loose.count > 0 && m.loose.has(m.hasher.Of(chunkstore.Key{ID: k.ID, Size: k.Size}))
}

// index marks the chunks of one index.
func (m *marker) index(ctx context.Context, f datastore.IndexFile) error {
	idx, err := m.store.OpenIndex(ctx, f)
	if errors.Is(err, chunkstore.ErrNotExist) {
		return nil // forgotten with its snapshot since it was listed
	}
	if err != nil {
		return err
	}
	defer idx.Close()
	const batchSize = 4096
	batch, set := make([]chunkstore.StandIn, 0, batchSize), &m.used
	scope := m.store.Scope(ctx, f)
	if scope.Doubt != nil {
		scope, set = datastore.Scope{}, &m.loose
	}
	for e, err := range idx.All(0) {
		if err != nil {
			return fmt.Errorf("%s: %w", f, err)
		}
		if batch = append(batch, m.hasher.Of(scope.Key(e))); len(batch) < batchSize {
			continue
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		set.add(batch)
		batch = batch[:0]
	}
	set.add(batch)
	m.mu.Lock()
	defer m.mu.Unlock()
	m.report.Indexes++
	if f.Deleted {
		m.report.Deleted++
	}
	m.report.References += uint64(idx.Count())
	m.report.IndexBytes += idx.Size()
	return nil
}
