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
	"holdfast/chunkstore/pack/packfile"
	"holdfast/crypto"
)

// readTries is how often a record is read before it counts as damaged. All
// but the first time the file is opened anew.
const readTries = 3

// recent looks a chunk up among those that are not in the catalogue yet.
func (s *Store) recent(k chunkstore.Key) (location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.pending.get(k); ok {
		return l, true
	}
	return s.committing.get(k)
}

// holders looks up the chunks of all owners that have the name and size of k, and
// tells which catalogue was asked. It looks in the order in which lookup does.
func (s *Store) holders(k chunkstore.Key) ([]held, *catalogue, error) {
	s.mu.Lock()
	late := newTable()
	for _, h := range s.committing.holders(k) {
		late.put(h.key, h.location)
	}
	for _, h := range s.pending.holders(k) {
		late.put(h.key, h.location)
	}
	s.mu.Unlock()
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	list, err := s.cat.holders(k)
	for _, h := range list {
		if !s.knows(h.pack) && err == nil {
			err = fmt.Errorf("%w: chunk %s is in pack number %d, which does not exist", errCatalogue, k, h.pack)
		}
		if _, ok := late.get(h.key); !ok {
			late.put(h.key, h.location)
		}
	}
	return late.holders(k), s.cat, err
}

// holdersOf is holders narrowed to those that need the record at a spot.
func (s *Store) holdersOf(k chunkstore.Key, at spot) (list []held, cat *catalogue, err error) {
	all, cat, err := s.holders(k)
	for _, h := range all {
		if h.needs(at) {
			list = append(list, h)
		}
	}
	return list, cat, err
}

// catalogued looks a chunk up in the catalogue only, and tells which catalogue
// that was.
func (s *Store) catalogued(k chunkstore.Key) (location, bool, *catalogue, error) {
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	l, ok, err := s.cat.get(k)
	if ok && !s.knows(l.pack) {
		err = fmt.Errorf("%w: chunk %s is in pack number %d, which does not exist", errCatalogue, k, l.pack)
	}
	return l, ok && err == nil, s.cat, err
}

