package pack

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// A sweep removes chunks that nobody needs. It asks no clock:
//
//  1. BeginSweep. Whatever a session has put or counts on that is open now, or begins
//     later, is kept until the sweep has ended, and longer if the session stays.
//  2. The caller finds out what is in use: after 1, so that a snapshot he does
//     not see is one whose session is covered by 1.
//  3. Run. A pack with much waste is condemned: its chunks without use count as
//     not stored from then on, so that a backup which has one of them stores it
//     anew. Those in use are copied to another pack and synced; one transaction
//     of the catalogue then forgets the pack, and when that is durable the file
//     is removed.
//
// A crash at any point leaves what was in use in place: the pack is there
// until its copies are, and one that is there without being known is learned
// again by the next start, as garbage for the next sweep.

// wasteDefault is the part of a pack that may be garbage before it is
// rewritten.
const wasteDefault = 0.25

// smallPacksMax is how many packs of less than a quarter of the usual size may
// lie about before they are merged.
const smallPacksMax = 8

// ErrSweeping is returned by BeginSweep while another sweep runs.
var ErrSweeping = chunkstore.ErrSweeping

// errLeft says that a pack was left as it is, because of doubt.
var errLeft = errors.New("left as it is")

// Sweep is one removal of chunks without use.
type Sweep struct {
	// Before, if it is set, is called by Run before anything is removed, and not in a
	// dry run. With an error nothing is.
	Before func(context.Context) error

	s      *Store
	number uint64  // Store.order when it began
	kept   extents // of sessions that have ended since it began; guarded by Store.mu
	blind  bool    // it is not known what sessions hold; guarded by Store.mu
	used   func(chunkstore.Key) bool
	cat    *catalogue.File // which told of the pack at hand
}

// SweepOptions say what a sweep does.
type SweepOptions struct {
	// DryRun only counts.
	DryRun bool
	// Waste is the part of a pack, between 0 and 1, that may be garbage; 0
	// means a quarter.
	Waste float64
	// Progress, if set, is called after each pack.
	Progress func(SweepReport)
}

// SweepReport says what a sweep has done, or in a dry run would do. Sizes are
// in bytes.
type SweepReport struct {
	Chunks      uint64 // in the catalogue
	StoredBytes uint64 // of their blobs
	UsedChunks  uint64 // of them, those in use or held by a session
	UsedBytes   uint64

	PacksTotal     int // packs that are to be removed or rewritten
	PacksDone      int
	PacksRemoved   int // missing ones in which nothing in use lay among them
	PacksRewritten int
	ChunksRemoved  uint64
	BytesRemoved   uint64 // size of the pack files that went
	ChunksMoved    uint64
	BytesMoved     uint64 // what was written again

	// GarbageBytes stay: in packs with little waste, or that a session goes on with.
	GarbageBytes uint64
	// Left are packs with damage or doubt that were not touched, and why.
	Left []string
}

