package world

import (
	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/wire"
	"holdfast/tests/faultlab/schedule/sim"
)

// sync compares where snapshots are with where they may be, and takes note.
// Nothing else runs.
func (l *life) sync() {
	seen := make(map[wire.Snapshot]places)
	l.tree(seen)
	l.trash(seen)
	for s := range seen {
		if l.m.all[s] == nil {
			wrong("I2: %s is listed, and nobody has begun it", s)
		}
	}
	for _, p := range l.m.list() {
		l.settle(p, max(seen[p.snap], absent))
	}
}

// settle takes note of where a snapshot is.
func (l *life) settle(p *promise, is places) {
	if p.may&is == 0 {
		wrong("I1, I2: %s is %s, it should be %s", p.snap, is, p.may)
	}
	p.may = is
}

// tree lists what is in the tree.
func (l *life) tree(seen map[wire.Snapshot]places) {
	for _, g := range groups {
		list, err := l.store.Snapshots(l.ctx, g)
		if !allow("list "+g.String(), err, chunkstore.ErrNotExist) {
			continue
		}
		for _, info := range list {
			if info.Damage != "" {
				wrong("I1: %s: %s", info.Snapshot, info.Damage)
			}
			seen[info.Snapshot] = inTree
			if p := l.m.all[info.Snapshot]; p != nil && p.protected && !info.Protected {
				wrong("I5: %s is not protected any more", info.Snapshot)
			}
		}
	}
}

// peek lists the store as a process does that only reads. What was listed before
// is there.
func (l *life) peek() {
	s, err := datastore.Open(l.ctx, sim.Dir, datastore.Options{ReadOnly: true, Now: l.now, Uptime: l.uptime, Turns: freely{}})
	if err != nil {
		wrong("I6: open to read: %v", err)
	}
	other := *l
	other.store = s
	seen := make(map[wire.Snapshot]places)
	other.tree(seen)
	for _, p := range l.m.list() {
		if p.may == inTree && seen[p.snap] == 0 {
			wrong("I1: %s is not there for who reads only", p.snap)
		}
	}
	allow("close the reader", s.Close())
}

// watch is somebody who lists snapshots while they are made, in this process or
// another, and tells that they are there: from then on they have to be.
func (l *life) watch() {
	s := l.store
	if l.rnd.IntN(2) == 0 {
		var err error
		s, err = datastore.Open(l.ctx, sim.Dir, datastore.Options{ReadOnly: true, Now: l.now, Uptime: l.uptime, Turns: freely{}})
		if err != nil {
			wrong("I6: open to read: %v", err)
		}
		defer func() { allow("close the reader", s.Close()) }()
	}
	for range 1 + l.rnd.IntN(6) {
		g := groups[l.rnd.IntN(len(groups))]
		removals := l.m.begun[g]
		list, err := s.Snapshots(l.ctx, g)
		if !allow("list "+g.String(), err, chunkstore.ErrNotExist) || l.m.begun[g] != l.m.ended[g] || l.m.begun[g] != removals {
			continue
		}
		for _, info := range list {
			if p := l.m.all[info.Snapshot]; p != nil && p.finishing {
				sim.The().Note("seen %s", p.snap)
				p.may &^= absent
			}
		}
	}
}

// trash lists what is in the trash.
func (l *life) trash(seen map[wire.Snapshot]places) {
	deleted, err := l.store.Deleted(l.ctx)
	allow("list the trash", err)
	for _, d := range deleted {
		if d.Damage != "" {
			wrong("I1: in the trash: %s", d.Damage)
		}
		if seen[d.Snapshot] != 0 {
			wrong("I2: %s is there twice", d.Snapshot)
		}
		seen[d.Snapshot] = inTrash
	}
}

// inspect is the last life of a schedule: everything must be as promised, and
// a collection must remove the garbage and nothing else.
func (r *run) inspect(l *life) {
	if left, err := sim.ReadDir(sim.Dir + "/.tmp"); err != nil || len(left) > 0 {
		wrong("I6: %d entries are left in .tmp: %v", len(left), err)
	}
	l.sync()
	if l.m.trashDays < safeDays {
		l.m.empties()
	}
	l.cleanUp()
	left := make(map[wire.Snapshot]places)
	l.trash(left)
	for _, p := range l.m.list() {
		if p.may&inTrash != 0 {
			l.settle(p, max(left[p.snap], absent))
		}
	}
	l.everything()
	l.garbage()
}

// cleanUp collects, and once more if the first collection has gone on with a
// pack that it wanted to remove.
func (l *life) cleanUp() {
	for again := range 2 {
		rep, err := gc.Collect(l.ctx, l.store, gc.Options{AllowEmpty: true, Workers: 1})
		allow("I6: collect garbage", err)
		if len(rep.Left) == 0 {
			return
		}
		if again > 0 {
			wrong("I6: the collection has left packs: %v", rep.Left)
		}
	}
}

// everything reads all snapshots, and checks all chunks of the trash.
func (l *life) everything() {
	for _, p := range l.m.list() {
		if p.may != inTree {
			continue
		}
		r, err := l.store.Open(l.ctx, p.snap)
		allow("I1: open "+p.snap.String(), err)
		l.compare(p, r)
		allow("close", r.Close())
	}
	l.check()
}

// garbage compares what is stored with what is needed.
func (l *life) garbage() {
	needed := make(map[holding]bool)
	for _, p := range l.m.list() {
		if p.may == absent {
			continue
		}
		for _, a := range p.archives {
			for _, c := range a.chunks {
				needed[heldBy(p.copies, a.class, c)] = true
			}
		}
	}
	var live, stored int64
	for h := range needed {
		live += l.room(h, needed)
	}
	packs, err := sim.ReadDir(sim.Dir + "/.chunks/packs")
	allow("list the packs", err)
	for _, p := range packs {
		info, err := p.Info()
		allow("look at a pack", err)
		stored += max(0, info.Size()-136)
	}
	// A quarter of each pack may be garbage.
	if stored > live*4/3+slack {
		wrong("I6: after a collection %d bytes of records are stored, %d are needed", stored, live)
	}
}

// room is how many bytes of packs a content needs, at most: each owner has it from a
// record of his own, or by a claim from that of somebody who may have let it go.
func (l *life) room(h holding, needed map[holding]bool) int64 {
	// A record has a header of 112 bytes and an entry of 100 in the table, a pack 136
	// bytes besides.
	const record = 112 + 100
	if h.owner == "" {
		return record + int64(len(l.chunks[h.chunk].Blob))
	}
	room := record + int64(len(l.chunks[h.chunk].sealed[alike]))
	for _, o := range owners {
		for _, meta := range []bool{false, true} {
			if other := (holding{o, meta, h.chunk}); other.before(h) && needed[other] {
				return room // counted with the first of them
			}
		}
	}
	return room + record
}

// slack is what may be left in a pack that is not full, in bytes.
const slack = 600
