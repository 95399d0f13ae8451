package pack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/errgroup"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

const (
	// scrubSaved is after how many bytes read the dates of good checks go into
	// the catalogue: what a kill costs a scrub.
	scrubSaved = 256 << 20
	// scrubNamesMax is how many damaged packs a report names.
	scrubNamesMax = 1000
)

// ScrubOptions say how to scrub. The zero value reads everything at full speed.
type ScrubOptions struct {
	// Before leaves out the packs whose last good check is at or after it, and
	// not later than now, in
	// Unix seconds; 0 reads all of them.
	Before int64
	// Now is the clock that good checks are dated with; nil means time.Now.
	Now func() time.Time
	// Rate bounds the bytes read in a second, by all workers together; 0 means
	// no bound.
	Rate int64
	// Workers is how many packs are read at once; 0 means one for each core.
	Workers int
	// Progress, if set, is called after each pack, and Damaged for each chunk, of
	// whatever owner, of which the damaged record is the one that Get would read.
	// Calls of the two do not overlap.
	Progress func(ScrubReport)
	Damaged  func(chunkstore.Key, error)
}

// ScrubReport says what a scrub has read and found. Sizes are in bytes.
type ScrubReport struct {
	Packs        int // read
	PacksSkipped int // checked recently
	PacksDamaged int // with anything wrong, or missing
	Chunks       uint64
	Bytes        uint64 // of the packs that were read
	BytesTotal   uint64 // of the packs that are to be read
	Damaged      uint64 // records
	Retried      uint64 // reads that went wrong and right when done again
	// Names are the damaged packs, at most 1,000 of them.
	Names []string
}

