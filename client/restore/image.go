package restore

import (
	"context"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/client/pipeline"
	"holdfast/datastore/image"
	"holdfast/datastore/index"
)

// part is one chunk of the archive on its way to the target.
type part struct {
	entry index.Entry
	zero  bool             // known to be zeros, not read
	same  bool             // the target has it already
	plain chunkstore.Plain // otherwise
	old   []byte           // what the target has, when only differences are written
	bench *bench
}

// bench is the memory of one chunk under way; it grows to the largest seen.
type bench struct{ plain, old []byte }

// origin is where an image's chunks come from; early is nil if they are near.
type origin struct {
	*image.Image
	early *ahead
}

// distantWorkers is how many chunks of a server a differential restore compares
// and gets at once: what each of them takes is waiting, not computing.
const distantWorkers = 8

// run is one image being written to one target.
type run struct {
	img      origin
	target   *guarded
	compare  bool
	benches  *pipeline.Pool[*bench]
	progress *Progress
	report   *Report
}

// restoreImage writes an indexed archive to the target that the options name.
func restoreImage(ctx context.Context, img origin, o *Options, report *Report) error {
	report.Size = img.Size()
	o.Progress.Total.Store(report.Size)
	w, err := wantedOf(ctx, img)
	if err != nil {
		return err
	}
	t, err := openTarget(o, w)
	if err != nil {
		return err
	}
	limits := pipeline.Limits{Workers: o.Workers, Depth: 2*o.Workers + 2}
	r := &run{img: img, target: t, compare: t.existing, progress: o.Progress, report: report}
	r.benches = pipeline.NewPool(limits.Depth, func() *bench { return new(bench) })
	return t.conclude(func() error {
		ctx, cancel := context.WithCancel(ctx)
		entries := img.Index().All(0)
		if img.early != nil {
			defer img.early.asking.Wait()
			entries = img.early.entries(ctx, entries, img.IsZero)
		}
		defer cancel()
		return pipeline.Ordered(ctx, limits, entries, pipeline.Stages[index.Entry, part]{
			Work: r.fetch, Consume: r.write,
		})
	})
}

// wantedOf tells of an image what its target has to know.
func wantedOf(ctx context.Context, img origin) (wanted, error) {
	w := wanted{size: img.Size()}
	for e, err := range img.Index().All(0) {
		if err != nil {
			return w, err
		}
		if !img.IsZero(e) {
			w.data += int64(e.Size)
		}
	}
	w.begins = func() ([]byte, error) {
		for e, err := range img.Index().All(0) {
			if err != nil || img.IsZero(e) {
				return nil, err
			}
			return img.Chunk(ctx, e, nil)
		}
		return nil, nil
	}
	return w, nil
}

// fetch gets one chunk ready to be written. It runs on several goroutines.
func (r *run) fetch(ctx context.Context, e index.Entry) (part, error) {
	p := part{entry: e, zero: r.img.IsZero(e)}
	if p.zero && !r.compare {
		return p, nil
	}
	b, err := r.benches.Get(ctx)
	if err != nil {
		return p, err
	}
	p.bench = b
	if r.compare {
		if p.old, err = r.readOld(b, e); err != nil {
			return p, err
		}
		if p.same = r.img.Matches(e, p.old); p.same || p.zero {
			return p, nil
		}
	}
	if cap(b.plain) < int(e.Size) {
		b.plain = make([]byte, 0, roomFor(int(e.Size)))
	}
	p.plain, err = r.img.Chunk(ctx, e, b.plain)
	if r.img.early != nil && err == nil {
		r.img.early.release(e.ID)
	}
	return p, err
}

// roomFor rounds a chunk size up, so that a bench seldom has to grow, with a
// little to spare for the decoder.
func roomFor(size int) int {
	const step = 512 << 10
	return (size/step + 1) * step
}

// readOld reads what an existing target has where the chunk belongs.
func (r *run) readOld(b *bench, e index.Entry) ([]byte, error) {
	if cap(b.old) < int(e.Size) {
		b.old = make([]byte, roomFor(int(e.Size)))
	}
	old := b.old[:e.Size]
	n, err := r.target.readAt(old, int64(e.Off))
	if err != nil {
		return nil, fmt.Errorf("read target at offset %d: %w", e.Off, err)
	}
	clear(old[n:]) // beyond its end a file is going to be zeros
	return old, nil
}

// write puts one chunk in its place. Chunks come in the order of their offsets.
func (r *run) write(p part) error {
	err := r.writePart(p)
	if p.bench != nil {
		r.benches.Put(p.bench)
	}
	r.progress.Done.Add(int64(p.entry.Size))
	return err
}

func (r *run) writePart(p part) error {
	off, size := int64(p.entry.Off), int64(p.entry.Size)
	switch {
	case p.same:
		r.report.BytesSame += size
		return nil
	case p.zero:
		r.report.BytesZero += size
		return r.target.zero(off, size)
	case p.old != nil:
		return r.writeDifferences(off, p)
	}
	if err := r.target.writeAt(p.plain, off); err != nil {
		return err
	}
	r.written(size)
	return nil
}

func (r *run) written(n int64) {
	r.report.BytesWritten += n
	r.progress.Written.Add(n)
}

// compareUnit is the smallest piece that a differential restore writes.
const compareUnit = 4096

// writeDifferences writes the blocks in which the target differs from p.
func (r *run) writeDifferences(off int64, p part) error {
	for from := 0; from < len(p.plain); {
		to := r.extent(p, from)
		if string(p.plain[from:to]) == string(p.old[from:to]) {
			r.report.BytesSame += int64(to - from)
		} else {
			if err := r.target.writeAt(p.plain[from:to], off+int64(from)); err != nil {
				return err
			}
			r.written(int64(to - from))
		}
		from = to
	}
	return nil
}

// extent returns the end of the run of blocks from there on that are all equal
// to the target's, or all different.
func (r *run) extent(p part, from int) int {
	block := func(at int) bool {
		end := min(at+compareUnit, len(p.plain))
		return string(p.plain[at:end]) == string(p.old[at:end])
	}
	to := from
	for same := block(from); to < len(p.plain) && block(to) == same; {
		to = min(to+compareUnit, len(p.plain))
	}
	return to
}
