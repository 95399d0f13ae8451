package gc

import (
	"math/bits"
	"sync"

	"holdfast/chunkstore"
)

// set is a hash table of what stands for chunks, with open addressing: that is random
// already, so its first bits are the hash. It is several times smaller and faster than
// a map. The zero value is an empty set.
type set struct {
	mu    sync.Mutex           // for add; has must not run beside it
	slots []chunkstore.StandIn // a power of two; a zero one is free
	count int
	zero  bool // the zero value is in the set
}

const slotsMin = 1 << 10

// reserve makes room for n chunks, so that the table need not grow, and be there
// twice, while it is filled.
func (s *set) reserve(n uint64) {
	const most = 1 << 32
	slots := slotsMin
	for uint64(slots)*2 < min(n, most)*3 {
		slots *= 2
	}
	s.slots = make([]chunkstore.StandIn, slots)
}

// add puts chunks into the set.
func (s *set) add(list []chunkstore.StandIn) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range list {
		if (s.count+1)*3 > len(s.slots)*2 {
			s.grow()
		}
		s.put(k)
	}
}

func (s *set) put(k chunkstore.StandIn) {
	if k == (chunkstore.StandIn{}) {
		s.zero = true
		return
	}
	i := s.find(k)
	if s.slots[i] != k {
		s.slots[i] = k
		s.count++
	}
}

// find returns the slot that holds k, or the free one where it would go.
func (s *set) find(k chunkstore.StandIn) int {
	mask := len(s.slots) - 1
	i := int(k.Hi >> (64 - bits.TrailingZeros(uint(len(s.slots)))))
	for s.slots[i] != k && s.slots[i] != (chunkstore.StandIn{}) {
		i = (i + 1) & mask
	}
	return i
}

func (s *set) grow() {
	old := s.slots
	s.slots, s.count = make([]chunkstore.StandIn, max(slotsMin, 2*len(old))), 0
	for _, k := range old {
		if k != (chunkstore.StandIn{}) {
			s.put(k)
		}
	}
}

// has reports whether a chunk is in the set.
func (s *set) has(k chunkstore.StandIn) bool {
	if k == (chunkstore.StandIn{}) {
		return s.zero
	}
	return len(s.slots) > 0 && s.slots[s.find(k)] == k
}
