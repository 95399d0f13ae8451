package pack

import (
	"context"
	"errors"
	"fmt"
	"os"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/crypto"
)

// SalvageReport says what a salvage has found and rebuilt.
type SalvageReport struct {
	// Lost are the chunks that the catalogue names and that cannot be read:
	// in quarantine, or in packs that are missing or cut short.
	Lost int
	// Rescued are those of them of which the bytes were found all the same,
	// and stored again.
	Rescued int
	// Renewed are the sealed packs whose table or file header is damaged and
	// whose chunks, Moved of them, were written to another pack. What is left
	// of them is garbage.
	Renewed int
	Moved   int
}

// Salvage rebuilds what can be rebuilt from what is there: a chunk of which
// another record, of whatever owner, holds the same bytes, or whose record has a damaged header but
// sound bytes, and packs that have lost their table. It removes nothing, and
// changes nothing where nothing is damaged. A record is believed if its bytes
// have the SHA-256 that the table or the header of the damaged one tells.
func (s *Store) Salvage(ctx context.Context) (SalvageReport, error) {
	sv := &salvage{s: s, lost: make(map[catalogue.Named][]*lostChunk)}
	err := s.usable(ctx)
	if err == nil {
		err = s.writable()
	}
	if err == nil {
		err = s.sync(ctx)
	}
	if err == nil {
		err = sv.run(ctx)
	}
	if err != nil {
		return sv.report, fmt.Errorf("salvage: %w", err)
	}
	return sv.report, nil
}

// lostChunk is a chunk that cannot be read where the catalogue says.
type lostChunk struct {
	key    chunkstore.Key
	at     catalogue.Location
	sum    [32]byte // of its stored bytes, if known
	known  bool
	copies []copyOf
}

// copyOf is a record of a chunk, in whatever state.
type copyOf struct {
	pack uint32
	packfile.Entry
}

type salvage struct {
	s      *Store
	lost   map[catalogue.Named][]*lostChunk // by what their copies are known by
	worn   []uint32                         // sealed packs without a sound table or header
	report SalvageReport
}

func (sv *salvage) run(ctx context.Context) error {
	if err := sv.findLost(ctx); err != nil {
		return err
	}
	for _, p := range sv.s.present() {
		if err := sv.search(ctx, p); err != nil {
			return err
		}
	}
	for _, list := range sv.lost {
		sv.report.Lost += len(list)
	}
	if len(sv.lost) == 0 && len(sv.worn) == 0 {
		return nil
	}
	se := sv.s.newSession()
	defer se.Close()
	for _, list := range sv.lost {
		for _, l := range list {
			if err := sv.rescue(ctx, se, l); err != nil {
				return err
			}
		}
	}
	for _, no := range sv.worn {
		if err := sv.renew(ctx, se, no); err != nil {
			return err
		}
	}
	return se.Sync(ctx)
}

// findLost lists the chunks that the catalogue names and Stat denies.
func (sv *salvage) findLost(ctx context.Context) error {
	var err error
	scanErr := sv.s.eachLocation(ctx, func(k chunkstore.Key, l catalogue.Location) {
		switch herr := sv.s.healthy(l); {
		case herr == nil:
		case errors.Is(herr, chunkstore.ErrCorrupt):
			sv.lost[catalogue.NameOf(k)] = append(sv.lost[catalogue.NameOf(k)], &lostChunk{key: k, at: l})
		default:
			err = herr
		}
	})
	return errors.Join(scanErr, err)
}

// present lists the packs that are on disk.
func (s *Store) present() []copyOf {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []copyOf
	for no, p := range s.packs {
		if !p.Dropped && !p.Missing {
			list = append(list, copyOf{pack: no})
		}
	}
	return list
}

// search notes which records of lost chunks a pack holds, and whether the pack
// itself is sound.
func (sv *salvage) search(ctx context.Context, at copyOf) error {
	p := sv.s.packNow(at.pack)
	f, _, err := openPack(packsDir(sv.s.dir), p.ID, p.State)
	if err != nil {
		return nil // it was there a moment ago: not ours to rescue from
	}
	defer f.Close()
	entries, tabled := sv.entries(ctx, f, p)
	if !tabled && p.State == packfile.StateSealed {
		sv.worn = append(sv.worn, at.pack)
	}
	for _, e := range entries {
		for _, l := range sv.lost[catalogue.NameOf(e.Key)] {
			l.add(copyOf{pack: at.pack, Entry: e})
		}
	}
	return ctx.Err()
}

