package pack

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// reconcile makes the catalogue agree with the packs, after the catalogue has
// been opened or built anew:
//
//	sealed pack, known as such      nothing to do; a changed size is noted
//	sealed pack, known as open      the catalogue learns the rest of it
//	sealed pack, not known          its table goes into the catalogue
//	open pack as the catalogue      the next session goes on with it, if the
//	says                            last writer has closed the store
//	any other open pack             its records are proved and learned, a torn
//	                                rest is cut off, and it is sealed
//	known pack without a file       remembered as missing
//
// A pack whose writer is not known to be gone is never continued: should he
// live on without his lock, he can only write where nothing counts.
//
// Nothing is removed but what no catalogue has vouched for: when the catalogue
// had to be built anew, nothing is known to be torn, and all bytes stay.
func (s *Store) reconcile(ctx context.Context) error {
	files, err := packfile.List(packsDir(s.dir))
	if err != nil {
		return err
	}
	s.compare(files)
	numbers := make(map[packfile.ID]uint32, len(s.packs))
	for no, p := range s.packs {
		numbers[p.ID] = no
	}
	for _, f := range files {
		no, known := numbers[f.ID]
		if !known {
			no = s.takeNumber()
			s.packs[no] = &catalogue.PackInfo{ID: f.ID, State: f.State, Size: f.Size, Seen: s.generation}
		}
		if err := s.recoverPack(ctx, no, f); err != nil {
			return fmt.Errorf("recover pack %s: %w", f.Name(), err)
		}
		if err := s.flushRecovered(ctx, pendingMax); err != nil {
			return err
		}
	}
	if err := s.adoptClaims(); err != nil {
		return err
	}
	return s.flushRecovered(ctx, 1)
}

// flushRecovered commits what has been learned if that is much. A full disk is
// no reason not to open: until there is room, it stays in memory.
func (s *Store) flushRecovered(ctx context.Context, many int) error {
	if s.pending.Len() < many && (many > 1 || len(s.dirty) == 0) {
		return nil
	}
	if err := s.sync(ctx); err != nil && !errors.Is(err, chunkstore.ErrNoSpace) {
		return err
	}
	return nil
}

func (s *Store) recoverPack(ctx context.Context, no uint32, f packfile.File) error {
	p := s.packs[no]
	switch {
	case f.State == packfile.StateSealed && p.State == packfile.StateSealed && p.SavedTo > 0:
		if p.Size != p.Length {
			s.opened.name(f.Name())
		}
		return nil
	case f.State == packfile.StateSealed:
		return s.adoptSealed(ctx, no, f)
	case p.State == packfile.StateOpen && p.SavedTo == f.Size && !s.opened.Unclean:
		s.reusable = append(s.reusable, no)
		return nil
	}
	p.State = packfile.StateOpen
	return s.recoverOpen(ctx, no)
}

// adoptSealed teaches the catalogue a sealed pack.
func (s *Store) adoptSealed(ctx context.Context, no uint32, pf packfile.File) error {
	p := s.packs[no]
	f, err := durable.Open(filepath.Join(packsDir(s.dir), pf.Name()))
	if err != nil {
		return err
	}
	defer f.Close()
	// It was synced before it got its name, unless somebody has copied it here.
	if err := s.disk.Do("sync", f.Name(), f.Sync); err != nil {
		return s.passOver(no)
	}
	entries, err := packfile.ReadFooter(f, p.Size, p.ID)
	if err != nil {
		s.opened.name(pf.Name())
		sc := &packfile.Scanner{R: &packfile.PatchyReader{R: f}, ID: p.ID, Size: p.Size, Sound: func(e packfile.Entry) error { entries = append(entries, e); return nil }}
		if _, err := sc.Scan(ctx, packfile.HeaderSize); err != nil {
			return err
		}
	}
	p.State, p.Length = packfile.StateSealed, p.Size
	s.dirty[no] = true
	return s.adopt(no, entries)
}

// passOver leaves a pack alone whose content the medium did not take: what the
// catalogue knows of it stays, and nothing is added.
func (s *Store) passOver(no uint32) error {
	p := s.packs[no]
	s.opened.name(p.Name())
	if p.SavedTo == 0 {
		delete(s.packs, no)
	}
	return nil
}

