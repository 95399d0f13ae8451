package datastore

import (
	"sync"

	"holdfast/datastore/wire"
)

// counted remembers what snapshots count, which takes reading their manifests to find
// out. It says nothing of one that is not there, so that another may come under its name,
// and whoever changes what one counts, or takes it away, has it forgotten: both under
// the edit lock of the snapshot. It is kept by the process only, which is the only one that
// writes to the store. All methods are safe for concurrent use.
type counted struct {
	mu    sync.Mutex
	count int // of both maps
	tree  map[wire.Group]map[int64]uint64
	trash map[string]Usage // by entry
}

// countedMax is how many snapshots are remembered: some 10 MB. What there are more is
// counted anew each time.
const countedMax = 100_000

func newCounted() *counted {
	return &counted{tree: make(map[wire.Group]map[int64]uint64), trash: make(map[string]Usage)}
}

// of tells what a snapshot in the tree counts, in bytes.
func (c *counted) of(snap wire.Snapshot) (bytes uint64, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	bytes, ok = c.tree[snap.Group][snap.Time]
	return bytes, ok
}

func (c *counted) put(snap wire.Snapshot, bytes uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count >= countedMax {
		return
	}
	group := c.tree[snap.Group]
	if group == nil {
		group = make(map[int64]uint64)
		c.tree[snap.Group] = group
	}
	if _, ok := group[snap.Time]; !ok {
		c.count++
	}
	group[snap.Time] = bytes
}

// forget drops a snapshot of the tree. The caller has its edit lock.
func (c *counted) forget(snap wire.Snapshot) {
	c.mu.Lock()
	defer c.mu.Unlock()
	group := c.tree[snap.Group]
	if _, ok := group[snap.Time]; ok {
		c.count--
	}
	if delete(group, snap.Time); len(group) == 0 {
		delete(c.tree, snap.Group)
	}
}

// ofEntry tells what an entry of the trash counts.
func (c *counted) ofEntry(e trashed) (u Usage, ok bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	u, ok = c.trash[e.name]
	return u, ok
}

func (c *counted) putEntry(e trashed, u Usage) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.count >= countedMax {
		return
	}
	if _, ok := c.trash[e.name]; !ok {
		c.count++
	}
	c.trash[e.name] = u
}

// forgetEntry drops an entry of the trash. The caller has the edit lock of its snapshot.
func (c *counted) forgetEntry(e trashed) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if _, ok := c.trash[e.name]; ok {
		c.count--
	}
	delete(c.trash, e.name)
}
