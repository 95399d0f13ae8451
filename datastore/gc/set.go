package gc

import (
	"math/bits"
	"sync"
)

// key stands for a chunk. Should two agree in 128 bits, one chunk stays that could
// go.
type key struct{ hi, lo uint64 }

// set is a hash table of keys with open addressing: keys are random already, so
// their first bits are the hash, and nobody can foresee them. It is several times
// smaller and faster than a map. The zero value is an empty set.
type set struct {
	mu    sync.Mutex // for add; has must not run beside it
	slots []key      // a power of two; a zero key is a free slot
	count int
	zero  bool // the zero key is in the set
}

const slotsMin = 1 << 10

// reserve makes room for n keys, so that the table need not grow, and be there
// twice, while it is filled.
func (s *set) reserve(n uint64) {
	const most = 1 << 32
	slots := slotsMin
	for uint64(slots)*2 < min(n, most)*3 {
		slots *= 2
	}
	s.slots = make([]key, slots)
}

// add puts keys into the set.
func (s *set) add(keys []key) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if (s.count+1)*3 > len(s.slots)*2 {
			s.grow()
		}
		s.put(k)
	}
}

func (s *set) put(k key) {
	if k == (key{}) {
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
func (s *set) find(k key) int {
	mask := len(s.slots) - 1
	i := int(k.hi >> (64 - bits.TrailingZeros(uint(len(s.slots)))))
	for s.slots[i] != k && s.slots[i] != (key{}) {
		i = (i + 1) & mask
	}
	return i
}

func (s *set) grow() {
	old := s.slots
	s.slots, s.count = make([]key, max(slotsMin, 2*len(old))), 0
	for _, k := range old {
		if k != (key{}) {
			s.put(k)
		}
	}
}

// has reports whether a chunk is in the set.
func (s *set) has(k key) bool {
	if k == (key{}) {
		return s.zero
	}
	return len(s.slots) > 0 && s.slots[s.find(k)] == k
}
