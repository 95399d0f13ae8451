package pack

import (
	"cmp"
	"context"
	"fmt"
	"slices"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// What a session has put, and what it counts on besides, is remembered by the
// places of the records: no sweep removes one of them while the session is open, and
// if the session ends while a sweep runs, not that sweep. Everything else may go,
// however long the session stays, also what lies in the same pack.
//
// Two things change where a chunk lies. A record that takes the place of another,
// because a sweep moves it or it was put again, is held by all who hold that one. And
// a catalogue that is built anew may point to another copy of a chunk than before:
// nothing is swept then until the sessions of that moment have ended.

// extent is a stretch of a pack, in bytes.
type extent struct{ from, to uint32 }

// extents are records by pack, those that touch as one: in the order in which they
// lie, and none twice. An extent takes 8 bytes.
type extents map[uint32][]extent

// add adds what a chunk is read from, its record and its claim.
func (x extents) add(l catalogue.Location) {
	x.insert(l.Pack, extent{uint32(l.Off), uint32(l.End())})
	if l.Claimed() {
		x.insert(l.ClaimPack, extent{uint32(l.ClaimOff), uint32(l.ClaimOff + packfile.RecordSize)})
	}
}

func (x extents) insert(pack uint32, e extent) {
	list := x[pack]
	i, _ := slices.BinarySearchFunc(list, e.from, func(o extent, from uint32) int { return cmp.Compare(o.to, from) })
	end := i
	for ; end < len(list) && list[end].from <= e.to; end++ {
		e.from, e.to = min(e.from, list[end].from), max(e.to, list[end].to)
	}
	x[pack] = slices.Replace(list, i, end, e)
}

// has reports whether the record at a spot is among them.
func (x extents) has(at catalogue.Spot) bool { return covers(x[at.Pack], at.Off) }

// hasAny reports whether one of several is.
func (x extents) hasAny(list []catalogue.Spot) bool { return slices.ContainsFunc(list, x.has) }

// covers reports whether one of the extents has an offset.
func covers(list []extent, off int64) bool {
	i, _ := slices.BinarySearchFunc(list, uint32(off)+1, func(o extent, end uint32) int { return cmp.Compare(o.to, end) })
	return i < len(list) && list[i].from <= uint32(off)
}

// merge adds all of others.
func (x extents) merge(others extents) {
	for pack, list := range others {
		if len(x[pack]) == 0 {
			x[pack] = slices.Clone(list)
			continue
		}
		for _, e := range list {
			x.insert(pack, e)
		}
	}
}

func (s *Store) newSession() *session {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.order++
	se := &session{s: s, order: s.order, holds: make(extents)}
	s.sessions[se] = true
	return se
}

// endSession lets go of what a session holds. Should it have committed a
// snapshot that a running sweep has not seen, the sweep goes on keeping it.
func (s *Store) endSession(se *session) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.sessions, se)
	if s.sweep != nil {
		s.sweep.kept.merge(se.holds)
	}
	se.holds = make(extents)
}

// Keep implements chunkstore.Keeper.
func (se *session) Keep(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	if err := se.usable(); err != nil {
		return chunkstore.Info{}, err
	}
	leave, err := se.s.enterFlight(ctx, k.ID)
	if err != nil {
		return chunkstore.Info{}, fmt.Errorf("keep chunk %s: %w", k, err)
	}
	defer leave()
	l, ok, err := se.lookup(ctx, k)
	if err != nil {
		return chunkstore.Info{}, fmt.Errorf("keep chunk %s: %w", k, err)
	}
	return se.s.describe(ctx, k, l, ok)
}

// lookup is that of the store, for whoever has the flight of the chunk: no sweep moves
// it meanwhile. The session counts on what it finds.
func (se *session) lookup(ctx context.Context, k chunkstore.Key) (catalogue.Location, bool, error) {
	for {
		l, ok, err := se.s.lookup(ctx, k)
		if err != nil || !ok || se.hold(l) {
			return l, ok, err
		}
		// A sweep has condemned it, or is done with its pack, since it was found.
	}
}

// hold holds what a chunk is read from. It is false if the record, or the claim, is
// about to go or has gone: whoever has looked it up must look again.
func (se *session) hold(l catalogue.Location) bool {
	s := se.s
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range l.Spots() {
		if s.condemned[at.Pack][at.Off] || s.hasDropped(at.Pack) {
			return false
		}
	}
	s.holdFor(se, l)
	return true
}

// holdFor is called with s.mu held. A session that has ended holds nothing.
func (s *Store) holdFor(se *session, l catalogue.Location) {
	if s.sessions[se] {
		se.holds.add(l)
	}
}

// follow makes all that hold one of the places that something lay in hold that which
// stands for it from now on. s.mu is held.
func (s *Store) follow(from []catalogue.Spot, to catalogue.Location) {
	if len(from) == 0 {
		return
	}
	s.moves++
	for x := range s.held() {
		if x.hasAny(from) {
			x.add(to)
		}
	}
}

// held yields what the open sessions hold, and what a running sweep keeps for those
// that have ended. s.mu is held.
func (s *Store) held() func(yield func(extents) bool) {
	return func(yield func(extents) bool) {
		for se := range s.sessions {
			if !yield(se.holds) {
				return
			}
		}
		if s.sweep != nil {
			yield(s.sweep.kept)
		}
	}
}

// heldIn returns the parts of a pack that are held, a list for each that holds some.
// s.mu is held.
func (s *Store) heldIn(pack uint32) (lists [][]extent) {
	for x := range s.held() {
		if list := x[pack]; len(list) > 0 {
			lists = append(lists, list)
		}
	}
	return lists
}

// heldNow returns a copy of all that is held.
func (s *Store) heldNow() extents {
	s.mu.Lock()
	defer s.mu.Unlock()
	all := make(extents)
	for x := range s.held() {
		all.merge(x)
	}
	return all
}

// letGo forgets who holds what of a pack that is no more. s.mu is held.
func (s *Store) letGo(pack uint32) {
	for x := range s.held() {
		delete(x, pack)
	}
}

// rebuilt notes that the catalogue has been built anew: what the sessions hold that
// are open need not be where the chunks lie that they count on. s.mu is held.
func (s *Store) rebuilt() {
	s.order++
	s.moves++
	s.rebuiltAt = s.order
	if s.sweep != nil {
		s.sweep.blind = true
	}
}

// leaving tells what a sweep does to the record of a chunk, or to its claim: condemned means that
// it is about to be removed, and the chunk counts as not stored; dropped, that
// the pack it was in has been forgotten.
func (s *Store) leaving(l catalogue.Location) (condemned, dropped bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, at := range l.Spots() {
		condemned = condemned || s.condemned[at.Pack][at.Off]
		dropped = dropped || s.hasDropped(at.Pack)
	}
	return condemned, dropped
}

// hasDropped is called with s.mu held.
func (s *Store) hasDropped(pack uint32) bool {
	p := s.packs[pack]
	return p != nil && p.Dropped
}
