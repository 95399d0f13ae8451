package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"holdfast/chunkstore"
)

// session implements chunkstore.Session and chunkstore.Keeper.
type session struct {
	s       *Store
	failure failure // first error after which this session may not write
	sweeps  bool    // writes for a sweep

	mu     sync.Mutex // guards all below, and appending to w
	w      *writer    // nil until there is something to write
	closed bool

	// Guarded by Store.mu.
	order uint64 // Store.order when it began
	kept  keySet // chunks that this session counts on and has not written
}

// Put implements chunkstore.Session.
func (se *session) Put(ctx context.Context, c chunkstore.Chunk) (bool, error) {
	return se.put(ctx, c, false)
}

// put is Put. With force a chunk is stored though it is there.
func (se *session) put(ctx context.Context, c chunkstore.Chunk, force bool) (bool, error) {
	if err := c.ValidateOwned(); err != nil {
		return false, err
	}
	leave, err := se.s.enterFlight(ctx, c.ID)
	if err != nil {
		return false, fmt.Errorf("put chunk %s: %w", c.ID, err)
	}
	defer leave()
	added, err := se.store(ctx, c, force)
	if err != nil {
		return false, fmt.Errorf("put chunk %s: %w", c.ID, err)
	}
	return added, nil
}

// enterFlight waits until nobody else is putting the same chunk, so that of
// two at the same time the second finds what the first has stored.
func (s *Store) enterFlight(ctx context.Context, id chunkstore.ID) (leave func(), err error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err
		}
		s.mu.Lock()
		other, busy := s.flights[id]
		if !busy {
			done := make(chan struct{})
			s.flights[id] = done
			s.mu.Unlock()
			return func() {
				s.mu.Lock()
				delete(s.flights, id)
				s.mu.Unlock()
				close(done)
			}, nil
		}
		s.mu.Unlock()
		select {
		case <-other:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// store writes a chunk unless a healthy one of its owner is there. Whatever is
// there, of this owner or of others, the bytes are summed and both are looked up.
func (se *session) store(ctx context.Context, c chunkstore.Chunk, force bool) (bool, error) {
	if err := se.usable(); err != nil {
		return false, err
	}
	key := c.Key()
	r := record{key: key, stored: uint32(len(c.Sealed)), sum: sum(c.Sealed)}
	se.keep(key) // before the look, so that a sweep cannot come between
	old, found, err := se.s.lookup(ctx, key)
	if err != nil {
		return false, err
	}
	twin, claim, err := se.twin(ctx, r)
	if err != nil {
		return false, err
	}
	if found && !force && se.s.healthy(old) == nil {
		return false, nil
	}
	if old != (location{}) {
		// Also over a copy that a sweep is about to remove: a catalogue that is
		// built anew meanwhile must not point to that one.
		r.rank = old.rank + 1
	}
	if r.claim = claim; claim {
		err = se.append(ctx, r, nil, twin)
	} else if err = se.append(ctx, r, c.Sealed, location{}); err == nil {
		se.unkeep(key) // it lies in a pack too young to be swept
	}
	if err != nil {
		return false, err
	}
	if err := se.s.flushIfMany(ctx); err != nil {
		return false, se.failed(err)
	}
	return true, nil
}

// twin finds a healthy record that another owner has of the same bytes. The session
// counts on it from then on.
func (se *session) twin(ctx context.Context, r record) (location, bool, error) {
	if r.key.Class() != chunkstore.ClassEncrypted {
		return location{}, false, nil
	}
	list, _, err := se.s.holders(r.key)
	if err != nil {
		return location{}, false, err
	}
	want := locate(0, entry{record: r})
	for _, h := range list {
		if h.key == r.key || !h.sameBytes(want) {
			continue
		}
		se.keep(h.key) // before the look, as for a chunk of its own
		l, ok, err := se.s.lookup(ctx, h.key)
		if err != nil {
			return location{}, false, err
		}
		if ok && l.sameBytes(want) && se.s.healthy(l) == nil {
			return l, true, nil
		}
	}
	return location{}, false, nil
}

// usable returns nil if the session may write.
func (se *session) usable() error {
	if err := se.s.writable(); err != nil {
		return err
	}
	if err := se.failure.get(); err != nil {
		return fmt.Errorf("session has failed: %w", err)
	}
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.closed {
		return errClosed
	}
	return nil
}

// append writes a record to the session's pack and makes it known. twin is what a
// claim claims.
func (se *session) append(ctx context.Context, r record, blob []byte, twin location, more ...held) error {
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.closed {
		return errClosed
	}
	if !se.sweeps && se.s.reserve.out.Load() > 0 {
		return se.failed(fmt.Errorf("%w while room is being made", chunkstore.ErrNoSpace))
	}
	if se.w == nil {
		w, err := se.s.takeWriter(ctx, se)
		if err != nil {
			return se.failed(err)
		}
		se.w, w.order = w, max(w.order, se.order)
	}
	e, err := se.w.append(r, blob)
	if err != nil {
		return se.failed(err)
	}
	l := locate(se.w.no, e)
	if r.claim {
		l = twin.claiming(se.w.no, e)
	}
	se.s.remember(se.w.no, e, l, more)
	if !se.w.full(se.s.options.PackSize) {
		return nil
	}
	w := se.w
	se.w = nil
	return se.s.startSeal(ctx, w, se)
}

// failed ends the session after an error: a full disk only this one, anything
// else the whole store.
func (se *session) failed(err error) error {
	if isFinal(err) {
		se.s.failure.set(err)
	}
	if isFinal(err) || errors.Is(err, chunkstore.ErrNoSpace) {
		se.failure.set(err)
	}
	return err
}

// remember makes a record known that has just been appended, for its key, if l says
// where, and for all that have it from it: of those the places of their claims stay.
func (s *Store) remember(no uint32, e entry, l location, holders []held) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(holders) == 0 {
		s.pending.put(e.key, l)
	}
	for _, h := range holders {
		h.pack, h.off, h.flags = no, e.off, h.flags&^flagBad
		if s.isBad(h.location) { // its claim
			h.flags |= flagBad
		}
		s.pending.put(h.key, h.location)
	}
	p := s.packs[no]
	p.add(e.record)
	p.size = max(p.size, e.end())
}