// BeginSweep begins a sweep. There is one at a time.
func (s *Store) BeginSweep(ctx context.Context) (*Sweep, error) {
	if err := s.usable(ctx); err != nil {
		return nil, fmt.Errorf("begin sweep: %w", err)
	}
	if err := s.writable(); err != nil {
		return nil, fmt.Errorf("begin sweep: %w", err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.sweep != nil {
		return nil, ErrSweeping
	}
	s.order++
	sw := &Sweep{s: s, number: s.order, kept: make(extents)}
	for se := range s.sessions {
		sw.blind = sw.blind || se.order < s.rebuiltAt
	}
	s.sweep = sw
	return sw, nil
}

// Records is how many records the packs had when it was asked, garbage among
// them: no more chunks than that are in use.
func (sw *Sweep) Records() uint64 {
	sw.s.mu.Lock()
	defer sw.s.mu.Unlock()
	var n uint64
	for _, p := range sw.s.packs {
		n += uint64(p.Records)
	}
	return n
}

// Close ends the sweep.
func (sw *Sweep) Close() {
	sw.s.mu.Lock()
	defer sw.s.mu.Unlock()
	if sw.s.sweep == sw {
		sw.s.sweep = nil
	}
}

// victim is a pack to be removed or rewritten.
type victim struct {
	no     uint32
	used   uint64 // bytes of records in use
	listed uint64 // records that the catalogue has in it
	waste  uint64
	small  bool
	open   bool // to be sealed first
}

// Run removes what used says is not in use. used is asked for every chunk of every
// owner, by one goroutine. A record stays while it is in use for one of those that
// have it. When it fails or is interrupted, what was done until then is
// done, and nothing that is in use is gone.
func (sw *Sweep) Run(ctx context.Context, used func(chunkstore.Key) bool, o SweepOptions) (SweepReport, error) {
	var r SweepReport
	sw.used = used
	if o.Waste <= 0 {
		o.Waste = wasteDefault
	}
	if !o.DryRun && sw.Before != nil {
		if err := sw.Before(ctx); err != nil {
			return r, fmt.Errorf("sweep: %w", err)
		}
	}
	if !o.DryRun {
		take, err := sw.s.FreeReserve(ctx)
		if err != nil {
			return r, fmt.Errorf("sweep: %w", err)
		}
		defer take()
	}
	// What is pending has to be in the catalogue for the count.
	if err := sw.s.sync(ctx); err != nil && !errors.Is(err, chunkstore.ErrNoSpace) {
		return r, fmt.Errorf("sweep: %w", err)
	}
	victims, inUse, err := sw.plan(ctx, used, o, &r)
	if err == nil && !o.DryRun {
		err = sw.forgetLost(ctx, inUse, &r)
	}
	if err != nil {
		return r, fmt.Errorf("sweep: %w", err)
	}
	r.PacksTotal = len(victims)
	if o.DryRun {
		sw.wouldDo(victims, &r)
		return r, nil
	}
	for _, v := range victims {
		switch err := sw.victim(ctx, v, used, &r); {
		case errors.Is(err, errTaken), errors.Is(err, errRebuilt):
			r.GarbageBytes += v.waste // for the next sweep
		case errors.Is(err, errLeft):
			r.Left = append(r.Left, err.Error())
			r.GarbageBytes += v.waste
		case err != nil:
			return r, fmt.Errorf("sweep: %w", err)
		}
		r.PacksDone++
		if o.Progress != nil {
			o.Progress(r)
		}
	}
	return r, nil
}

// plan counts use and garbage by pack and chooses what to sweep: packs without
// any use first, since they need no room. inUse are the bytes in use of every pack.
func (sw *Sweep) plan(ctx context.Context, used func(chunkstore.Key) bool, o SweepOptions, r *SweepReport) (victims []victim, inUse map[uint32]uint64, err error) {
	inUse = make(map[uint32]uint64)
	listed := make(map[uint32]uint64)
	c := &census{inUse: inUse, listed: listed, r: r, used: used, held: sw.s.heldNow()}
	if err := sw.s.eachLocation(ctx, c.add); err != nil {
		return nil, nil, err
	}
	c.flush()
	small := 0
	for no, p := range sw.sealed() {
		v := newVictim(no, p, inUse[no], false)
		// A pack is full by the number of its records, too.
		if v.small = p.Size < sw.s.options.PackSize/4 && p.Records < packfile.RecordCountMax/4; v.small {
			small++
		}
		victims = append(victims, v)
	}
	for no, p := range sw.unsealed() {
		victims = append(victims, newVictim(no, p, inUse[no], true))
	}
	victims = slices.DeleteFunc(victims, func(v victim) bool {
		merge := v.small && small > smallPacksMax
		stays := v.used > 0 && !merge && float64(v.waste) < o.Waste*float64(v.waste+v.used)
		if stays {
			r.GarbageBytes += v.waste
		}
		return stays
	})
	for i, v := range victims {
		victims[i].listed = listed[v.no]
	}
	slices.SortFunc(victims, func(a, b victim) int { return cmp.Or(cmp.Compare(a.used, b.used), cmp.Compare(a.no, b.no)) })
	return victims, inUse, nil
}

func newVictim(no uint32, p catalogue.PackInfo, used uint64, open bool) victim {
	v := victim{no: no, used: used, open: open}
	if all := p.Records*packfile.RecordSize + p.Stored; all > used {
		v.waste = all - used
	}
	return v
}

// eachLocation calls fn for every chunk in the catalogue.
func (s *Store) eachLocation(ctx context.Context, fn func(chunkstore.Key, catalogue.Location)) error {
	var at chunkstore.Key
	for done := false; !done; {
		if err := s.usable(ctx); err != nil {
			return err
		}
		var err error
		s.catMu.RLock()
		at, done, err = s.cat.Scan(at, walkBatch, fn)
		s.catMu.RUnlock()
		if err != nil {
			return err
		}
	}
	return nil
}

// sealed returns the packs that the catalogue knows as they are.
func (sw *Sweep) sealed() map[uint32]catalogue.PackInfo {
	s := sw.s
	s.mu.Lock()
	defer s.mu.Unlock()
	packs := make(map[uint32]catalogue.PackInfo)
	if sw.blind {
		return packs
	}
	for no, p := range s.packs {
		if p.State == packfile.StateSealed && !s.dirty[no] && !p.Missing && !p.Dropped {
			packs[no] = *p
		}
	}
	return packs
}

func (sw *Sweep) wouldDo(victims []victim, r *SweepReport) {
	for _, v := range victims {
		r.BytesRemoved += uint64(sw.s.packNow(v.no).Size)
		r.BytesMoved += v.used
		if v.used > 0 {
			r.PacksRewritten++
		} else {
			r.PacksRemoved++
		}
	}
	r.ChunksRemoved = r.Chunks - r.UsedChunks // at most: those in packs that stay are among them
}

// victim sweeps one pack, which is sealed first if it has to be.
func (sw *Sweep) victim(ctx context.Context, v victim, used func(chunkstore.Key) bool, r *SweepReport) error {
	if v.open {
		if err := sw.seal(ctx, v.no); err != nil {
			return err
		}
	}
	return sw.pack(ctx, v, used, r)
}

// pack sweeps one pack.
func (sw *Sweep) pack(ctx context.Context, v victim, used func(chunkstore.Key) bool, r *SweepReport) error {
	p := sw.s.packNow(v.no)
	sw.cat = sw.s.catalogueNow()
	entries, err := sw.s.currentEntries(ctx, v, p)
	if err != nil {
		return err
	}
	var candidates, keep []current
	for _, e := range entries {
		if e.used(used) {
			keep = append(keep, e)
		} else {
			candidates = append(candidates, e)
		}
	}
	dead, err := sw.condemn(v.no, candidates, &keep)
	if err != nil {
		return err
	}
	if err := sw.move(ctx, v.no, keep, r); err != nil {
		sw.pardon(v.no)
		return err
	}
	if err := sw.drop(ctx, v.no, dead); err != nil {
		sw.pardon(v.no)
		return err
	}
	if len(keep) > 0 {
		r.PacksRewritten++
	} else {
		r.PacksRemoved++
	}
	r.ChunksRemoved += uint64(len(dead))
	r.BytesRemoved += uint64(p.Size)
	return nil
}

func (s *Store) packNow(no uint32) catalogue.PackInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	return *s.packs[no]
}

// condemn makes those of the candidates that no session holds count as not stored, and
// moves the others to keep. It is errTaken if it is not known what sessions hold.
func (sw *Sweep) condemn(no uint32, candidates []current, keep *[]current) (dead []current, err error) {
	s := sw.s
	s.mu.Lock()
	defer s.mu.Unlock()
	if sw.blind {
		return nil, errTaken
	}
	set := make(map[int64]bool, len(candidates))
	held := s.heldIn(no)
	for _, e := range candidates {
		if slices.ContainsFunc(held, func(list []extent) bool { return covers(list, e.Off) }) {
			*keep = append(*keep, e)
			continue
		}
		dead = append(dead, e)
		set[e.Off] = true
	}
	s.condemned[no] = set
	return dead, nil
}

// pardon takes back what condemn has done.
func (sw *Sweep) pardon(no uint32) {
	sw.s.mu.Lock()
	defer sw.s.mu.Unlock()
	delete(sw.s.condemned, no)
}
