package datastore

import "holdfast/datastore/wire"

// OnStep has f called after each step of a removal or a return, when what was
// done so far is durable.
func (s *Store) OnStep(f func(name string)) { s.onStep = f }

// Changing tells whether somebody has the lock for changes of a group.
func (s *Store) Changing(g wire.Group) bool {
	s.locks.mu.Lock()
	m := s.locks.edits[g]
	s.locks.mu.Unlock()
	if m == nil {
		return false
	}
	free := m.TryLock()
	if free {
		m.Unlock()
	}
	return !free
}

// Remembered is of how many snapshots it is remembered what they count.
func (s *Store) Remembered() int {
	s.counted.mu.Lock()
	defer s.counted.mu.Unlock()
	return s.counted.count
}
