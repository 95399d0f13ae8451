package datastore

// OnStep has f called after each step of a removal or a return, when what was
// done so far is durable.
func (s *Store) OnStep(f func(name string)) { s.onStep = f }
