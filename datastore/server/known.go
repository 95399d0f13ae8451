package server

import (
	"fmt"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/server/ledger"
)

// knownMax caps how many chunks a session remembers. An entry takes about 60 bytes of
// memory.
const knownMax = 16 << 20

// known is what a session may refer to: chunks with their sizes in bytes, those of each
// class for itself. It is safe for concurrent use.
type known struct {
	hold *ledger.Hold // of what all sessions may remember
	max  int64

	mu    sync.RWMutex
	sizes map[chunkstore.ID]sizes
}

// sizes are those of the chunks of one name, by class; 0 means that there is none.
type sizes [2]uint32

// classes are those in which there is a chunk.
func (s sizes) classes() (set chunkstore.Classes) {
	for c, size := range s {
		if size > 0 {
			set = set.With(chunkstore.Class(c))
		}
	}
	return set
}

// in chooses what a reference means in an archive whose chunks may be of some classes
// only, and tells which they may be of with it. If both would do and differ, it is the
// encrypted one. There may be none.
func (s sizes) in(allowed chunkstore.Classes) (size uint32, classes chunkstore.Classes) {
	classes = allowed & s.classes()
	if classes == chunkstore.AllClasses && s[chunkstore.ClassPlain] != s[chunkstore.ClassEncrypted] {
		classes = chunkstore.Classes(0).With(chunkstore.ClassEncrypted)
	}
	if classes.Has(chunkstore.ClassPlain) {
		return s[chunkstore.ClassPlain], classes
	}
	if classes.Has(chunkstore.ClassEncrypted) {
		return s[chunkstore.ClassEncrypted], classes
	}
	return 0, 0
}

func newKnown(all *ledger.Resource, p ledger.Payer) *known {
	hold, _ := all.Try(p, 0) // nothing is always there
	return &known{hold: hold, max: knownMax, sizes: make(map[chunkstore.ID]sizes)}
}

// add remembers a chunk. The size it was last added with counts. fresh tells that it was
// not known before.
func (k *known) add(r chunkstore.Ref) (fresh bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	s, ok := k.sizes[r.ID]
	if !ok {
		if int64(len(k.sizes)) >= k.max || k.hold.More(1) != nil {
			return false, fmt.Errorf("the session refers to more than %d chunks: %w", len(k.sizes), chunkstore.ErrInvalid)
		}
	}
	fresh = s[r.Class] == 0
	s[r.Class] = r.Size
	k.sizes[r.ID] = s
	return fresh, nil
}

// of tells what is known under a name.
func (k *known) of(id chunkstore.ID) sizes {
	k.mu.RLock()
	defer k.mu.RUnlock()
	return k.sizes[id]
}

// free forgets everything.
func (k *known) free() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold.Free()
	k.sizes = nil
}
