package pack

import (
	"slices"

	"holdfast/chunkstore"
)

// table holds chunks that are not in the catalogue yet. Like the catalogue it finds
// them one by one, and all of a name and size. Nothing may be put into a zero table.
type table struct {
	chunks map[named][]held
	count  *int
}

// named is what the copies of several owners have in common.
type named struct {
	id   chunkstore.ID
	size uint32
}

func nameOf(k chunkstore.Key) named { return named{k.ID, k.Size} }

func newTable() table { return table{chunks: make(map[named][]held), count: new(int)} }

// len is how many chunks there are.
func (t table) len() int {
	if t.count == nil {
		return 0
	}
	return *t.count
}

// get looks a chunk up.
func (t table) get(k chunkstore.Key) (location, bool) {
	for _, h := range t.chunks[nameOf(k)] {
		if h.key == k {
			return h.location, true
		}
	}
	return location{}, false
}

// put adds a chunk, or changes where it lies.
func (t table) put(k chunkstore.Key, l location) {
	n := nameOf(k)
	for i, h := range t.chunks[n] {
		if h.key == k {
			t.chunks[n][i].location = l
			return
		}
	}
	t.chunks[n] = append(t.chunks[n], held{k, l})
	*t.count++
}

// holders returns the chunks of all owners of one name and size. The slice is not
// the caller's.
func (t table) holders(k chunkstore.Key) []held { return t.chunks[nameOf(k)] }

// drop removes the chunks of which gone says so.
func (t table) drop(gone func(held) bool) {
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

// clear removes all.
func (t table) clear() {
	clear(t.chunks)
	*t.count = 0
}

// each calls fn for every chunk, those of one name and size together.
func (t table) each(fn func(held)) {
	for _, list := range t.chunks {
		for _, h := range list {
			fn(h)
		}
	}
}

// sorted returns all chunks in the order of their keys.
func (t table) sorted() []held {
	all := make([]held, 0, t.len())
	t.each(func(h held) { all = append(all, h) })
	slices.SortFunc(all, func(a, b held) int { return a.key.Compare(b.key) })
	return all
}
