package known

import (
	"cmp"
	"fmt"
	"slices"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/server/ledger"
)

// Chunks is what a session may refer to: chunks with their sizes in bytes, those of each
// class for itself, so that what was sent or inherited as metadata counts for metadata
// and for nothing else, and the other way round. It is safe for concurrent use.
//
// A chunk is remembered by 94 bits of its chunkstore.StandIn: that a name which is not
// known has those of one that is takes more tries than anybody has.
type Chunks struct {
	hold   *ledger.Hold // of what all sessions may remember
	max    int64
	hasher chunkstore.Hasher

	mu    sync.RWMutex
	count int64
	pages [][]mark // in order, and so is each of them; none is empty
}

// mark stands for a chunk of one class. It takes 16 bytes of memory, and some 24 with
// what the pages leave free.
type mark struct {
	hi   uint64
	lo   uint32 // its last two bits are the class
	size uint32
}

// pageMax is how many marks a page has at most.
const pageMax = 256

func (m mark) compare(o mark) int { return cmp.Or(cmp.Compare(m.hi, o.hi), cmp.Compare(m.lo, o.lo)) }

// markOf makes the mark of a chunk but for its size.
func (k *Chunks) markOf(id chunkstore.ID, class chunkstore.Class) mark {
	s := k.hasher.OfID(id)
	return mark{hi: s.Hi, lo: uint32(s.Lo)&^(chunkstore.ClassCount-1) | uint32(class)}
}

// find tells where a mark is, or belongs. The lock must be held.
func (k *Chunks) find(m mark) (page, at int, found bool) {
	page, found = slices.BinarySearchFunc(k.pages, m, func(p []mark, m mark) int { return p[0].compare(m) })
	if !found && page > 0 {
		page-- // the last one that begins before it
	}
	if page == len(k.pages) {
		return page, 0, false
	}
	at, found = slices.BinarySearchFunc(k.pages[page], m, mark.compare)
	return page, at, found
}

// insert puts a mark where find has said. The lock must be held.
func (k *Chunks) insert(page, at int, m mark) {
	k.count++
	if page == len(k.pages) {
		k.pages = append(k.pages, []mark{m})
		return
	}
	p := slices.Insert(k.pages[page], at, m)
	if len(p) < pageMax {
		k.pages[page] = p
		return
	}
	half := len(p) / 2
	k.pages[page] = slices.Clone(p[:half])
	k.pages = slices.Insert(k.pages, page+1, slices.Clone(p[half:]))
}

// Sizes are those of the chunks of one name, by class; 0 means that there is none.
type Sizes [chunkstore.ClassCount]uint32

// In chooses what a reference means in an archive whose chunks may be of some classes
// only, and tells which they may be of with it. If both would do and differ, it is the
// encrypted one. There may be none.
func (s Sizes) In(allowed chunkstore.Classes) (size uint32, classes chunkstore.Classes) {
	for c := range chunkstore.Class(chunkstore.ClassCount) {
		if !allowed.Has(c) || s[c] == 0 {
			continue
		}
		if size == 0 || s[c] != size && c.Encrypted() {
			size, classes = s[c], 0
		}
		if s[c] == size {
			classes = classes.With(c)
		}
	}
	return size, classes
}

// New returns an empty set, which is charged to p.
func New(all *ledger.Resource, p ledger.Payer) *Chunks {
	hold, _ := all.Try(p, 0) // nothing is always there
	return &Chunks{hold: hold, max: all.Limit().Share, hasher: chunkstore.NewHasher()}
}

// Add remembers a chunk. The size it was last added with counts. fresh tells that it was
// not known before.
func (k *Chunks) Add(r chunkstore.Ref) (fresh bool, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	m := k.markOf(r.ID, r.Class)
	m.size = r.Size
	page, at, found := k.find(m)
	if found {
		k.pages[page][at] = m
		return false, nil
	}
	if k.count >= k.max || k.hold.More(1) != nil {
		return false, fmt.Errorf("the sessions of this user refer to more chunks than the server remembers for one, %d in this one; run fewer at a time, or raise references in the configuration of the server: %w", k.count, chunkstore.ErrInvalid)
	}
	k.insert(page, at, m)
	return true, nil
}

// Of tells what is known under a name.
func (k *Chunks) Of(id chunkstore.ID) (s Sizes) {
	k.mu.RLock()
	defer k.mu.RUnlock()
	for class := range s {
		if page, at, found := k.find(k.markOf(id, chunkstore.Class(class))); found {
			s[class] = k.pages[page][at].size
		}
	}
	return s
}

// Free forgets everything.
func (k *Chunks) Free() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.hold.Free()
	k.pages, k.count = nil, 0
}
