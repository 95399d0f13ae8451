package pack

import (
	"context"
	"fmt"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
)

// KeepAll implements chunkstore.Keeper. It looks all chunks up in one reading of the
// catalogue and holds them at once, without the flight of each: should anything change
// where a chunk lies meanwhile, all are left to Keep.
func (se *session) KeepAll(ctx context.Context, keys []chunkstore.Key) (rest []int, err error) {
	if err := se.usable(); err != nil {
		return nil, err
	}
	if err := se.s.usable(ctx); err != nil {
		return nil, fmt.Errorf("keep %d chunks: %w", len(keys), err)
	}
	found, moves := se.s.lookupAll(keys)
	se.s.lookAtPacks(found)
	return se.holdAll(found, moves), nil
}

// lookupAll looks chunks up as lookup does. The places are those of keys, zero for what
// was not found. They are sound as long as Store.moves is what is returned with them.
func (s *Store) lookupAll(keys []chunkstore.Key) (found []catalogue.Location, moves uint64) {
	found = make([]catalogue.Location, len(keys))
	s.mu.Lock()
	moves = s.moves
	for i, k := range keys {
		l, ok := s.pending.Get(k)
		if !ok {
			l, ok = s.committing.Get(k)
		}
		if ok {
			found[i] = l
		}
	}
	s.mu.Unlock()
	s.catMu.RLock()
	defer s.catMu.RUnlock()
	if s.cat.GetAll(keys, found) != nil {
		clear(found) // Keep finds the error again, and mends what it can
	}
	return found, moves
}

// lookAtPacks looks at the files of all packs that were found, so that the answers of
// this generation are known.
func (s *Store) lookAtPacks(found []catalogue.Location) {
	seen := map[uint32]bool{}
	for _, l := range found {
		if l != (catalogue.Location{}) && !seen[l.Pack] && s.knows(l.Pack) {
			seen[l.Pack] = true
			_, _ = s.look(l.Pack) // an error is one for Keep
		}
	}
}

// holdAll holds what was found, and returns the places of what cannot be held.
func (se *session) holdAll(found []catalogue.Location, moves uint64) (rest []int) {
	for from := 0; from < len(found); from += holdsAtOnce {
		rest = se.holdSome(found[from:min(from+holdsAtOnce, len(found))], from, moves, rest)
	}
	return rest
}

// holdsAtOnce is how many records are held before others may go on: of many small
// records far apart each takes its time.
const holdsAtOnce = 256

// holdSome is holdAll for a part that begins at from.
func (se *session) holdSome(found []catalogue.Location, from int, moves uint64, rest []int) []int {
	s := se.s
	s.mu.Lock()
	defer s.mu.Unlock()
	still := s.moves == moves
	for i, l := range found {
		if still && l != (catalogue.Location{}) && s.sound(l) {
			s.holdFor(se, l)
		} else {
			rest = append(rest, from+i)
		}
	}
	return rest
}

// sound tells whether a record, and its claim, is where it should be and stays, as far
// as the last look at its pack tells. s.mu is held.
func (s *Store) sound(l catalogue.Location) bool {
	for _, at := range l.Spots() {
		if s.packs[at.Pack] == nil || s.condemned[at.Pack][at.Off] || s.hasDropped(at.Pack) {
			return false
		}
	}
	p := s.packs[l.Pack]
	return p.Seen == s.generation && fits(*p, l) == nil
}
