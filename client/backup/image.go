package backup

import (
	"context"
	"iter"
	"math"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"holdfast/chunkstore/chunker"
	"holdfast/client/pipeline"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// archive is one indexed archive while it is written.
type archive struct {
	name   string // in full
	writer wire.IndexWriter
	summer *index.Summer

	chunks      atomic.Int64
	newChunks   atomic.Int64
	newBytes    atomic.Int64
	storedBytes atomic.Int64
}

func (a *archive) count(plain, sealed int) {
	a.newChunks.Add(1)
	a.newBytes.Add(int64(plain))
	a.storedBytes.Add(int64(sealed))
}

// spanCutter cuts one span of an input and returns how long it was.
type spanCutter interface {
	run(ctx context.Context, s span) (int64, error)
}

// imageRun takes one input through cutting and sending, in regions.
type imageRun struct {
	in      input
	to      *archive
	send    *sender
	fixed   bool
	pol     chunker.Polynomial
	params  chunker.Params
	prev    *index.Reader // nil: nothing to compare with
	region  int64         // size of a region in bytes
	cutters int

	sealing sync.WaitGroup
	ended   atomic.Bool // a stream has come to its end
}

// region is a span whose pieces have been cut; they may still be on their way
// to the store.
type region struct {
	entries []*index.Entry
	sent    *errgroup.Group
}

// run returns when every piece is stored and recorded in order.
func (r *imageRun) run(ctx context.Context) error {
	defer r.sealing.Wait()
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	limits := pipeline.Limits{Workers: r.cutters, Depth: 2*r.cutters + 2}
	if r.in.img == nil {
		limits.Workers = 1
	}
	return pipeline.Ordered(ctx, limits, r.spans(), pipeline.Stages[span, *region]{
		Work:    r.cut,
		Consume: func(reg *region) error { return r.record(ctx, reg) },
	})
}

// spans yields the regions of the input; those of a stream until it ends.
func (r *imageRun) spans() iter.Seq2[span, error] {
	end := r.in.size
	if end < 0 {
		end = math.MaxInt64 - r.region
	}
	return func(yield func(span, error) bool) {
		for off := int64(0); off < end && !r.ended.Load(); off += r.region {
			if !yield(span{off, min(off+r.region, end)}, nil) {
				return
			}
		}
	}
}

// cut cuts one region; its pieces are stored by other goroutines meanwhile.
func (r *imageRun) cut(ctx context.Context, s span) (*region, error) {
	reg := &region{}
	reg.sent, ctx = errgroup.WithContext(ctx)
	c, err := r.newCutter(s, func(ctx context.Context, p piece) error {
		r.emit(ctx, reg, p)
		return nil
	})
	if err != nil {
		return nil, err
	}
	n, err := c.run(ctx, s)
	if err != nil {
		// A piece that could not be stored has stopped the cutting: its
		// error is the one to tell.
		if sendErr := reg.sent.Wait(); sendErr != nil {
			return nil, sendErr
		}
		return nil, err
	}
	if n < s.end-s.off {
		r.ended.Store(true)
	}
	return reg, nil
}

// emit records a piece's place in its region and sends it on its way.
func (r *imageRun) emit(ctx context.Context, reg *region, p piece) {
	e := &index.Entry{Off: uint64(p.off), Size: uint32(p.size), ID: p.id}
	reg.entries = append(reg.entries, e)
	r.sealing.Add(1)
	if p.same {
		r.send.progress.Done.Add(int64(p.size))
		r.sealing.Done()
		return
	}
	reg.sent.Go(func() error {
		defer r.sealing.Done()
		id, err := r.send.store(ctx, p, r.to)
		e.ID = id
		r.send.progress.Done.Add(int64(p.size))
		return err
	})
}

// record waits until a region is stored and appends it to the index.
func (r *imageRun) record(ctx context.Context, reg *region) error {
	if err := reg.sent.Wait(); err != nil {
		return err
	}
	if len(reg.entries) == 0 {
		return nil
	}
	entries := make([]index.Entry, len(reg.entries))
	for i, e := range reg.entries {
		entries[i] = *e
		r.to.summer.Add(*e)
	}
	r.to.chunks.Add(int64(len(entries)))
	return r.to.writer.Append(ctx, entries)
}

// newCutter returns a cutter for one region.
func (r *imageRun) newCutter(s span, emit func(context.Context, piece) error) (spanCutter, error) {
	var src reader = &streamReader{in: r.in.stream, read: &r.send.progress.Read}
	if r.in.img != nil {
		src = &imageReader{img: r.in.img, read: &r.send.progress.Read}
	}
	if r.fixed {
		return &fixedCutter{src: src, buffers: r.send.buffers, emit: emit, sum: r.send.sum}, nil
	}
	chunks, err := chunker.New(r.pol, r.params)
	if err != nil {
		return nil, err
	}
	c := &cutter{src: src, chunks: chunks, buffers: r.send.buffers, emit: emit, name: r.send.codec.Name, sum: r.send.sum}
	if r.prev != nil {
		c.replay = &replay{prev: r.prev, zero: r.send.zeroID, store: r.send}
		c.replay.seek(s.off)
	}
	return c, nil
}
