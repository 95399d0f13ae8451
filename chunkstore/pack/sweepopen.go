package pack

import (
	"context"
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
)

// A pack that is being filled is sealed before it is swept, so that what a small store
// holds can go at all. It is taken away from the session that fills it, if there is one:
// that may have begun with what others have left, and may have nothing more to say. The
// next record of the session goes into another pack.

// unsealedPacks returns the packs that could be sealed now. s.mu is held.
func (s *Store) unsealedPacks() []uint32 {
	list := slices.Clone(s.reusable)
	for _, w := range s.idle {
		list = append(list, w.no)
	}
	for no := range s.filling {
		list = append(list, no)
	}
	return list
}

// unsealed returns these packs as the catalogue knows them.
func (sw *Sweep) unsealed() map[uint32]catalogue.PackInfo {
	s := sw.s
	s.mu.Lock()
	defer s.mu.Unlock()
	packs := make(map[uint32]catalogue.PackInfo)
	if sw.blind {
		return packs
	}
	for _, no := range s.unsealedPacks() {
		if p := *s.packs[no]; !p.Missing && !p.Dropped && p.Saved.Records > 0 {
			p.Totals = p.Saved
			packs[no] = p
		}
	}
	return packs
}

// takeUnsealed takes an unsealed pack away from the sessions, if it still is to be
// had and the sweep has not moved anything into it.
func (sw *Sweep) takeUnsealed(no uint32) (*writer, error) {
	s := sw.s
	s.mu.Lock()
	if s.packs[no].SweptInto == sw.number {
		s.mu.Unlock()
		return nil, nil
	}
	if se := s.filling[no]; se != nil {
		s.mu.Unlock()
		return se.yield(no), nil
	}
	for i, w := range s.idle {
		if w.no == no {
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

// yield takes a pack away from a session, if it is the one that the session fills.
func (se *session) yield(no uint32) *writer {
	se.mu.Lock()
	defer se.mu.Unlock()
	if se.w == nil || se.w.no != no {
		return nil
	}
	return se.letPack()
}

// errTaken says that a pack is filled, or that it is not known what sessions need of it.
var errTaken = errors.New("a session needs it")

// seal seals a pack for the sweep. It is errTaken if a session has taken it in
// the meantime, and errLeft if it cannot be sealed.
func (sw *Sweep) seal(ctx context.Context, no uint32) error {
	s := sw.s
	w, err := sw.takeUnsealed(no)
	name := s.packNow(no).Name()
	if err != nil {
		return fmt.Errorf("pack %s: %w: %w", name, errLeft, err)
	}
	if w == nil {
		return errTaken
	}
	if err := s.sealPack(w); err != nil {
		if durable.IsFinal(err) {
			s.failure.set(err)
		}
		return fmt.Errorf("seal pack %s: %w", filepath.Base(w.path), err)
	}
	// Its name has to be in the catalogue before it can go from there.
	return s.sync(ctx)
}
