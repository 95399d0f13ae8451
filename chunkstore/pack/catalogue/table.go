package catalogue

import (
	"slices"

	"holdfast/chunkstore"
)

// Table holds chunks that are not in the catalogue yet. Like the catalogue it finds
// them one by one, and all of a name and size. Nothing may be put into a zero table.
type Table struct {
	chunks map[Named][]Held
	count  *int
}

// Named is what the copies of several owners have in common.
type Named struct {
	ID   chunkstore.ID
	size uint32
}

// NameOf is what the copies of a chunk have in common.
func NameOf(k chunkstore.Key) Named { return Named{k.ID, k.Size} }

// NewTable makes an empty table.
func NewTable() Table { return Table{chunks: make(map[Named][]Held), count: new(int)} }

// Len is how many chunks there are.
func (t Table) Len() int {
	if t.count == nil {
		return 0
	}
	return *t.count
}

// Get looks a chunk up.
func (t Table) Get(k chunkstore.Key) (Location, bool) {
	for _, h := range t.chunks[NameOf(k)] {
		if h.Key == k {
			return h.Location, true
		}
	}
	return Location{}, false
}

// Put adds a chunk, or changes where it lies.
func (t Table) Put(k chunkstore.Key, l Location) {
	n := NameOf(k)
	for i, h := range t.chunks[n] {
		if h.Key == k {
			t.chunks[n][i].Location = l
			return
		}
	}
	t.chunks[n] = append(t.chunks[n], Held{k, l})
	*t.count++
}

// Holders returns the chunks of all owners of one name and size. The slice is not
// the caller's.
func (t Table) Holders(k chunkstore.Key) []Held { return t.chunks[NameOf(k)] }

// Drop removes the chunks of which gone says so.
func (t Table) Drop(gone func(Held) bool) {
	for n, list := range t.chunks {
		rest := slices.DeleteFunc(list, gone)
		*t.count -= len(list) - len(rest)
		if len(rest) == 0 {
			delete(t.chunks, n)
			continue
		}
		t.chunks[n] = rest
	}
}

// Clear removes all.
func (t Table) Clear() {
	clear(t.chunks)
	*t.count = 0
}

// Each calls fn for every chunk, those of one name and size together.
func (t Table) Each(fn func(Held)) {
	for _, list := range t.chunks {
		for _, h := range list {
			fn(h)
		}
	}
}

// Sorted returns all chunks in the order of their keys.
func (t Table) Sorted() []Held {
	all := make([]Held, 0, t.Len())
	t.Each(func(h Held) { all = append(all, h) })
	slices.SortFunc(all, func(a, b Held) int { return a.Key.Compare(b.Key) })
	return all
}