// adopt makes records known that the catalogue does not have.
func (s *Store) adopt(no uint32, entries []packfile.Entry) error {
	p, before := s.packs[no], s.opened.Chunks
	for _, e := range entries {
		if e.End() <= p.SavedTo {
			continue
		}
		p.Add(e.Record)
		s.opened.Chunks++
		if e.Claim {
			s.claims = append(s.claims, copyOf{no, e})
			continue
		}
		l := catalogue.Locate(no, e)
		if s.isQuarantined(place{p.ID, e.Off}, e.Key.ID) {
			l.Flags |= catalogue.FlagBad
		}
		if err := s.learn(e.Key, l); err != nil {
			return err
		}
	}
	if s.opened.Chunks > before {
		s.opened.PacksAdopted++
	}
	return nil
}

// learn makes known where a chunk lies, unless a better copy is known.
func (s *Store) learn(k chunkstore.Key, l catalogue.Location) error {
	old, ok := s.recent(k)
	if !ok {
		var err error
		if old, ok, _, err = s.catalogued(k); err != nil {
			return err
		}
	}
	if !ok || l.Beats(old) || s.healthy(old) != nil {
		s.pending.Put(k, l)
	}
	return nil
}

// adoptClaims makes the claims known that adopt has met, now that all chunks are. A
// claim of what is nowhere to be found is none: its owner sends the chunk again.
func (s *Store) adoptClaims() error {
	for _, c := range s.claims {
		list, _, err := s.holders(c.Key)
		if err != nil {
			return err
		}
		l, ok := findClaimed(list, c, func(at catalogue.Spot) bool { return s.isQuarantined(s.placeOf(at), c.Key.ID) })
		if !ok {
			continue
		}
		if err := s.learn(c.Key, l); err != nil {
			return err
		}
	}
	s.claims = nil
	return nil
}

// findClaimed finds what a claim claims among the chunks of its name and size: a record
// that is not known to be damaged, or else one that is.
func findClaimed(list []catalogue.Held, c copyOf, damaged func(catalogue.Spot) bool) (catalogue.Location, bool) {
	want := catalogue.Locate(c.pack, c.Entry)
	best, ok := catalogue.Location{}, false
	for _, h := range list {
		if h.Claimed() || !h.SameBytes(want) {
			continue
		}
		if !ok || best.Flags&catalogue.FlagBad != 0 && h.Flags&catalogue.FlagBad == 0 {
			best, ok = h.Location, true
		}
	}
	best = best.Claiming(c.pack, c.Entry)
	if damaged(best.ClaimSpot()) {
		best.Flags |= catalogue.FlagBad
	}
	return best, ok
}

// recoverOpen proves the records of an open pack and seals it.
func (s *Store) recoverOpen(ctx context.Context, no uint32) error {
	p := s.packs[no]
	w, err := s.recoverWriter(no)
	if errors.Is(err, durable.ErrLost) {
		return s.passOver(no)
	}
	if err != nil {
		return err
	}
	defer w.close()
	r := &packfile.PatchyReader{R: w.f}
	sc := &packfile.Scanner{R: r, ID: p.ID, Size: p.Size, Sound: func(e packfile.Entry) error { w.entries = append(w.entries, e); return nil }}
	res, err := sc.Scan(ctx, packfile.HeaderSize)
	if err != nil {
		return err
	}
	if r.Bad > 0 {
		// Bad sectors: what could be read counts, and the file stays.
		s.opened.name(p.Name())
		return s.adopt(no, w.entries)
	}
	if p.Size < p.SavedTo {
		s.opened.name(p.Name())
		if err := s.dropBeyond(ctx, no, p.Size); err != nil {
			return err
		}
		p.SavedTo = p.Size
	}
	if len(w.entries) == 0 {
		return s.discard(no, w)
	}
	w.end = p.Size
	if s.opened.Rebuilt == nil {
		w.end = max(res.End, p.SavedTo)
	}
	s.opened.BytesCut += p.Size - w.end
	if err := s.adopt(no, w.entries); err != nil {
		return err
	}
	if err := s.renewHeader(w); err != nil {
		return err
	}
	return s.sealRecovered(no, w)
}

