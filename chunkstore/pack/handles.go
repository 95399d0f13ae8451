package pack

import (
	"container/list"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"sync"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/packfile"
)

// handlesMax is how many packs are kept open for reading.
const handlesMax = 64

// handles keeps the packs open that were read last. A pack that somebody reads
// is not closed under him.
type handles struct {
	dir string

	mu   sync.Mutex // guards all below
	open map[packfile.ID]*handle
	used *list.List // of *handle, the one used last in front
}

type handle struct {
	id   packfile.ID
	f    *os.File
	name string
	refs int
	gone bool // no longer in the map: the last user closes it
	at   *list.Element
}

func newHandles(dir string) *handles {
	return &handles{dir: dir, open: make(map[packfile.ID]*handle), used: list.New()}
}

// acquire opens a pack, or hands out the one that is open. The state says
// which name to try first: the other one may be right for a moment while a
// pack is sealed. A pack that is not there is ErrCorrupt, and the error names
// it.
func (h *handles) acquire(id packfile.ID, state packfile.State) (*handle, error) {
	h.mu.Lock()
	if e := h.open[id]; e != nil {
		e.refs++
		h.used.MoveToFront(e.at)
		h.mu.Unlock()
		return e, nil
	}
	h.mu.Unlock()
	f, name, err := openPack(h.dir, id, state)
	if err != nil {
		return nil, err
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.open[id]; e != nil {
		f.Close()
		e.refs++
		return e, nil
	}
	e := &handle{id: id, f: f, name: name, refs: 1}
	e.at = h.used.PushFront(e)
	h.open[id] = e
	h.trim()
	return e, nil
}

// openPack opens a pack for reading under either of its names.
func openPack(dir string, id packfile.ID, state packfile.State) (*os.File, string, error) {
	names := []string{id.String() + state.Ext(), id.String() + packfile.SealedExt, id.String() + packfile.OpenExt}
	var err error
	for _, name := range names {
		var f *os.File
		f, err = durable.Open(filepath.Join(dir, name))
		if err == nil {
			return f, name, nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return nil, name, fmt.Errorf("pack %s: %w", name, err)
		}
	}
	return nil, names[0], missingPack(names[0])
}

func missingPack(name string) error {
	return fmt.Errorf("pack %s: missing: %w", name, chunkstore.ErrCorrupt)
}

// trim closes packs that nobody reads until few enough are open.
func (h *handles) trim() {
	for el := h.used.Back(); el != nil && len(h.open) > handlesMax; {
		prev := el.Prev()
		if e := el.Value.(*handle); e.refs == 0 {
			h.drop(e)
		}
		el = prev
	}
}

// drop takes a handle out of the map and closes it when nobody reads from it.
func (h *handles) drop(e *handle) {
	if !e.gone {
		e.gone = true
		delete(h.open, e.id)
		h.used.Remove(e.at)
	}
	if e.refs == 0 {
		e.f.Close()
	}
}

// release ends one use.
func (h *handles) release(e *handle) {
	h.mu.Lock()
	defer h.mu.Unlock()
	e.refs--
	if e.gone {
		h.drop(e)
		return
	}
	h.trim()
}

// forget makes the next acquire open the pack anew.
func (h *handles) forget(id packfile.ID) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if e := h.open[id]; e != nil {
		h.drop(e)
	}
}

func (h *handles) closeAll() {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range h.open {
		h.drop(e)
	}
}
