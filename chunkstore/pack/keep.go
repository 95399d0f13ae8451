package pack

import (
	"context"

	"holdfast/chunkstore"
)

// idSet is a set of chunks. It holds half of each ID: these are SHA-256 sums,
// and should two agree in 128 bits, one chunk stays that could go.
type idSet map[[16]byte]struct{}

func (set idSet) add(id chunkstore.ID) { set[[16]byte(id[:16])] = struct{}{} }

func (set idSet) has(id chunkstore.ID) bool {
	_, ok := set[[16]byte(id[:16])]
	return ok
}

func (s *Store) newSession() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order++
	se := &session{s: s, order: s.order, kept: make(idSet)}
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
		for id := range se.kept {
			s.sweep.kept[id] = struct{}{}
		}
	}
	se.kept = make(idSet)
}

// Keep implements chunkstore.Keeper.
func (se *session) Keep(ctx context.Context, id chunkstore.ID) (chunkstore.Info, error) {
	if err := se.usable(); err != nil {
		return chunkstore.Info{}, err
	}
	se.keep(id)
	return se.s.Stat(ctx, id)
}

func (se *session) keep(id chunkstore.ID) {
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	se.kept.add(id)
}

func (se *session) unkeep(id chunkstore.ID) {
	se.s.mu.Lock()
	defer se.s.mu.Unlock()
	delete(se.kept, [16]byte(id[:16]))
}

// isKept reports whether a session counts on a chunk. s.mu is held.
func (s *Store) isKept(id chunkstore.ID) bool {
	if s.sweep != nil && s.sweep.kept.has(id) {
		return true
	}
	for se := range s.sessions {
		if se.kept.has(id) {
			return true
		}
	}
	return false
}

// leaving tells what a sweep does to the record of a chunk: condemned means that
// it is about to be removed, and the chunk counts as not stored; dropped, that
// the pack it was in has been forgotten.
func (s *Store) leaving(id chunkstore.ID, l location) (condemned, dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := s.packs[l.pack]
	return s.condemned[l.pack].has(id), p != nil && p.dropped
}