// add notes a record of the chunk's name and size if it may hold its bytes.
func (l *lostChunk) add(c copyOf) {
	if c.Claim || c.Key.Class() != l.key.Class() || c.Stored != l.at.Stored {
		return
	}
	l.copies = append(l.copies, c)
	if l.at.Spot() == (catalogue.Spot{Pack: c.pack, Off: c.Off}) {
		l.sum, l.known = c.Sum, true
	}
}

// has reports whether bytes of this sum, of the record c, are those of the chunk. Of an
// encrypted chunk the catalogue knows so much of the sum that they are.
func (l *lostChunk) has(c copyOf, sum [32]byte) bool {
	if l.key.Class() == chunkstore.ClassEncrypted && [catalogue.SumSize]byte(sum[:]) != l.at.Sum {
		return false
	}
	return sum == c.Sum && (!l.known || sum == l.sum)
}

// entries lists the records of a pack. tabled says that its table and its file
// header are sound.
func (sv *salvage) entries(ctx context.Context, f *os.File, p catalogue.PackInfo) (list []packfile.Entry, tabled bool) {
	size, err := durable.Size(f)
	if err != nil {
		return nil, true
	}
	if p.State == packfile.StateSealed {
		head := make([]byte, packfile.HeaderSize)
		if _, err := f.ReadAt(head, 0); err == nil {
			_, _, err = packfile.DecodeHeader(head)
			tabled = err == nil
		}
		if list, err = packfile.ReadFooter(f, size, p.ID); err == nil {
			return list, tabled
		}
	}
	if len(sv.lost) == 0 {
		return nil, false
	}
	sc := &packfile.Scanner{R: &packfile.PatchyReader{R: f}, ID: p.ID, Size: size, Sound: func(e packfile.Entry) error { list = append(list, e); return nil }}
	// The header of a record with damaged bytes still tells their sum.
	sc.Damaged = func(e packfile.Entry) { list = append(list, e) }
	_, _ = sc.Scan(ctx, packfile.HeaderSize)
	return list, false
}

// rescue stores a lost chunk again if one of its records has the right bytes.
func (sv *salvage) rescue(ctx context.Context, se *session, l *lostChunk) error {
	for _, c := range l.copies {
		b, err := sv.s.bytesAt(c)
		if err != nil || !l.has(c, crypto.Sum(b)) {
			continue
		}
		again := chunkstore.Chunk{ID: l.key.ID, PlainSize: l.key.Size, Owner: l.key.Owner, Blob: b}
		if again.Key() != l.key {
			continue
		}
		if now, ok, err := sv.s.find(ctx, l.key); err != nil || !ok || !now.SamePlace(l.at) {
			return errors.Join(ctx.Err(), err) // somebody has stored it meanwhile
		}
		if _, err = se.put(ctx, again, true); err == nil {
			sv.report.Rescued++
		}
		return err
	}
	return ctx.Err()
}

// bytesAt reads the stored bytes of a record whatever its header says.
func (s *Store) bytesAt(c copyOf) ([]byte, error) {
	p := s.packNow(c.pack)
	f, _, err := openPack(packsDir(s.dir), p.ID, p.State)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	durable.DropCache(f)
	b := make([]byte, c.Stored)
	_, err = f.ReadAt(b, c.Off+packfile.RecordSize)
	return b, err
}

// renew writes what is in use of a pack to another one. Records that cannot be
// read stay where they are.
func (sv *salvage) renew(ctx context.Context, se *session, no uint32) error {
	entries, err := sv.s.scanEntries(ctx, no)
	if err != nil {
		return err
	}
	for _, e := range entries {
		moved, err := se.move(ctx, no, e)
		if err != nil && !errors.Is(err, errLeft) {
			return err
		}
		if moved {
			sv.report.Moved++
		}
	}
	if len(entries) > 0 {
		sv.report.Renewed++
	}
	return nil
}