// Sync implements chunkstore.Session.
func (se *session) Sync(ctx context.Context) error {
	if err := se.usable(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	if err := se.s.sync(ctx); err != nil {
		return fmt.Errorf("sync: %w", se.failed(err))
	}
	// A pack of this session may have met its error in the background.
	if err := se.failure.get(); err != nil {
		return fmt.Errorf("sync: %w", err)
	}
	return nil
}

// Close implements chunkstore.Session. The pack stays open for the next
// session.
func (se *session) Close() error {
	se.mu.Lock()
	defer se.mu.Unlock()
	se.closed = true
	if se.w != nil {
		se.s.putWriter(se.w)
		se.w = nil
	}
	se.s.endSession(se)
	return nil
}

// putWriter hands a pack that is not full back to the store.
func (s *Store) putWriter(w *writer) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed {
		s.idle = append(s.idle, w)
	}
}

// takeWriter finds a pack for a session: one that another session has left,
// one left by an earlier process, or a new one.
func (s *Store) takeWriter(ctx context.Context, se *session) (*writer, error) {
	for {
		if err := ctx.Err(); err != nil {
			return nil, err // a full pack would come back for ever
		}
		w, err := s.leftWriter()
		if err != nil {
			return nil, err
		}
		if w == nil {
			return s.newWriter()
		}
		if !w.full(s.options.PackSize) {
			return w, nil
		}
		if err := s.startSeal(ctx, w, se); err != nil {
			return nil, err
		}
	}
}

// leftWriter returns a pack that somebody has left unfinished, or nil.
func (s *Store) leftWriter() (*writer, error) {
	s.mu.Lock()
	if n := len(s.idle); n > 0 {
		w := s.idle[n-1]
		s.idle = s.idle[:n-1]
		s.mu.Unlock()
		return w, nil
	}
	for len(s.reusable) > 0 {
		no := s.reusable[len(s.reusable)-1]
		s.reusable = s.reusable[:len(s.reusable)-1]
		p := *s.packs[no]
		s.mu.Unlock()
		w, err := reopenWriter(s.disk, packsDir(s.dir), p)
		s.mu.Lock()
		if isShortage(err) {
			s.reusable = append(s.reusable, no)
			s.mu.Unlock()
			return nil, err
		}
		if err != nil {
			// It stays as it is; its chunks can be read and checked.
			continue
		}
		w.no = no
		s.writers[no] = w
		s.mu.Unlock()
		return w, nil
	}
	s.mu.Unlock()
	return nil, nil
}

// newWriter begins a new pack. Whoever has lost the store finds out here at
// the latest, before he adds a file to it.
func (s *Store) newWriter() (*writer, error) {
	if err := s.epoch.check(s.dir); err != nil {
		return nil, err
	}
	w, err := createWriter(s.disk, packsDir(s.dir), s.epoch.Number)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.no = s.nextPack
	s.nextPack++
	s.writers[w.no] = w
	s.packs[w.no] = &packInfo{id: w.id, state: stateOpen, length: headerSize, size: headerSize, seen: s.generation}
	return w, nil
}

// startSeal seals a full pack in the background. It waits when two are being
// sealed already. An error of the seal ends the session that filled the pack.
func (s *Store) startSeal(ctx context.Context, w *writer, se *session) error {
	select {
	case s.sealing <- struct{}{}:
	case <-ctx.Done():
		// The next session that takes the pack finds it full and seals it.
		s.putWriter(w)
		return nil
	}
	s.sealDone.Add(1)
	go func() {
		defer func() {
			<-s.sealing
			s.sealDone.Done()
		}()
		if err := s.sealPack(w); err != nil {
			_ = se.failed(fmt.Errorf("seal pack %s: %w", filepath.Base(w.path), err))
		}
	}()
	return nil
}

// sealPack seals a pack and makes that known. Whoever has taken the store over
// has sealed it himself: then it must be left alone.
func (s *Store) sealPack(w *writer) error {
	if err := s.epoch.check(s.dir); err != nil {
		return err
	}
	size, err := w.seal()
	if err != nil {
		if !isFinal(err) {
			s.putWriter(w)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.packs[w.no]
	p.state, p.length, p.size, p.sealed = stateSealed, size, size, s.order
	s.dirty[w.no] = true
	delete(s.writers, w.no)
	return nil
}
