package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"
)

// A pack that is being filled is not swept: a session may be about to add to
// it. One that nobody has, and that no session has touched which was open when
// the sweep began, can be sealed first, so that what a small store holds can go
// at all.

// idleBefore returns the unsealed packs that could be sealed now for a sweep
// with this horizon. s.mu is held.
func (s *Store) idleBefore(horizon uint64) []uint32 {
	list := slices.Clone(s.reusable)
	for _, w := range s.idle {
		if w.order < horizon {
			list = append(list, w.no)
		}
	}
	return list
}

// unsealedBefore returns these packs as they are.
func (s *Store) unsealedBefore(horizon uint64) map[uint32]packInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	packs := make(map[uint32]packInfo)
	for _, no := range s.idleBefore(horizon) {
		if p := s.packs[no]; !p.missing && !p.dropped && p.records == p.saved.records && p.records > 0 {
			packs[no] = *p
		}
	}
	return packs
}

// takeIdle takes an unsealed pack away from the sessions, if it still is to be
// had.
func (s *Store) takeIdle(no uint32, horizon uint64) (*writer, error) {
	s.mu.Lock()
	for i, w := range s.idle {
		if w.no == no && w.order < horizon {
			s.idle = slices.Delete(s.idle, i, i+1)
			s.mu.Unlock()
			return w, nil
		}
	}
	i := slices.Index(s.reusable, no)
	if i < 0 {
		s.mu.Unlock()
		return nil, nil
	}
	s.reusable = slices.Delete(s.reusable, i, i+1)
	p := *s.packs[no]
	s.mu.Unlock()
	w, err := reopenWriter(s.disk, packsDir(s.dir), p)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	w.no = no
	s.writers[no] = w
	return w, nil
}

// errTaken says that a session goes on with a pack which was idle before.
var errTaken = errors.New("a session goes on with it")

// seal seals a pack for the sweep. It is errTaken if a session has taken it in
// the meantime, and errLeft if it cannot be sealed.
func (sw *Sweep) seal(ctx context.Context, no uint32) error {
	s := sw.s
	w, err := s.takeIdle(no, sw.horizon)
	name := s.packNow(no).name()
	if err != nil {
		return fmt.Errorf("pack %s: %w: %w", name, errLeft, err)
	}
	if w == nil {
		return errTaken
	}
	if err := s.sealPack(w); err != nil {
		if isFinal(err) {
			s.failure.set(err)
		}
		return fmt.Errorf("seal pack %s: %w", filepath.Base(w.path), err)
	}
	s.mu.Lock()
	s.packs[no].sealed = w.order // not now: nobody has added to it since
	s.mu.Unlock()
	// Its name has to be in the catalogue before it can go from there.
	return s.sync(ctx)
}
