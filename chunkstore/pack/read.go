package pack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/crypto"
)

// readTries is how often a record is read before it counts as damaged. All
// but the first time the file is opened anew.
const readTries = 3

// recent looks a chunk up among those that are not in the catalogue yet.
func (s *Store) recent(k chunkstore.Key) (catalogue.Location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.pending.Get(k); ok {
		return l, true
	}
	return s.committing.Get(k)
}

// holders looks up the chunks of all owners that have the name and size of k, and
// tells which catalogue was asked. It looks in the order in which lookup does.
func (s *Store) holders(k chunkstore.Key) ([]catalogue.Held, *catalogue.File, error) {
	s.mu.Lock()
	late := catalogue.NewTable()
	for _, h := range s.committing.Holders(k) {
		late.Put(h.Key, h.Location)
	}
	for _, h := range s.pending.Holders(k) {
		late.Put(h.Key, h.Location)
	}
	s.mu.Unlock()
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	list, err := s.cat.Holders(k)
	for _, h := range list {
		if !s.knows(h.Pack) && err == nil {
			err = fmt.Errorf("%w: chunk %s is in pack number %d, which does not exist", catalogue.ErrDoubt, k, h.Pack)
		}
		if _, ok := late.Get(h.Key); !ok {
			late.Put(h.Key, h.Location)
		}
	}
	return late.Holders(k), s.cat, err
}

// holdersOf is holders narrowed to those that need the record at a spot.
func (s *Store) holdersOf(k chunkstore.Key, at catalogue.Spot) (list []catalogue.Held, cat *catalogue.File, err error) {
	all, cat, err := s.holders(k)
	for _, h := range all {
		if h.Needs(at) {
			list = append(list, h)
		}
	}
	return list, cat, err
}

// catalogued looks a chunk up in the catalogue only, and tells which catalogue
// that was.
func (s *Store) catalogued(k chunkstore.Key) (catalogue.Location, bool, *catalogue.File, error) {
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	l, ok, err := s.cat.Get(k)
	if ok && !s.knows(l.Pack) {
		err = fmt.Errorf("%w: chunk %s is in pack number %d, which does not exist", catalogue.ErrDoubt, k, l.Pack)
	}
	return l, ok && err == nil, s.cat, err
}

// catalogueNow is the catalogue that is asked at the moment.
func (s *Store) catalogueNow() *catalogue.File {
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	return s.cat
}

func (s *Store) knows(pack uint32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.packs[pack] != nil
}

// lookup finds a chunk. Entries wander from pending to committing to the
// catalogue, and are looked for in that order, so that none is missed on the
// way. A damaged catalogue is built anew.
func (s *Store) lookup(ctx context.Context, k chunkstore.Key) (catalogue.Location, bool, error) {
	if err := s.usable(ctx); err != nil {
		return catalogue.Location{}, false, err
	}
	var gone catalogue.Location
	for {
		l, ok, err := s.find(ctx, k)
		if err != nil || !ok {
			return l, false, err
		}
		condemned, dropped := s.leaving(l)
		if !dropped {
			return l, !condemned, nil
		}
		if l == gone {
			return l, false, nil
		}
		gone = l // read before the sweep was done with that pack: look again
	}
}

// find is lookup without a look at what a sweep does to the pack.
func (s *Store) find(ctx context.Context, k chunkstore.Key) (catalogue.Location, bool, error) {
	if l, ok := s.recent(k); ok {
		return l, true, nil
	}
	l, ok, cat, err := s.catalogued(k)
	if errors.Is(err, catalogue.ErrDoubt) {
		if err := s.heal(ctx, cat, err); err != nil {
			return catalogue.Location{}, false, err
		}
		l, ok, _, err = s.catalogued(k)
	}
	return l, ok, err
}

// moved reports whether a chunk lies elsewhere than it was looked for: a sweep
// has rewritten its pack in the meantime.
func (s *Store) moved(ctx context.Context, k chunkstore.Key, from catalogue.Location) (to catalogue.Location, moved bool) {
	to, ok, err := s.lookup(ctx, k)
	return to, err == nil && ok && !to.SamePlace(from)
}