// renewHeader writes the file header again if a power cut has taken it: sound
// records may be there without it, and each of them says which pack it is of.
func (s *Store) renewHeader(w *writer) error {
	if id, _, err := packfile.DecodeHeader(w.header); err == nil && id == w.id {
		return nil
	}
	w.header = packfile.EncodeHeader(w.id, s.epoch.Number)
	return s.disk.Do("write", w.path, func() error {
		_, err := w.f.WriteAt(w.header, 0)
		return err
	})
}

// recoverWriter opens a pack such that reading it means reading the medium.
func (s *Store) recoverWriter(no uint32) (*writer, error) {
	p := s.packs[no]
	w := &writer{disk: s.disk, no: no, id: p.ID, header: make([]byte, packfile.HeaderSize), isNew: true}
	w.path = filepath.Join(packsDir(s.dir), p.ID.String()+packfile.OpenExt)
	var err error
	w.f, err = durable.OpenFile(w.path, os.O_RDWR, 0)
	if errors.Is(err, fs.ErrPermission) {
		// The crash was between the two last steps of sealing it.
		if err = s.disk.Do("chmod", w.path, func() error { return os.Chmod(w.path, 0o640) }); err == nil {
			w.f, err = durable.OpenFile(w.path, os.O_RDWR, 0)
		}
	}
	if err != nil {
		return nil, err
	}
	if err := w.sync(0); err != nil {
		return nil, errors.Join(err, w.close())
	}
	durable.DropCache(w.f)
	if p.Size < packfile.HeaderSize {
		return w, nil
	}
	if _, err := w.f.ReadAt(w.header, 0); err != nil && !durable.IsDamage(err) {
		return nil, errors.Join(err, w.close())
	}
	return w, nil
}

// sealRecovered seals a pack that nobody will continue. On a full disk it
// stays open until the next start.
func (s *Store) sealRecovered(no uint32, w *writer) error {
	size, err := w.seal()
	if err != nil && !durable.IsFinal(err) {
		return nil
	}
	if err != nil {
		return err
	}
	p := s.packs[no]
	p.State, p.Length, p.Size = packfile.StateSealed, size, size
	s.dirty[no] = true
	return nil
}

// discard deals with an open pack that holds no sound record.
func (s *Store) discard(no uint32, w *writer) error {
	p := s.packs[no]
	if p.SavedTo > packfile.HeaderSize {
		// All of it was vouched for and is damaged now: that is for a human
		// to see, not for us to remove.
		s.opened.name(p.Name())
		return nil
	}
	delete(s.packs, no)
	s.opened.BytesCut += p.Size
	if s.opened.Rebuilt == nil || p.Size <= packfile.HeaderSize {
		return s.disk.Do("remove", w.path, func() error { return durable.Remove(w.path) })
	}
	s.opened.name(p.Name())
	bad := filepath.Join(packsDir(s.dir), p.ID.String()+packfile.BadExt)
	return s.disk.Do("rename", w.path, func() error { return durable.Rename(w.path, bad) })
}

// dropBeyond removes from the catalogue the chunks of a pack that end behind
// size.
func (s *Store) dropBeyond(ctx context.Context, no uint32, size int64) error {
	var at chunkstore.Key
	for done := false; !done; {
		if err := ctx.Err(); err != nil {
			return err
		}
		ch := catalogue.Changes{Epoch: s.epoch.Number}
		var err error
		at, done, err = s.cat.Scan(at, walkBatch, func(k chunkstore.Key, l catalogue.Location) {
			if l.Pack == no && l.End() > size || l.Claimed() && l.ClaimPack == no && l.ClaimOff+packfile.RecordSize > size {
				ch.Deletes = append(ch.Deletes, k)
			}
		})
		if err == nil && len(ch.Deletes) > 0 {
			err = s.commitChanges(ch)
		}
		if err != nil {
			return err
		}
	}
	return nil
}
