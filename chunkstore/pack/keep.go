package pack

import (
	"context"

	"holdfast/chunkstore"
)

// keySet is a set of chunks, by 128 bits that stand for each of them: should two
// agree, one chunk stays that could go.
type keySet map[[2]uint64]struct{}

// short is what a chunk is called in a keySet.
func (s *Store) short(k chunkstore.Key) [2]uint64 {
	hi, lo := s.hasher.Of(k)
	return [2]uint64{hi, lo}
}

func (s *Store) newSession() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order++
	se := &session{s: s, order: s.order, kept: make(keySet)}
	s.sessions[se] = true
	return se
}

// endSession lets go of what a session has kept. Should it have committed a
// snapshot that a running sweep has not seen, the sweep goes on keeping it.
func (s *Store) endSession(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, se)
	if s.sweep != nil {
		for k := range se.kept {
			s.sweep.kept[k] = struct{}{}
		}
	}
	se.kept = make(keySet)
}

// Keep implements chunkstore.Keeper.
func (se *session) Keep(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	if err := se.usable(); err != nil {
		return chunkstore.Info{}, err
	}
	se.keep(k)
	return se.s.Stat(ctx, k)
}

func (se *session) keep(k chunkstore.Key) {
	short := se.s.short(k)
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	se.kept[short] = struct{}{}
}

func (se *session) unkeep(k chunkstore.Key) {
	short := se.s.short(k)
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	delete(se.kept, short)
}

// isKept reports whether a session counts on a chunk. s.mu is held.
func (s *Store) isKept(k chunkstore.Key) bool {
	short := s.short(k)
	if s.sweep != nil {
		if _, ok := s.sweep.kept[short]; ok {
			return true
		}
	}
	for se := range s.sessions {
		if _, ok := se.kept[short]; ok {
			return true
		}
	}
	return false
}

// leaving tells what a sweep does to the record of a chunk, or to its claim: condemned means that
// it is about to be removed, and the chunk counts as not stored; dropped, that
// the pack it was in has been forgotten.
func (s *Store) leaving(l location) (condemned, dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	condemned, dropped = s.condemned[l.pack][l.off], s.hasDropped(l.pack)
	if l.claimed() {
		condemned = condemned || s.condemned[l.claimPack][l.claimOff]
		dropped = dropped || s.hasDropped(l.claimPack)
	}
	return condemned, dropped
}

// hasDropped is called with s.mu held.
func (s *Store) hasDropped(pack uint32) bool {
	p := s.packs[pack]
	return p != nil && p.dropped
}
