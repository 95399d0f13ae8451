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
)

// readTries is how often a record is read before it counts as damaged. All
// but the first time the file is opened anew.
const readTries = 3

// recent looks a chunk up among those that are not in the catalogue yet.
func (s *Store) recent(id chunkstore.ID) (location, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if l, ok := s.pending[id]; ok {
		return l, true
	}
	l, ok := s.committing[id]
	return l, ok
}

// catalogued looks a chunk up in the catalogue only, and tells which catalogue
// that was.
func (s *Store) catalogued(id chunkstore.ID) (location, bool, *catalogue, error) {
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	l, ok, err := s.cat.get(id)
	if ok && !s.knows(l.pack) {
		err = fmt.Errorf("%w: chunk %s is in pack number %d, which does not exist", errCatalogue, id, l.pack)
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
func (s *Store) lookup(ctx context.Context, id chunkstore.ID) (location, bool, error) {
	if err := s.usable(ctx); err != nil {
		return location{}, false, err
	}
	var gone location
	for {
		l, ok, err := s.find(ctx, id)
		if err != nil || !ok {
			return l, false, err
		}
		condemned, dropped := s.leaving(id, l)
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
func (s *Store) find(ctx context.Context, id chunkstore.ID) (location, bool, error) {
	if l, ok := s.recent(id); ok {
		return l, true, nil
	}
	l, ok, cat, err := s.catalogued(id)
	if errors.Is(err, errCatalogue) {
		if err := s.heal(ctx, cat, err); err != nil {
			return location{}, false, err
		}
		l, ok, _, err = s.catalogued(id)
	}
	return l, ok, err
}

// moved reports whether a chunk lies elsewhere than it was looked for: a sweep
// has rewritten its pack in the meantime.
func (s *Store) moved(ctx context.Context, id chunkstore.ID, from location) (to location, moved bool) {
	to, ok, err := s.lookup(ctx, id)
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
		return packInfo{}, fmt.Errorf("pack %s: %w", id.String()+state.ext(), err)
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
func statPack(dir string, id packID, state packState) (int64, error) {
	var err error
	for _, ext := range []string{state.ext(), sealedExt, openExt} {
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
	switch {
	case err != nil:
		return err
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
func (s *Store) Stat(ctx context.Context, id chunkstore.ID) (chunkstore.Info, error) {
	l, ok, err := s.lookup(ctx, id)
	if err != nil {
		return chunkstore.Info{}, fmt.Errorf("chunk %s: %w", id, err)
	}
	if !ok {
		return chunkstore.Info{}, fmt.Errorf("chunk %s: %w", id, chunkstore.ErrNotExist)
	}
	err = s.healthy(l)
	if to, moved := s.moved(ctx, id, l); err != nil && moved {
		l, err = to, s.healthy(to)
	}
	if err != nil {
		if !errors.Is(err, chunkstore.ErrCorrupt) {
			return chunkstore.Info{}, fmt.Errorf("chunk %s: %w", id, err)
		}
		return chunkstore.Info{}, fmt.Errorf("chunk %s: %w (%v)", id, chunkstore.ErrNotExist, err)
	}
	return l.info(), nil
}

// Get implements chunkstore.Getter. When the catalogue does not know the
// chunk, it is built anew once before ErrNotExist is the answer: whoever asks
// has the name from a snapshot, so the chunk should be there.
func (s *Store) Get(ctx context.Context, id chunkstore.ID) (chunkstore.Sealed, error) {
	return s.GetInto(ctx, id, nil)
}

// GetInto implements chunkstore.IntoGetter.
func (s *Store) GetInto(ctx context.Context, id chunkstore.ID, room []byte) (chunkstore.Sealed, error) {
	l, ok, err := s.lookup(ctx, id)
	if err == nil && !ok && s.healMiss(ctx) {
		l, ok, err = s.lookup(ctx, id)
	}
	if err == nil && !ok {
		err = chunkstore.ErrNotExist
	}
	if err != nil {
		return nil, fmt.Errorf("chunk %s: %w", id, err)
	}
	size := recordSize + int(l.stored)
	if cap(room) < size {
		room = make([]byte, size)
	}
	b := room[:size]
	// What is in quarantine may be sound again, but has to be proved so.
	if err := s.read(ctx, id, l, recordReader{buf: b, prove: l.flags&flagBad != 0}); err != nil {
		return nil, fmt.Errorf("chunk %s: %w", id, err)
	}
	return chunkstore.Sealed(b[recordSize:]), nil
}

// Check implements chunkstore.Store. A chunk that is found damaged is put
// again by the next session that has it; one that is found sound after all
// loses that mark.
func (s *Store) Check(ctx context.Context, id chunkstore.ID) error {
	l, ok, err := s.lookup(ctx, id)
	if err == nil && !ok {
		err = chunkstore.ErrNotExist
	}
	if err == nil {
		err = s.read(ctx, id, l, recordReader{buf: make([]byte, recordSize+int(l.stored)), prove: true})
	}
	if err != nil {
		return fmt.Errorf("check chunk %s: %w", id, err)
	}
	if l.flags&flagBad != 0 {
		s.mark(ctx, id, l, false)
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
func (s *Store) read(ctx context.Context, id chunkstore.ID, l location, rr recordReader) error {
	err := s.readAt(ctx, id, l, rr)
	if err == nil || !errors.Is(err, chunkstore.ErrCorrupt) {
		return err
	}
	// The sizes are the same wherever a sweep has put it.
	if to, moved := s.moved(ctx, id, l); moved && to.stored == l.stored {
		return s.readAt(ctx, id, to, rr)
	}
	return err
}

func (s *Store) readAt(ctx context.Context, id chunkstore.ID, l location, rr recordReader) error {
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
		err = rr.read(h, id, l)
		s.handles.release(h)
		if err == nil || !errors.Is(err, chunkstore.ErrCorrupt) {
			return err
		}
	}
	s.mark(ctx, id, l, true)
	return err
}

func (rr recordReader) read(h *handle, id chunkstore.ID, l location) error {
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
	r, err := decodeRecord(rr.buf[:recordSize], h.id)
	switch {
	case err != nil:
		return damaged(err.Error())
	case r.id != id:
		return damaged("the record is that of chunk " + r.id.String())
	case r.stored != l.stored || r.plain != l.plain:
		return damaged("the sizes in the record are not those in the catalogue")
	case rr.prove && sum(rr.buf[recordSize:]) != r.sum:
		return damaged("checksum differs")
	}
	return nil
}

// dropCache asks the kernel to forget a record, so that reading it means
// reading the medium. It is advice and may be ignored.
func dropCache(f *os.File, l location) {
	_ = unix.Fadvise(int(f.Fd()), l.off, l.end()-l.off, unix.FADV_DONTNEED)
}

// mark notes that the record of a chunk is damaged, or that it is not, unless
// the chunk lies somewhere else by now. It is a hint: when it cannot be noted,
// nothing is lost.
func (s *Store) mark(ctx context.Context, id chunkstore.ID, l location, bad bool) {
	if s.lockCommit(ctx) != nil {
		return
	}
	defer s.unlockCommit()
	now, ok := s.recent(id)
	if !ok {
		var err error
		if now, ok, _, err = s.catalogued(id); err != nil {
			return
		}
	}
	if !ok || !now.samePlace(l) {
		return
	}
	now.flags &^= flagBad
	if bad {
		now.flags |= flagBad
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if newer, ok := s.pending[id]; ok && !newer.samePlace(l) || len(s.pending) >= pendingMax {
		return
	}
	s.pending[id] = now
	s.setQuarantine(l, id, bad)
}

// marksToKeep returns what a reader has found out about records that only a
// reading shows to be damaged. That a pack is missing or short everybody sees.
func (s *Store) marksToKeep() map[chunkstore.ID]location {
	if !s.options.ReadOnly {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	marks := make(map[chunkstore.ID]location)
	for id, l := range s.pending {
		if p := s.packs[l.pack]; !p.missing && l.end() <= p.size {
			marks[id] = l
		}
	}
	return marks
}

// keepMarks brings the marks of a reader into the catalogue, so that the next
// session stores those chunks again. The reader, closed by now, becomes a writer
// for a moment. When another process has the store, or the disk cannot be
// written, the marks are lost, and the next check makes them again.
func (s *Store) keepMarks(marks map[chunkstore.ID]location) {
	ctx := context.Background()
	l, err := acquireLock(ctx, s.dir, false, 0)
	if err != nil {
		return
	}
	o := s.options
	o.ReadOnly = false
	if w, err := openWriter(ctx, s.dir, o); err == nil {
		for id, at := range marks {
			w.mark(ctx, id, at, at.flags&flagBad != 0)
		}
		_ = w.shutdown()
	}
	_ = l.release()
}
