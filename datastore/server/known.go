package server

import (
	"fmt"
	"sync"

	"holdfast/chunkstore"
)

// knownMax caps how many chunks a session remembers, knownTotalMax how many all
// of them do. An entry takes about 60 bytes of memory.
const (
	knownMax      = 16 << 20
	knownTotalMax = 64 << 20
)

// account is an amount that the sessions of a server share.
type account struct {
	mu   sync.Mutex
	used int64
	max  int64
}

// take takes n out of what is left and reports whether there was enough.
func (a *account) take(n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if n > a.max-a.used {
		return false
	}
	a.used += n
	return true
}

// give returns what was taken.
func (a *account) give(n int64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.used -= n
}

// known is what a session may refer to: chunks with their sizes in bytes. It is
// safe for concurrent use.
type known struct {
	total *account
	max   int64

	mu    sync.RWMutex
	sizes map[chunkstore.ID]uint32
}

func newKnown(total *account) *known {
	return &known{total: total, max: knownMax, sizes: make(map[chunkstore.ID]uint32)}
}

// add remembers a chunk. The size it was last added with counts.
func (k *known) add(id chunkstore.ID, size uint32) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, ok := k.sizes[id]; !ok {
		if int64(len(k.sizes)) >= k.max || !k.total.take(1) {
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
	k.total.give(int64(len(k.sizes)))
	k.sizes = nil
}
