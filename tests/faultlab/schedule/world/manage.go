package world

import (
	"strings"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/gc"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
)

// change does something to a snapshot that fits, unless another task does.
func (l *life) change(fits places, what func(p *promise)) {
	p := l.m.some(l.rnd, func(p *promise) bool { return p.may == fits && !p.busy && !p.finishing })
	if p == nil {
		return
	}
	p.busy = true
	what(p)
	p.busy = false
}

func (l *life) forget() {
	l.change(inTree, func(p *promise) {
		p.may |= l.m.removed()
		err := l.store.Forget(l.ctx, p.snap)
		switch {
		case p.protected && err == nil:
			wrong("I5: the protected snapshot %s was removed", p.snap)
		case allow("forget "+p.snap.String(), err, wire.ErrBusy, wire.ErrProtected):
			p.may = p.may&^inTree | l.m.removed()
		default:
			p.may = inTree
		}
	})
}

func (l *life) forgetNow() {
	l.change(inTree, func(p *promise) {
		p.may = inTree | absent
		err := l.store.ForgetNow(l.ctx, p.snap)
		switch {
		case p.protected && err == nil:
			wrong("I5: the protected snapshot %s was destroyed", p.snap)
		case allow("destroy "+p.snap.String(), err, wire.ErrBusy, wire.ErrProtected):
			p.may = absent
		default:
			p.may = inTree
		}
	})
}

func (l *life) restoreDeleted() {
	p := l.m.some(l.rnd, func(p *promise) bool { return p.may&inTrash != 0 && !p.busy })
	if p == nil {
		return
	}
	p.busy = true
	before := p.may
	p.may |= inTree
	err := l.store.RestoreDeleted(l.ctx, p.snap)
	gone := []error{wire.ErrBusy, wire.ErrExists, datastore.ErrOwner} // the group may have been made again for another
	if before != inTrash || p.may&absent != 0 {
		gone = append(gone, chunkstore.ErrNotExist)
	}
	if allow("bring back "+p.snap.String(), err, gone...) {
		p.may = inTree
	} else {
		p.may = before | p.may&absent
	}
	p.busy = false
}

func (l *life) emptyTrash(all bool) {
	if all || l.m.trashDays < safeDays {
		l.m.emptying++
		l.m.empties()
		defer func() { l.m.emptying-- }()
	}
	_, err := l.store.EmptyTrash(l.ctx, all)
	allow("empty the trash", err)
}

func (l *life) protect() {
	l.change(inTree, func(p *promise) {
		on := l.rnd.IntN(2) == 0
		was := p.protected
		p.protected = false // until it is certain
		if allow("protect "+p.snap.String(), l.store.SetProtected(l.ctx, p.snap, on), wire.ErrBusy) {
			p.protected = on
		} else {
			p.protected = was
		}
	})
}

func (l *life) collect() {
	if l.m.trashDays < safeDays {
		l.m.empties()
	}
	r, err := gc.Collect(l.ctx, l.store, gc.Options{AllowEmpty: l.rnd.IntN(4) > 0, Workers: 2})
	if !allow("collect garbage", err, gc.ErrNothingFound, errSweeping) {
		return
	}
	for _, left := range r.Left {
		if !strings.Contains(left, "a session goes on with it") {
			wrong("I6: the collection has left a pack: %s", left)
		}
	}
}

// forgetGroup removes what can be removed of a group.
func (l *life) forgetGroup() {
	g := groups[l.rnd.IntN(len(groups))]
	var mine []*promise
	for _, p := range l.m.list() {
		switch {
		case p.snap.Group != g:
		case p.busy:
			return
		default:
			mine = append(mine, p)
		}
	}
	for _, p := range mine {
		p.busy = true
		if p.may&inTree != 0 {
			p.may |= l.m.removed()
		}
	}
	l.m.begun[g]++
	_, err := l.store.ForgetGroup(l.ctx, g)
	l.m.ended[g]++
	allow("forget group "+g.String(), err, wire.ErrBusy, chunkstore.ErrNotExist)
	for _, p := range mine {
		p.busy = false
		if p.protected {
			p.may = inTree
		}
	}
}

// verify scrubs and looks every reference up. Nothing is damaged, so nothing
// may be found.
func (l *life) verify() {
	r, err := verify.Store(l.ctx, l.store, verify.StoreOptions{Workers: 2})
	allow("verify", err)
	if !r.OK() {
		wrong("I4: the verification of a sound store has found %+v", r)
	}
}

// reindex builds the catalogue anew, beside everything else.
func (l *life) reindex() {
	_, err := l.store.Reindex(l.ctx, nil)
	allow("reindex", err)
}
