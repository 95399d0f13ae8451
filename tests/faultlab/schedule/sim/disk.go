package sim

import (
	"io/fs"
	"path"
	"slices"
	"strings"
	"syscall"
)

// Dir is the directory that a store lies in: the only one there is.
const Dir = "/store"

// Disk is a file system in memory. Names in it are absolute and clean. It
// belongs to whoever has the turn.
type Disk struct {
	root  *node
	moves []move // changes of directories since load, oldest first
	files []*File
	nodes []*node  // that have changed since load
	maps  [][]byte // memory of mapped files
	room  [][]byte // memory for them
	// Escaped is the first name outside Dir that was used.
	Escaped string
}

// node is a file or a directory.
type node struct {
	dir    bool
	mode   fs.FileMode // permissions
	links  int
	locks  map[*File]bool // who has locked it, and whether alone
	mapped bool

	data   []byte // of a file, as it is read
	shared bool   // data is also somebody else's: it must be copied first
	synced []byte // what the medium holds
	ours   bool   // synced is nobody else's
	log    []edit // what it does not hold yet

	entries map[string]*node
	medium  map[string]*node // entries as they were when the disk was loaded
}

// edit is one change of a file's content. A write has data, anything else is
// a cut to the size in off.
type edit struct {
	off  int64
	data []byte
	cut  bool
}

// move is one change of directories: from is the name that goes, if any, to
// the one that comes, if any. All of it happens or nothing.
type move struct {
	from, to         *node
	fromName, toName string
	what             *node
	synced           bool
}

func newDisk() *Disk { return &Disk{root: newDir(0o755)} }

func newDir(mode fs.FileMode) *node {
	return &node{dir: true, mode: mode, links: 1, entries: make(map[string]*node), medium: make(map[string]*node)}
}

// find returns what a name names.
func (d *Disk) find(name string) (*node, error) {
	if name == "/" {
		return d.root, nil
	}
	n := d.root
	for rest := name[1:]; rest != ""; {
		var part string
		part, rest, _ = strings.Cut(rest, "/")
		if !n.dir {
			return nil, syscall.ENOTDIR
		}
		if n = n.entries[part]; n == nil {
			return nil, syscall.ENOENT
		}
	}
	return n, nil
}

// parent returns the directory of a name that is about to change.
func (d *Disk) parent(name string) (dir *node, base string, err error) {
	if name != Dir && !strings.HasPrefix(name, Dir+"/") && d.Escaped == "" {
		d.Escaped = name
	}
	dir, err = d.find(path.Dir(name))
	if err == nil && !dir.dir {
		err = syscall.ENOTDIR
	}
	return dir, path.Base(name), err
}

// apply makes a change of directories.
func (m move) apply(entries func(*node) map[string]*node) {
	if m.from != nil {
		delete(entries(m.from), m.fromName)
	}
	if m.to != nil {
		entries(m.to)[m.toName] = m.what
	}
}

func (d *Disk) do(m move) {
	m.apply(func(n *node) map[string]*node { return n.entries })
	d.moves = append(d.moves, m)
}

// syncDir makes the entries of a directory durable, and whatever was changed
// together with them before.
func (d *Disk) syncDir(n *node) {
	dirs := []*node{n}
	for i := len(d.moves) - 1; i >= 0; i-- {
		m := &d.moves[i]
		if !slices.Contains(dirs, m.from) && !slices.Contains(dirs, m.to) {
			continue
		}
		m.synced = true
		for _, other := range []*node{m.from, m.to} {
			if other != nil && !slices.Contains(dirs, other) {
				dirs = append(dirs, other)
			}
		}
	}
}

// changed notes that the medium does not hold all of a file.
func (d *Disk) changed(n *node, e edit) {
	if len(n.log) == 0 {
		d.nodes = append(d.nodes, n)
	}
	n.log = append(n.log, e)
}

func (d *Disk) write(n *node, b []byte, off int64) {
	d.changed(n, edit{off: off, data: slices.Clone(b)})
	n.own()
	n.data = put(n.data, b, off)
}

func (d *Disk) truncate(n *node, size int64) {
	d.changed(n, edit{off: size, cut: true})
	n.own()
	n.data = resize(n.data, size)
}

// own makes the data of a file its own, for changing it in place.
func (n *node) own() {
	if n.shared {
		n.data, n.shared = slices.Clone(n.data), false
	}
}

// sync makes the content of a file durable.
func (n *node) sync() {
	if len(n.log) == 0 {
		return
	}
	if !n.ours {
		n.synced, n.ours = slices.Clone(n.synced), true
	}
	for _, e := range n.log {
		n.synced = e.apply(n.synced)
	}
	n.log = n.log[:0]
}

// apply makes the change.
func (e edit) apply(data []byte) []byte {
	if e.cut {
		return resize(data, e.off)
	}
	return put(data, e.data, e.off)
}

// put writes b into data at off, which may lie behind its end.
func put(data, b []byte, off int64) []byte {
	if end := off + int64(len(b)); end > int64(len(data)) {
		data = resize(data, end)
	}
	copy(data[off:], b)
	return data
}

// resize cuts data or fills it up with zeros.
func resize(data []byte, size int64) []byte {
	old := int64(len(data))
	if size <= old {
		clear(data[size:])
		return data[:size]
	}
	if size > int64(cap(data)) {
		data = append(make([]byte, 0, max(size, 2*int64(cap(data)))), data...)
	}
	return data[:size]
}

// mapping returns the content of a file as memory that later writes show in.
func (d *Disk) mapping(n *node, size int) []byte {
	if n.mapped {
		return n.data[:size:size]
	}
	old := n.data
	if k := len(d.room); k > 0 {
		n.data, d.room = d.room[k-1][:len(old)], d.room[:k-1]
	} else {
		n.data = make([]byte, len(old), mapMax)
	}
	copy(n.data, old)
	n.shared, n.mapped = false, true
	d.maps = append(d.maps, n.data)
	return n.data[:size:size]
}

// unmap takes the memory of all mappings back. Nobody may use it any more.
func (d *Disk) unmap() {
	for _, b := range d.maps {
		clear(b[:cap(b)])
		d.room = append(d.room, b)
	}
	d.maps = d.maps[:0]
}

// mapMax is how large a mapped file may become, in bytes. Its memory cannot
// move while it is mapped.
const mapMax = 256 << 10

func (d *Disk) unlockAll() {
	for _, f := range d.files {
		f.node.locks = nil
	}
	d.files = d.files[:0]
}
