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

// known is what a session may refer to: chunks with their sizes in bytes. It is
// safe for concurrent use.
type known struct {
	hold *ledger.Hold // of what all sessions may remember
	max  int64

	mu    sync.RWMutex
	sizes map[chunkstore.ID]uint32
}

func newKnown(all *ledger.Resource, p ledger.Payer) *known {
	hold, _ := all.Try(p, 0) // nothing is always there
	return &known{hold: hold, max: knownMax, sizes: make(map[chunkstore.ID]uint32)}
}

// add remembers a chunk. The size it was last added with counts.
func (k *known) add(id chunkstore.ID, size uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.sizes[id]; !ok {
		if int64(len(k.sizes)) >= k.max || k.hold.More(1) != nil {
			return fmt.Errorf("the session refers to more than %d chunks: %w", len(k.sizes), chunkstore.ErrInvalid)
		}
	}
	k.sizes[id] = size
	return nil
}

// size tells the size of a chunk, and whether it is known.
func (k *known) size(id chunkstore.ID) (uint32, bool) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	size, ok := k.sizes[id]
	return size, ok
}

// free forgets everything.
func (k *known) free() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold.Free()
	k.sizes = nil
}
