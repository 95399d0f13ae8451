package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"sync"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/crypto"
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
	order uint64  // Store.order when it began
	holds extents // what it has put, and what it counts on besides
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
	r := packfile.Record{Key: key, Stored: uint32(len(c.Blob)), Sum: crypto.Sum(c.Blob)}
	old, found, err := se.lookup(ctx, key)
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
	if old != (catalogue.Location{}) {
		// Also over a copy that a sweep is about to remove: a catalogue that is
		// built anew meanwhile must not point to that one.
		r.Rank = old.Rank + 1
	}
	a := addition{Record: r, blob: c.Blob}
	if claim {
		a.Claim, a.blob, a.twin = true, nil, twin
	}
	if old != (catalogue.Location{}) {
		a.replaces = old.Spots()
	}
	if err := se.append(ctx, a); err != nil {
		return false, err
	}
	if err := se.s.flushIfMany(ctx); err != nil {
		return false, se.failed(err)
	}
	return true, nil
}

// twin finds a healthy record that another owner has of the same bytes. The session
// counts on it from then on.
func (se *session) twin(ctx context.Context, r packfile.Record) (catalogue.Location, bool, error) {
	if r.Key.Class() != chunkstore.ClassEncrypted {
		return catalogue.Location{}, false, nil
	}
	list, _, err := se.s.holders(r.Key)
	if err != nil {
		return catalogue.Location{}, false, err
	}
	want := catalogue.Locate(0, packfile.Entry{Record: r})
	for _, h := range list {
		if h.Key == r.Key || !h.SameBytes(want) {
			continue
		}
		l, ok, err := se.lookup(ctx, h.Key)
		if err != nil {
			return catalogue.Location{}, false, err
		}
		if ok && l.SameBytes(want) && se.s.healthy(l) == nil {
			return l, true, nil
		}
	}
	return catalogue.Location{}, false, nil
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

// addition is a record that is being added, and its blob if it is no claim.
type addition struct {
	packfile.Record
	blob []byte
	twin catalogue.Location // what a claim claims
	// holders are those that have it from this record then, if not its key alone. What
	// they claim it by stays.
	holders []catalogue.Held
	// replaces are the places whose content it stands for from now on.
	replaces []catalogue.Spot
}

// append writes a record to the session's pack and makes it known.
func (se *session) append(ctx context.Context, a addition) error {
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
		se.fill(w)
	}
	e, err := se.w.append(a.Record, a.blob)
	if err != nil {
		return se.failed(err)
	}
	l := catalogue.Locate(se.w.no, e)
	if a.Claim {
		l = a.twin.Claiming(se.w.no, e)
	}
	se.remember(e, l, a)
	if !se.w.full(se.s.options.PackSize) {
		return nil
	}
	return se.s.startSeal(ctx, se.letPack(), se)
}

// fill makes a pack the one that the session fills. se.mu is held.
func (se *session) fill(w *writer) {
	s := se.s
	s.mu.Lock()
	defer s.mu.Unlock()
	se.w, s.filling[w.no] = w, se
	if se.sweeps && s.sweep != nil {
		s.packs[w.no].SweptInto = s.sweep.number
	}
}

// letPack takes the pack away that the session fills; nil if there is none. se.mu is
// held.
func (se *session) letPack() *writer {
	w := se.w
	if w == nil {
		return nil
	}
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	delete(se.s.filling, w.no)
	se.w = nil
	return w
}

// failed ends the session after an error: a full disk only this one, anything
// else the whole store.
func (se *session) failed(err error) error {
	if durable.IsFinal(err) {
		se.s.failure.set(err)
	}
	if durable.IsFinal(err) || errors.Is(err, chunkstore.ErrNoSpace) {
		se.failure.set(err)
	}
	return err
}

// remember makes a record known that has just been appended to the session's pack: l is
// where its chunk lies now. The session holds it. se.mu is held.
func (se *session) remember(e packfile.Entry, l catalogue.Location, a addition) {
	s, no := se.s, se.w.no
	s.mu.Lock()
	defer s.mu.Unlock()
	s.follow(a.replaces, l)
	s.holdFor(se, l)
	if len(a.holders) == 0 {
		s.pending.Put(e.Key, l)
	}
	for _, h := range a.holders {
		h.Pack, h.Off, h.Flags = no, e.Off, h.Flags&^catalogue.FlagBad
		if s.isBad(h.Location) { // its claim
			h.Flags |= catalogue.FlagBad
		}
		s.pending.Put(h.Key, h.Location)
	}
	p := s.packs[no]
	p.Add(e.Record)
	p.Size = max(p.Size, e.End())
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
	if w := se.letPack(); w != nil {
		se.s.putWriter(w)
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
		if durable.IsShortage(err) {
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
	s.packs[w.no] = &catalogue.PackInfo{ID: w.id, State: packfile.StateOpen, Length: packfile.HeaderSize, Size: packfile.HeaderSize, Seen: s.generation}
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
		if !durable.IsFinal(err) {
			s.putWriter(w)
		}
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.packs[w.no]
	p.State, p.Length, p.Size = packfile.StateSealed, size, size
	s.dirty[w.no] = true
	delete(s.writers, w.no)
	return nil
}
