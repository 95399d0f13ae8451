package pack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"hash"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/crypto"
)

// badRecord is a record that is not as it was written.
type badRecord struct {
	packfile.Entry
	err error
}

// packResult is what the reading of one pack has found.
type packResult struct {
	name    string
	gone    bool // removed by a sweep: there is nothing to say
	sealed  bool // it was when reading began
	chunks  uint64
	bytes   uint64
	retried uint64
	err     error            // of the pack itself, not of one of its records
	bad     []badRecord      // damaged records
	cured   []packfile.Entry // records in quarantine that are sound
}

func (r packResult) sound() bool { return r.err == nil && len(r.bad) == 0 }

// note keeps the first error of the pack itself.
func (r *packResult) note(err error) {
	if r.err == nil {
		r.err = fmt.Errorf("pack %s: %w: %w", r.name, chunkstore.ErrCorrupt, err)
	}
}

// packCheck is one pack being read.
type packCheck struct {
	s    *Store
	ctx  context.Context
	pace *pace
	no   uint32
	p    catalogue.PackInfo
	f    *os.File
	size int64
	res  packResult

	block block
	hash  hash.Hash
	// careful says that a block could not be read: from there on every record
	// is read by itself.
	careful bool
}

// checkPack reads one pack. The error is one that has nothing to do with it.
func (sc *scrub) checkPack(ctx context.Context, no uint32) (packResult, error) {
	pc := &packCheck{s: sc.s, ctx: ctx, pace: &sc.pace, no: no, p: sc.s.packNow(no), hash: crypto.NewHash()}
	pc.res.name, pc.res.sealed = pc.p.Name(), pc.p.State == packfile.StateSealed
	err := pc.run()
	if pc.f != nil {
		pc.f.Close()
	}
	if sc.s.packNow(no).Dropped {
		pc.res.gone, err = true, nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return pc.res, err
}

func (pc *packCheck) run() error {
	if err := pc.open(); err != nil {
		if durable.IsDamage(err) {
			pc.res.note(err)
			return nil
		}
		return err
	}
	size, err := durable.Size(pc.f)
	if err != nil {
		return err
	}
	pc.size, pc.res.bytes = size, uint64(size)
	// The kernel then reads ahead by itself, in large pages. Telling it what to
	// fetch (FADV_WILLNEED) takes two fifths of the speed away: those pages are small.
	_ = unix.Fadvise(int(pc.f.Fd()), 0, 0, unix.FADV_SEQUENTIAL)
	durable.DropCache(pc.f) // what counts is what the medium gives
	entries, tabled, err := pc.list()
	if err != nil {
		return err
	}
	pc.header()
	for _, e := range entries {
		if err := pc.record(e, tabled); err != nil {
			return err
		}
	}
	durable.DropCache(pc.f) // and nobody else needs it in memory
	return nil
}

// open opens the pack, anew if it was open.
func (pc *packCheck) open() error {
	f, _, err := openPack(packsDir(pc.s.dir), pc.p.ID, pc.p.State)
	if err != nil {
		return err
	}
	if pc.f != nil {
		pc.f.Close()
	}
	pc.f = f
	return nil
}

// ReadAt reads from the file, and asks the tests whether that went well.
func (pc *packCheck) ReadAt(b []byte, off int64) (int, error) {
	n, err := pc.f.ReadAt(b, off)
	if err == nil && pc.s.options.readHook != nil {
		err = pc.s.options.readHook(pc.f.Name(), off, b)
	}
	return n, err
}

// tries runs read until it goes well, three times at most, each time but the
// first with another descriptor and not from the cache.
func (pc *packCheck) tries(read func() error) error {
	var err error
	for try := range readTries {
		if try > 0 && pc.reopen() != nil {
			return err
		}
		if err = read(); err == nil {
			if try > 0 {
				pc.res.retried++
			}
			return nil
		}
		if pc.ctx.Err() != nil {
			return pc.ctx.Err()
		}
	}
	return err
}

func (pc *packCheck) reopen() error {
	if err := pc.open(); err != nil {
		return err
	}
	durable.DropCache(pc.f)
	return nil
}

// list tells which records the pack should hold. tabled says that their sums
// are known. A pack without a sound table is checked against the catalogue.
func (pc *packCheck) list() (entries []packfile.Entry, tabled bool, err error) {
	if pc.p.State == packfile.StateSealed {
		err = pc.tries(func() (err error) {
			entries, err = packfile.ReadFooter(pc, pc.size, pc.p.ID)
			return err
		})
	} else {
		err = pc.tries(func() (err error) {
			entries, err = pc.walk()
			return err
		})
	}
	if err == nil {
		return entries, true, nil
	}
	if pc.ctx.Err() != nil {
		return nil, false, pc.ctx.Err()
	}
	pc.res.note(err)
	entries, err = pc.s.scanEntries(pc.ctx, pc.no)
	slices.SortFunc(entries, func(a, b packfile.Entry) int { return cmp.Compare(a.Off, b.Off) })
	return entries, false, err
}

// walk reads the headers of the records of an open pack, as far as the
// catalogue has vouched for it.
func (pc *packCheck) walk() ([]packfile.Entry, error) {
	var entries []packfile.Entry
	b := make([]byte, packfile.RecordSize)
	off := int64(packfile.HeaderSize)
	for off < pc.p.SavedTo {
		if _, err := pc.ReadAt(b, off); err != nil {
			return nil, err
		}
		r, err := packfile.DecodeRecord(b, pc.p.ID)
		if err != nil {
			return nil, fmt.Errorf("at %d: %w", off, err)
		}
		e := packfile.Entry{Record: r, Off: off}
		entries = append(entries, e)
		off = e.End()
	}
	return entries, nil
}

// header checks the file header.
func (pc *packCheck) header() {
	b := make([]byte, packfile.HeaderSize)
	err := pc.tries(func() error {
		if _, err := pc.ReadAt(b, 0); err != nil {
			return err
		}
		id, _, err := packfile.DecodeHeader(b)
		if err == nil && id != pc.p.ID {
			err = fmt.Errorf("file header: belongs to pack %s", id)
		}
		return err
	})
	if err != nil {
		pc.res.note(err)
	}
}

// record checks one record. The error is one of the context.
func (pc *packCheck) record(e packfile.Entry, tabled bool) error {
	err := errCareful
	if !pc.careful {
		err = pc.stream(e, tabled)
	}
	if err != nil && pc.ctx.Err() == nil {
		err = pc.again(e, tabled, err)
	}
	if pc.ctx.Err() != nil {
		return pc.ctx.Err()
	}
	pc.res.chunks++
	if err != nil {
		err = fmt.Errorf("pack %s at %d: %w: %w", pc.res.name, e.Off, chunkstore.ErrCorrupt, err)
		pc.res.bad = append(pc.res.bad, badRecord{Entry: e, err: err})
		return nil
	}
	if pc.s.isQuarantined(place{pc.p.ID, e.Off}, e.Key.ID) {
		pc.res.cured = append(pc.res.cured, e)
	}
	return nil
}

var (
	errCareful  = errors.New("not read as part of a block")
	errChecksum = errors.New("checksum differs")
	errHeader   = errors.New("the header is that of another record")
)

// stream checks a record in the blocks that the pack is read in.
func (pc *packCheck) stream(e packfile.Entry, tabled bool) error {
	head, err := pc.piece(e.Off, packfile.RecordSize)
	if err != nil {
		return err
	}
	if len(head) < packfile.RecordSize { // it lies across the end of the block
		if head, err = pc.fill(e.Off); err != nil {
			return err
		}
	}
	want, err := pc.decode(head[:min(len(head), packfile.RecordSize)], e, tabled)
	if err != nil {
		return err
	}
	if e.Claim {
		return nil // its header is all there is
	}
	pc.hash.Reset()
	for off := e.Off + packfile.RecordSize; off < e.End(); {
		b, err := pc.piece(off, int(e.End()-off))
		if err != nil {
			return err
		}
		if len(b) == int(e.Stored) {
			if crypto.Sum(b) != want {
				return errChecksum
			}
			return nil
		}
		pc.hash.Write(b)
		off += int64(len(b))
	}
	if !bytes.Equal(pc.hash.Sum(nil), want[:]) {
		return errChecksum
	}
	return nil
}

// decode compares the header of a record with what is known of it, and returns
// the sum of the stored bytes.
func (pc *packCheck) decode(head []byte, e packfile.Entry, tabled bool) ([32]byte, error) {
	r, err := packfile.DecodeRecord(head, pc.p.ID)
	if err != nil {
		return r.Sum, err
	}
	want := e.Record
	if !tabled {
		// The catalogue does not know the sum, and the key may be that of another
		// owner who has the record too.
		want.Sum, want.Rank, want.Key.Owner = r.Sum, r.Rank, r.Key.Owner
	}
	if r != want || r.Key.Class() != e.Key.Class() {
		return r.Sum, errHeader
	}
	return r.Sum, nil
}

// piece returns what the block at hand holds from off on, n bytes at most, after
// reading on if it holds nothing of that.
func (pc *packCheck) piece(off int64, n int) ([]byte, error) {
	b := pc.block.from(off)
	if len(b) == 0 {
		var err error
		if b, err = pc.fill(off); err != nil {
			return nil, err
		}
	}
	return b[:min(n, len(b))], nil
}

// fill reads the block at off.
func (pc *packCheck) fill(off int64) ([]byte, error) {
	if off >= pc.size {
		return nil, io.ErrUnexpectedEOF
	}
	n := int(min(scrubBlock, pc.size-off))
	if err := pc.pace.take(pc.ctx, n); err != nil {
		return nil, err
	}
	b := pc.block.room(off, n)
	err := pc.tries(func() error {
		_, err := pc.ReadAt(b, off)
		return err
	})
	if err != nil {
		pc.block.drop()
		pc.careful = true
		return nil, err
	}
	return b, nil
}

// again reads a record by itself. cause is why: that much counts as the first
// try.
func (pc *packCheck) again(e packfile.Entry, tabled bool, cause error) error {
	if e.End() > pc.size {
		return io.ErrUnexpectedEOF
	}
	b := make([]byte, e.Size())
	read := func() error {
		if _, err := pc.ReadAt(b, e.Off); err != nil {
			return err
		}
		want, err := pc.decode(b[:packfile.RecordSize], e, tabled)
		if err == nil && !e.Claim && crypto.Sum(b[packfile.RecordSize:]) != want {
			err = errChecksum
		}
		return err
	}
	if pc.careful {
		if err := pc.pace.take(pc.ctx, len(b)); err != nil {
			return err
		}
		return pc.tries(read)
	}
	pc.block.drop()
	first := cause
	return pc.tries(func() error {
		if first != nil {
			err := first
			first = nil
			return err
		}
		return read()
	})
}
