package sim

import (
	"io/fs"
	"math/rand/v2"
	"slices"
)

// Image is what a disk holds while the machine is off. It is never changed.
type Image struct {
	Mode    fs.FileMode
	Data    []byte            // of a file
	Entries map[string]*Image // of a directory
}

// Image copies what the disk shows.
func (d *Disk) Image() *Image { return d.root.image() }

func (n *node) image() *Image {
	if !n.dir {
		return &Image{Mode: n.mode, Data: slices.Clone(n.data)}
	}
	im := &Image{Mode: n.mode, Entries: make(map[string]*Image, len(n.entries))}
	for name, e := range n.entries {
		im.Entries[name] = e.image()
	}
	return im
}

// load makes the disk hold an image, all of it synced; nil is an empty disk.
func (d *Disk) load(im *Image) {
	d.unmap()
	*d = Disk{root: newDir(0o755), moves: d.moves[:0], files: d.files[:0], nodes: d.nodes[:0], room: d.room, maps: d.maps}
	if im != nil {
		d.root = im.node()
	}
}

func (im *Image) node() *node {
	if im.Entries == nil {
		return &node{mode: im.Mode, links: 1, data: im.Data, synced: im.Data, shared: true}
	}
	n := newDir(im.Mode)
	for name, e := range im.Entries {
		child := e.node()
		n.entries[name], n.medium[name] = child, child
	}
	return n
}

// PowerCut leaves on the disk what was synced, and of the rest what r chooses:
// some of it, in an order that no program may count on, or torn.
func (d *Disk) PowerCut(r *rand.Rand) {
	d.cutMoves(r)
	for _, n := range d.nodes {
		if len(n.log) > 0 {
			n.cut(r)
		}
	}
	d.settle()
}

// Kill leaves everything: only the processes are gone.
func (d *Disk) Kill() {
	for _, n := range d.nodes {
		n.sync()
	}
	d.settle()
}

// settle makes what is there the state that the next crash goes back to.
func (d *Disk) settle() {
	seen := map[*node]bool{}
	var walk func(n *node)
	walk = func(n *node) {
		if seen[n] {
			n.links++
			return
		}
		seen[n] = true
		n.locks, n.mapped, n.links = nil, false, 1
		if !n.dir {
			return
		}
		clear(n.medium)
		for name, e := range n.entries {
			n.medium[name] = e
			walk(e)
		}
	}
	walk(d.root)
	d.moves, d.nodes, d.files = d.moves[:0], d.nodes[:0], d.files[:0]
}

// cutMoves drops changes of directories that were not synced: half of the time
// all behind some point, as a journal does, otherwise some of each directory.
func (d *Disk) cutMoves(r *rand.Rand) {
	keep := make([]bool, len(d.moves))
	last := -1 // that was synced
	for i, m := range d.moves {
		if keep[i] = m.synced; m.synced {
			last = i
		}
	}
	if r.IntN(2) == 0 {
		upTo := last + 1
		if rest := len(d.moves) - upTo; rest > 0 {
			upTo += r.IntN(rest + 1)
		}
		for i := range upTo {
			keep[i] = true
		}
	} else {
		d.keepSome(keep, r)
	}
	dirs := map[*node]bool{}
	for _, m := range d.moves {
		for _, n := range []*node{m.from, m.to, m.what} {
			if n != nil && n.dir && !dirs[n] {
				dirs[n] = true
				n.entries, n.medium = n.medium, make(map[string]*node)
			}
		}
	}
	for i, m := range d.moves {
		if keep[i] {
			m.apply(func(n *node) map[string]*node { return n.entries })
		}
	}
}

// keepSome keeps of each directory the changes up to some point.
func (d *Disk) keepSome(keep []bool, r *rand.Rand) {
	stopped := map[*node]bool{}
	odds := 1 + r.IntN(4)
	for i, m := range d.moves {
		if keep[i] {
			continue
		}
		if stopped[m.from] || stopped[m.to] || r.IntN(odds+1) == 0 {
			stopped[m.from], stopped[m.to] = m.from != nil, m.to != nil
			continue
		}
		keep[i] = true
	}
}

// cut leaves of a file what was synced and some of what came later.
func (n *node) cut(r *rand.Rand) {
	data := slices.Clone(n.synced)
	way := r.IntN(8)
	upTo := r.IntN(len(n.log) + 1)
	for i, e := range n.log {
		switch {
		case way < 3: // nothing
			continue
		case way == 3: // all of it
		case way < 6: // as far as some point, with a torn end
			if i > upTo {
				continue
			}
			if i == upTo && !e.cut {
				e.data = e.data[:r.IntN(len(e.data)+1)]
			}
		case r.IntN(2) == 0: // some of it
			continue
		}
		data = e.apply(data)
	}
	n.data, n.synced, n.log, n.shared, n.ours = data, slices.Clone(data), nil, false, true
}

// Damage lets change do what it likes to the content of a file that is there.
func (d *Disk) Damage(name string, change func([]byte) []byte) bool {
	n, err := d.find(name)
	if err != nil || n.dir {
		return false
	}
	n.data = change(slices.Clone(n.data))
	n.synced, n.log, n.shared, n.ours = slices.Clone(n.data), nil, false, true
	return true
}

// Lose removes a file.
func (d *Disk) Lose(name string) {
	dir, base, err := d.parent(name)
	if err == nil {
		delete(dir.entries, base)
		delete(dir.medium, base)
	}
}