// look returns what is known of a pack, with a look at its file unless there
// was one in this generation.
func (s *Store) look(no uint32) (catalogue.PackInfo, error) {
	s.mu.Lock()
	p := s.packs[no]
	if p.Seen == s.generation {
		defer s.mu.Unlock()
		return *p, nil
	}
	now, state, id, before := s.generation, p.State, p.ID, p.Size
	s.mu.Unlock()
	size, err := statPack(packsDir(s.dir), id, state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return catalogue.PackInfo{}, fmt.Errorf("pack %s: %w", id.String()+state.Ext(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.Seen, p.Missing = now, err != nil || p.Dropped
	if s.writers[no] != nil || p.Size != before {
		// It grows while we look, or has grown and been sealed; that it is not
		// cut short is for its own sync to find out.
		size = max(size, p.Size)
	}
	p.Size = size
	return *p, nil
}

// statPack returns the size of a pack's file under either of its names.
func statPack(dir string, id packfile.ID, state packfile.State) (int64, error) {
	var err error
	for _, ext := range []string{state.Ext(), packfile.SealedExt, packfile.OpenExt} {
		var st os.FileInfo
		st, err = os.Stat(filepath.Join(dir, id.String()+ext))
		if err == nil {
			return st.Size(), nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return 0, err
		}
	}
	return 0, err
}

// healthy returns nil if, as far as can be told without reading it, a record
// is where it should be.
func (s *Store) healthy(l catalogue.Location) error {
	p, err := s.look(l.Pack)
	if err != nil {
		return err
	}
	return fits(p, l)
}

// fits returns nil if, as far as was seen of the pack, a record can be in it, and was
// not found damaged.
func fits(p catalogue.PackInfo, l catalogue.Location) error {
	switch {
	case p.Missing:
		return missingPack(p.Name())
	case l.End() > p.Size:
		return fmt.Errorf("pack %s: %d bytes, the record ends at %d: %w", p.Name(), p.Size, l.End(), chunkstore.ErrCorrupt)
	case l.Flags&catalogue.FlagBad != 0:
		return fmt.Errorf("pack %s at %d: found damaged before: %w", p.Name(), l.Off, chunkstore.ErrCorrupt)
	}
	return nil
}

// Stat implements chunkstore.Store. A chunk whose pack is missing or too
// short, or that was found damaged, is ErrNotExist: it has to be put again.
func (s *Store) Stat(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	l, ok, err := s.lookup(ctx, k)
	if err != nil {
		return chunkstore.Info{}, fmt.Errorf("chunk %s: %w", k, err)
	}
	return s.describe(ctx, k, l, ok)
}

// describe is Stat for what lookup has said.
func (s *Store) describe(ctx context.Context, k chunkstore.Key, l catalogue.Location, ok bool) (chunkstore.Info, error) {
	if !ok {
		return chunkstore.Info{}, fmt.Errorf("chunk %s: %w", k, chunkstore.ErrNotExist)
	}
	err := s.healthy(l)
	if err != nil {
		if to, moved := s.moved(ctx, k, l); moved {
			l, err = to, s.healthy(to)
		}
	}
	if err != nil {
		if !errors.Is(err, chunkstore.ErrCorrupt) {
			return chunkstore.Info{}, fmt.Errorf("chunk %s: %w", k, err)
		}
		return chunkstore.Info{}, fmt.Errorf("chunk %s: %w (%v)", k, chunkstore.ErrNotExist, err)
	}
	return l.Info(k), nil
}

// Get implements chunkstore.Getter. When the catalogue does not know the
// chunk, it is built anew once before ErrNotExist is the answer: whoever asks
// has the name from a snapshot, so the chunk should be there.
func (s *Store) Get(ctx context.Context, k chunkstore.Key) (chunkstore.Blob, error) {
	return s.GetInto(ctx, k, nil)
}

// GetInto is Get into the caller's memory, as chunkstore.IntoGetter has it.
func (s *Store) GetInto(ctx context.Context, k chunkstore.Key, room []byte) (chunkstore.Blob, error) {
	l, ok, err := s.lookup(ctx, k)
	if err == nil && !ok && s.healMiss(ctx) {
		l, ok, err = s.lookup(ctx, k)
	}
	if err == nil && !ok {
		err = chunkstore.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", k, err)
	}
	size := packfile.RecordSize + int(l.Stored)
	if cap(room) < size {
		room = make([]byte, size)
	}
	b := room[:size]
	// What is in quarantine may be sound again, but has to be proved so.
	if err := s.read(ctx, k, l, recordReader{buf: b, prove: l.Flags&catalogue.FlagBad != 0}); err != nil {
		return nil, fmt.Errorf("chunk %s: %w", k, err)
	}
	return chunkstore.Blob(b[packfile.RecordSize:]), nil
}

// Check implements chunkstore.Store. A chunk that is found damaged is put
// again by the next session that has it; one that is found sound after all
// loses that mark.
func (s *Store) Check(ctx context.Context, k chunkstore.Key) error {
	l, ok, err := s.lookup(ctx, k)
	if err == nil && !ok {
		err = chunkstore.ErrNotExist
	}
	if err == nil {
		err = s.read(ctx, k, l, recordReader{buf: make([]byte, packfile.RecordSize+int(l.Stored)), prove: true})
	}
	if err != nil {
		return fmt.Errorf("check chunk %s: %w", k, err)
	}
	if l.Flags&catalogue.FlagBad != 0 {
		s.mark(ctx, k, l.Spot(), false)
	}
	return nil
}

// recordReader says how to read a record.
type recordReader struct {
	buf   []byte // header and stored bytes
	prove bool   // from the medium, with its checksum
}

// read reads a record. What is damaged is read again, and if it stays damaged
// it is marked so.
func (s *Store) read(ctx context.Context, k chunkstore.Key, l catalogue.Location, rr recordReader) error {
	err := s.readAt(ctx, k, l, rr)
	if err == nil || !errors.Is(err, chunkstore.ErrCorrupt) {
		return err
	}
	// The sizes are the same wherever a sweep has put it.
	if to, moved := s.moved(ctx, k, l); moved && to.Stored == l.Stored {
		return s.readAt(ctx, k, to, rr)
	}
	return err
}

func (s *Store) readAt(ctx context.Context, k chunkstore.Key, l catalogue.Location, rr recordReader) error {
	s.mu.Lock()
	at := *s.packs[l.Pack]
	s.mu.Unlock()
	var err error
	for try := range readTries {
		if try > 0 {
			s.handles.forget(at.ID)
		}
		var h *handle
		if h, err = s.handles.acquire(at.ID, at.State); err != nil {
			return err
		}
		err = rr.read(h, k, l)
		s.handles.release(h)
		if err == nil || !errors.Is(err, chunkstore.ErrCorrupt) {
			return err
		}
	}
	s.mark(ctx, k, l.Spot(), true)
	return err
}

func (rr recordReader) read(h *handle, k chunkstore.Key, l catalogue.Location) error {
	damaged := func(why string) error {
		return fmt.Errorf("pack %s at %d: %w: %s", h.name, l.Off, chunkstore.ErrCorrupt, why)
	}
	if rr.prove {
		dropCache(h.f, l)
		defer dropCache(h.f, l)
	}
	switch _, err := h.f.ReadAt(rr.buf, l.Off); {
	case errors.Is(err, io.EOF):
		return damaged("the file ends within the record")
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("pack %s at %d: %w: %w", h.name, l.Off, chunkstore.ErrCorrupt, unix.EIO)
	case err != nil:
		return fmt.Errorf("pack %s at %d: %w", h.name, l.Off, err)
	}
	r, err := packfile.DecodeRecord(rr.buf[:packfile.RecordSize], h.id)
	switch {
	case err != nil:
		return damaged(err.Error())
	case r.Claim || !l.Holds(k, r):
		return damaged("the record is another one than the catalogue says, that of chunk " + r.Key.String())
	case rr.prove && crypto.Sum(rr.buf[packfile.RecordSize:]) != r.Sum:
		return damaged("checksum differs")
	}
	return nil
}

// dropCache asks the kernel to forget a record, so that reading it means
// reading the medium. It is advice and may be ignored.
func dropCache(f *os.File, l catalogue.Location) {
	_ = unix.Fadvise(int(f.Fd()), l.Off, l.End()-l.Off, unix.FADV_DONTNEED)
}

// mark notes that the record at a spot, of a chunk or a claim, is damaged, or that
// it is not, for all who have it from there. It is a hint: when it cannot be noted,
// nothing is lost.
func (s *Store) mark(ctx context.Context, k chunkstore.Key, at catalogue.Spot, bad bool) {
	if s.lockCommit(ctx) != nil {
		return
	}
	defer s.unlockCommit()
	list, _, err := s.holdersOf(k, at)
	if err != nil || len(list) == 0 {
		return
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.pending.Len() >= pendingMax {
		return
	}
	s.setQuarantine(at, k.ID, bad)
	for _, h := range list {
		if newer, ok := s.pending.Get(h.Key); ok && !newer.Needs(at) {
			continue
		}
		h.Flags &^= catalogue.FlagBad
		if bad || s.isBad(h.Location) {
			h.Flags |= catalogue.FlagBad
		}
		s.pending.Put(h.Key, h.Location)
	}
}

// isBad reports whether a chunk's record or its claim is in quarantine. s.mu is held.
func (s *Store) isBad(l catalogue.Location) bool {
	return s.quarantine.has(s.placeOf(l.Spot())) || l.Claimed() && s.quarantine.has(s.placeOf(l.ClaimSpot()))
}

// placeOf names a spot. s.mu is held.
func (s *Store) placeOf(at catalogue.Spot) place {
	p := s.packs[at.Pack]
	if p == nil {
		return place{}
	}
	return place{p.ID, at.Off}
}

// marksToKeep returns what a reader has found out about records that only a
// reading shows to be damaged. That a pack is missing or short everybody sees.
func (s *Store) marksToKeep() (marks []catalogue.Held) {
	if !s.options.ReadOnly {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.Each(func(h catalogue.Held) {
		if p := s.packs[h.Pack]; !p.Missing && h.End() <= p.Size {
			marks = append(marks, h)
		}
	})
	return marks
}

// keepMarks brings the marks of a reader into the catalogue, so that the next
// session stores those chunks again. The reader, closed by now, becomes a writer
// for a moment. When another process has the store, or the disk cannot be
// written, the marks are lost, and the next check makes them again.
func (s *Store) keepMarks(marks []catalogue.Held) {
	ctx := context.Background()
	l, err := acquireLock(ctx, s.dir, false, 0)
	if err != nil {
		return
	}
	o := s.options
	o.ReadOnly = false
	if w, err := openWriter(ctx, s.dir, o); err == nil {
		for _, h := range marks {
			w.mark(ctx, h.Key, h.Spot(), h.Flags&catalogue.FlagBad != 0)
		}
		_ = w.shutdown()
	}
	_ = l.release()
}