// catalogueNow is the catalogue that is asked at the moment.
func (s *Store) catalogueNow() *catalogue {
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
func (s *Store) lookup(ctx context.Context, k chunkstore.Key) (location, bool, error) {
	if err := s.usable(ctx); err != nil {
		return location{}, false, err
	}
	var gone location
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
func (s *Store) find(ctx context.Context, k chunkstore.Key) (location, bool, error) {
	if l, ok := s.recent(k); ok {
		return l, true, nil
	}
	l, ok, cat, err := s.catalogued(k)
	if errors.Is(err, errCatalogue) {
		if err := s.heal(ctx, cat, err); err != nil {
			return location{}, false, err
		}
		l, ok, _, err = s.catalogued(k)
	}
	return l, ok, err
}

// moved reports whether a chunk lies elsewhere than it was looked for: a sweep
// has rewritten its pack in the meantime.
func (s *Store) moved(ctx context.Context, k chunkstore.Key, from location) (to location, moved bool) {
	to, ok, err := s.lookup(ctx, k)
	return to, err == nil && ok && !to.samePlace(from)
}

// look returns what is known of a pack, with a look at its file unless there
// was one in this generation.
func (s *Store) look(no uint32) (packInfo, error) {
	s.mu.Lock()
	p := s.packs[no]
	if p.seen == s.generation {
		defer s.mu.Unlock()
		return *p, nil
	}
	now, state, id, before := s.generation, p.state, p.id, p.size
	s.mu.Unlock()
	size, err := statPack(packsDir(s.dir), id, state)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return packInfo{}, fmt.Errorf("pack %s: %w", id.String()+state.Ext(), err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p.seen, p.missing = now, err != nil || p.dropped
	if s.writers[no] != nil || p.size != before {
		// It grows while we look, or has grown and been sealed; that it is not
		// cut short is for its own sync to find out.
		size = max(size, p.size)
	}
	p.size = size
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
func (s *Store) healthy(l location) error {
	p, err := s.look(l.pack)
	if err != nil {
		return err
	}
	return p.fits(l)
}

// fits returns nil if, as far as was seen of the pack, a record can be in it, and was
// not found damaged.
func (p *packInfo) fits(l location) error {
	switch {
	case p.missing:
		return missingPack(p.name())
	case l.end() > p.size:
		return fmt.Errorf("pack %s: %d bytes, the record ends at %d: %w", p.name(), p.size, l.end(), chunkstore.ErrCorrupt)
	case l.flags&flagBad != 0:
		return fmt.Errorf("pack %s at %d: found damaged before: %w", p.name(), l.off, chunkstore.ErrCorrupt)
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
func (s *Store) describe(ctx context.Context, k chunkstore.Key, l location, ok bool) (chunkstore.Info, error) {
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
	return l.info(k), nil
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
	size := packfile.RecordSize + int(l.stored)
	if cap(room) < size {
		room = make([]byte, size)
	}
	b := room[:size]
	// What is in quarantine may be sound again, but has to be proved so.
	if err := s.read(ctx, k, l, recordReader{buf: b, prove: l.flags&flagBad != 0}); err != nil {
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
		err = s.read(ctx, k, l, recordReader{buf: make([]byte, packfile.RecordSize+int(l.stored)), prove: true})
	}
	if err != nil {
		return fmt.Errorf("check chunk %s: %w", k, err)
	}
	if l.flags&flagBad != 0 {
		s.mark(ctx, k, l.spot(), false)
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
func (s *Store) read(ctx context.Context, k chunkstore.Key, l location, rr recordReader) error {
	err := s.readAt(ctx, k, l, rr)
	if err == nil || !errors.Is(err, chunkstore.ErrCorrupt) {
		return err
	}
	// The sizes are the same wherever a sweep has put it.
	if to, moved := s.moved(ctx, k, l); moved && to.stored == l.stored {
		return s.readAt(ctx, k, to, rr)
	}
	return err
}

func (s *Store) readAt(ctx context.Context, k chunkstore.Key, l location, rr recordReader) error {
	s.mu.Lock()
	at := *s.packs[l.pack]
	s.mu.Unlock()
	var err error
	for try := range readTries {
		if try > 0 {
			s.handles.forget(at.id)
		}
		var h *handle
		if h, err = s.handles.acquire(at.id, at.state); err != nil {
			return err
		}
		err = rr.read(h, k, l)
		s.handles.release(h)
		if err == nil || !errors.Is(err, chunkstore.ErrCorrupt) {
			return err
		}
	}
	s.mark(ctx, k, l.spot(), true)
	return err
}

func (rr recordReader) read(h *handle, k chunkstore.Key, l location) error {
	damaged := func(why string) error {
		return fmt.Errorf("pack %s at %d: %w: %s", h.name, l.off, chunkstore.ErrCorrupt, why)
	}
	if rr.prove {
		dropCache(h.f, l)
		defer dropCache(h.f, l)
	}
	switch _, err := h.f.ReadAt(rr.buf, l.off); {
	case errors.Is(err, io.EOF):
		return damaged("the file ends within the record")
	case errors.Is(err, unix.EIO):
		return fmt.Errorf("pack %s at %d: %w: %w", h.name, l.off, chunkstore.ErrCorrupt, unix.EIO)
	case err != nil:
		return fmt.Errorf("pack %s at %d: %w", h.name, l.off, err)
	}
	r, err := packfile.DecodeRecord(rr.buf[:packfile.RecordSize], h.id)
	switch {
	case err != nil:
		return damaged(err.Error())
	case r.Claim || !l.holds(k, r):
		return damaged("the record is another one than the catalogue says, that of chunk " + r.Key.String())
	case rr.prove && crypto.Sum(rr.buf[packfile.RecordSize:]) != r.Sum:
		return damaged("checksum differs")
	}
	return nil
}

// dropCache asks the kernel to forget a record, so that reading it means
// reading the medium. It is advice and may be ignored.
func dropCache(f *os.File, l location) {
	_ = unix.Fadvise(int(f.Fd()), l.off, l.end()-l.off, unix.FADV_DONTNEED)
}

// mark notes that the record at a spot, of a chunk or a claim, is damaged, or that
// it is not, for all who have it from there. It is a hint: when it cannot be noted,
// nothing is lost.
func (s *Store) mark(ctx context.Context, k chunkstore.Key, at spot, bad bool) {
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
	if s.pending.len() >= pendingMax {
		return
	}
	s.setQuarantine(at, k.ID, bad)
	for _, h := range list {
		if newer, ok := s.pending.get(h.key); ok && !newer.needs(at) {
			continue
		}
		h.flags &^= flagBad
		if bad || s.isBad(h.location) {
			h.flags |= flagBad
		}
		s.pending.put(h.key, h.location)
	}
}

// isBad reports whether a chunk's record or its claim is in quarantine. s.mu is held.
func (s *Store) isBad(l location) bool {
	return s.quarantine.has(s.placeOf(l.spot())) || l.claimed() && s.quarantine.has(s.placeOf(l.claimSpot()))
}

// placeOf names a spot. s.mu is held.
func (s *Store) placeOf(at spot) place {
	p := s.packs[at.pack]
	if p == nil {
		return place{}
	}
	return place{p.id, at.off}
}

// marksToKeep returns what a reader has found out about records that only a
// reading shows to be damaged. That a pack is missing or short everybody sees.
func (s *Store) marksToKeep() (marks []held) {
	if !s.options.ReadOnly {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.pending.each(func(h held) {
		if p := s.packs[h.pack]; !p.missing && h.end() <= p.size {
			marks = append(marks, h)
		}
	})
	return marks
}

// keepMarks brings the marks of a reader into the catalogue, so that the next
// session stores those chunks again. The reader, closed by now, becomes a writer
// for a moment. When another process has the store, or the disk cannot be
// written, the marks are lost, and the next check makes them again.
func (s *Store) keepMarks(marks []held) {
	ctx := context.Background()
	l, err := acquireLock(ctx, s.dir, false, 0)
	if err != nil {
		return
	}
	o := s.options
	o.ReadOnly = false
	if w, err := openWriter(ctx, s.dir, o); err == nil {
		for _, h := range marks {
			w.mark(ctx, h.key, h.spot(), h.flags&flagBad != 0)
		}
		_ = w.shutdown()
	}
	_ = l.release()
}
