package pack

import (
	"context"
	"slices"
)

// A pack whose file is not there is remembered, since it may come back. When
// nothing that is in use lies in it any more, because it was stored again or
// nobody needs it, there is nothing left to remember: a sweep lets the catalogue
// forget the pack. Should the file come back all the same it is learned again, as
// garbage for the sweep after.

// forgetLost forgets the missing packs without anything in use.
func (sw *Sweep) forgetLost(ctx context.Context, inUse map[uint32]uint64, r *SweepReport) error {
	for _, no := range sw.s.lost() {
		if inUse[no] > 0 {
			continue
		}
		dead, err := sw.s.scanCurrent(ctx, no)
		if err != nil {
			return err
		}
		var keep []current
		if dead, err = sw.condemn(no, dead, &keep); err != nil || len(keep) > 0 {
			sw.pardon(no)
			continue // of one that a session has met when it was still there
		}
		if err := sw.forget(ctx, no, dead); err != nil {
			sw.pardon(no)
			return err
		}
		r.PacksRemoved++
		r.ChunksRemoved += uint64(len(dead))
	}
	return nil
}

// forget removes what the catalogue has about a missing pack.
func (sw *Sweep) forget(ctx context.Context, no uint32, dead []current) error {
	s := sw.s
	if err := s.lockCommit(ctx); err != nil {
		return err
	}
	defer s.unlockCommit()
	if err := s.writable(); err != nil {
		return err
	}
	if err := sw.commitDrop(no, dead); err != nil {
		return err
	}
	s.forgetPack(no)
	return nil
}

// lost returns the missing packs that nobody writes to.
func (s *Store) lost() []uint32 {
	s.mu.Lock()
	defer s.mu.Unlock()
	var list []uint32
	for no, p := range s.packs {
		if p.Missing && !p.Dropped && s.writers[no] == nil && !s.dirty[no] {
			list = append(list, no)
		}
	}
	slices.Sort(list)
	return list
}