// Scrub reads every byte of every pack and compares it with its checksum: the
// stored bytes and the header of each record, and of a sealed pack the table
// and the headers too. It goes through the packs in the order in which they
// were begun. What reads wrong is read again, through another descriptor, before
// it counts as damaged.
//
// Nothing is removed. A chunk whose record is damaged is quarantined: Stat does
// not vouch for it any more, and the next session that has it stores it anew. A
// record in quarantine that is found sound after all leaves it.
//
// Scrub may run beside everything but Close. An interrupted one goes on where
// it was if it is told in Before when it began first. Records that are not
// synced yet are left to the next one.
func (s *Store) Scrub(ctx context.Context, o ScrubOptions) (ScrubReport, error) {
	if err := s.usable(ctx); err != nil {
		return ScrubReport{}, fmt.Errorf("scrub: %w", err)
	}
	if o.Rate < 0 {
		return ScrubReport{}, fmt.Errorf("scrub: rate %d: %w", o.Rate, chunkstore.ErrInvalid)
	}
	if o.Workers <= 0 {
		o.Workers = runtime.GOMAXPROCS(0)
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	sc := &scrub{s: s, o: o, pace: pace{rate: o.Rate}}
	err := sc.run(ctx)
	// What was found is kept, also by one that was interrupted.
	if serr := sc.save(context.WithoutCancel(ctx)); err == nil {
		err = serr
	}
	if err != nil {
		err = fmt.Errorf("scrub: %w", err)
	}
	return sc.report, err
}

// scrub is one run of Scrub.
type scrub struct {
	s    *Store
	o    ScrubOptions
	pace pace

	mu      sync.Mutex // guards all below; held while the caller's functions run
	report  ScrubReport
	unsaved uint64 // bytes read since the last save
}

func (sc *scrub) run(ctx context.Context) error {
	todo := sc.plan()
	group, gctx := errgroup.WithContext(ctx)
	group.SetLimit(sc.o.Workers)
	for _, no := range todo {
		if gctx.Err() != nil {
			break
		}
		group.Go(func() error {
			if err := sc.s.usable(gctx); err != nil {
				return err
			}
			res, err := sc.checkPack(gctx, no)
			if err != nil {
				return err
			}
			return sc.done(gctx, no, res)
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	return ctx.Err()
}

// plan lists the packs to read, by number.
func (sc *scrub) plan() []uint32 {
	s := sc.s
	s.mu.Lock()
	defer s.mu.Unlock()
	var todo []uint32
	now := sc.o.Now().Unix()
	for no, p := range s.packs {
		if p.Dropped {
			continue
		}
		// A date in the future was written by a clock that was wrong.
		if sc.o.Before > 0 && p.Checked >= sc.o.Before && p.Checked <= now && !p.Missing {
			sc.report.PacksSkipped++
			continue
		}
		sc.report.BytesTotal += uint64(p.Size)
		todo = append(todo, no)
	}
	slices.Sort(todo)
	return todo
}

// done takes the result of one pack.
func (sc *scrub) done(ctx context.Context, no uint32, res packResult) error {
	var lost []lostKey
	if !res.gone {
		// Also when it was interrupted this moment: what is known is kept.
		lost = sc.s.settle(context.WithoutCancel(ctx), no, res, sc.o.Now().Unix())
	}
	sc.mu.Lock()
	defer sc.mu.Unlock()
	r := &sc.report
	r.Packs++
	r.Chunks += res.chunks
	r.Bytes += res.bytes
	r.Retried += res.retried
	sc.unsaved += res.bytes
	if !res.gone && !res.sound() {
		r.PacksDamaged++
		r.Damaged += uint64(len(res.bad))
		if len(r.Names) < scrubNamesMax {
			r.Names = append(r.Names, res.name)
		}
	}
	for _, b := range lost {
		if sc.o.Damaged != nil {
			sc.o.Damaged(b.key, b.err)
		}
	}
	if sc.o.Progress != nil {
		rep := *r
		rep.Names = slices.Clone(r.Names)
		sc.o.Progress(rep)
	}
	if len(lost) == 0 && sc.unsaved < scrubSaved {
		return nil
	}
	sc.unsaved = 0
	return sc.save(ctx)
}

// save brings marks and dates into the catalogue, if that can be written.
func (sc *scrub) save(ctx context.Context) error {
	if sc.s.writable() != nil {
		return nil
	}
	if err := sc.s.sync(ctx); err != nil && !errors.Is(err, chunkstore.ErrNoSpace) {
		return err
	}
	return nil
}

// lostKey is a chunk whose record is damaged.
type lostKey struct {
	key chunkstore.Key
	err error
}

// settle makes known what was found in a pack: marks on records, and the date
// of a good check. It returns the chunks that are read from one of the damaged
// records.
func (s *Store) settle(ctx context.Context, no uint32, res packResult, now int64) (lost []lostKey) {
	for _, b := range res.bad {
		at := catalogue.Spot{Pack: no, Off: b.Off}
		holders, _, err := s.holdersOf(b.Key, at)
		if err != nil || len(holders) == 0 {
			continue
		}
		_ = s.flushIfMany(ctx) // else there may be no room for the mark
		s.mark(ctx, b.Key, at, true)
		for _, h := range holders {
			if h.Spot() == at { // with a claim that is damaged it can still be read
				lost = append(lost, lostKey{h.Key, b.err})
			}
		}
	}
	for _, e := range res.cured {
		s.mark(ctx, e.Key, catalogue.Spot{Pack: no, Off: e.Off}, false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.packs[no]
	if p.Dropped || !res.sealed {
		return lost
	}
	if !res.sound() {
		now = 0
	}
	if p.Checked != now {
		p.Checked = now
		s.stamped[no] = true
	}
	return lost
}

// PackStatus is what is known of a pack.
type PackStatus struct {
	Name    string
	Sealed  bool
	Missing bool
	Bytes   int64 // size of the file when it was last looked at
	Chunks  uint64
	// Checked is when a scrub last found all of it sound, in Unix seconds; 0
	// if never, or if damage was met since. A pack that is not sealed has no
	// such date: every scrub reads it.
	Checked int64
}

// Packs lists the packs in the order of their names.
func (s *Store) Packs(ctx context.Context) ([]PackStatus, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("list packs: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	list := make([]PackStatus, 0, len(s.packs))
	for _, p := range s.packs {
		if p.Dropped {
			continue
		}
		list = append(list, PackStatus{
			Name: p.Name(), Sealed: p.State == packfile.StateSealed, Missing: p.Missing,
			Bytes: p.Size, Chunks: p.Records, Checked: p.Checked,
		})
	}
	slices.SortFunc(list, func(a, b PackStatus) int { return bytes.Compare([]byte(a.Name), []byte(b.Name)) })
	return list, nil
}

// pace spreads reading over time.
type pace struct {
	rate int64 // bytes a second; 0 is no bound
	mu   sync.Mutex
	next time.Time // when the bytes handed out so far have been paid for
}

// take waits until n more bytes may be read.
func (p *pace) take(ctx context.Context, n int) error {
	if p.rate <= 0 {
		return ctx.Err()
	}
	p.mu.Lock()
	now := time.Now()
	if p.next.Before(now) {
		p.next = now
	}
	wait := p.next.Sub(now)
	p.next = p.next.Add(time.Duration(float64(n) / float64(p.rate) * float64(time.Second)))
	p.mu.Unlock()
	if wait <= 0 {
		return ctx.Err()
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
