package world

import (
	"errors"
	"fmt"
	"slices"

	"holdfast/chunkstore"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
)

// check looks at every chunk that any snapshot needs.
func (l *life) check() {
	files, err := l.store.Indexes(l.ctx)
	allow("list all indexes", err)
	for _, f := range files {
		idx, err := l.store.OpenIndex(l.ctx, f)
		if !allow("open "+f.String(), err, chunkstore.ErrNotExist) {
			continue
		}
		l.checkIndex(f, idx)
		allow("close "+f.String(), idx.Close())
	}
}

func (l *life) checkIndex(f datastore.IndexFile, idx *index.Reader) {
	for e, err := range idx.All(0) {
		allow("read "+f.String(), err)
		sc := l.store.Scope(l.ctx, f)
		if p := l.m.all[f.Snapshot]; sc.Doubt == nil && p != nil && p.may&absent == 0 {
			l.checkScope(p, f, sc.Key(e))
		}
		if err := errors.Join(sc.Doubt, l.store.Check(l.ctx, sc.Key(e))); err != nil {
			// Its snapshot may have gone since.
			if p := l.m.all[f.Snapshot]; p != nil && p.may&absent == 0 {
				wrong("I3: %s needs chunk %d: %v", f, l.number(e.ID), err)
			}
		}
	}
}

// read restores a snapshot.
func (l *life) read() {
	p := l.m.some(l.rnd, func(p *promise) bool { return p.may == inTree })
	if p == nil {
		return
	}
	r, err := l.store.Open(l.ctx, p.snap)
	fine := []error{wire.ErrBusy}
	if p.may != inTree {
		fine = append(fine, chunkstore.ErrNotExist)
	}
	if allow("open "+p.snap.String(), err, fine...) {
		l.compare(p, r)
		allow("close", r.Close())
	}
}

// compare reads a whole snapshot and compares it with what was written.
func (l *life) compare(p *promise, r wire.Reader) {
	raw, err := r.Blob(l.ctx, wire.ManifestName)
	allow("I1: read the manifest of "+p.snap.String(), err)
	if !slices.Equal(raw, p.manifest) {
		wrong("I1: the manifest of %s is not what was sent", p.snap)
	}
	for _, a := range p.archives {
		idx, err := r.Index(l.ctx, a.name)
		allow("I1: open an index of "+p.snap.String(), err)
		n := 0
		for e, err := range idx.All(0) {
			allow("I1: read an index of "+p.snap.String(), err)
			if n >= len(a.chunks) || e.ID != l.chunks[a.chunks[n]].ID {
				wrong("I1: %s/%s has another chunk at %d", p.snap, a.name, n)
			}
			l.compareChunk(p, r, a.class, a.chunks[n])
			n++
		}
		allow("close", idx.Close())
		if n != len(a.chunks) {
			wrong("I1: %s/%s has %d chunks, not %d", p.snap, a.name, n, len(a.chunks))
		}
	}
}

func (l *life) compareChunk(p *promise, r wire.Reader, class chunkstore.Class, c int) {
	raw, err := r.Get(l.ctx, l.ref(class, c))
	allow(fmt.Sprintf("I1: %s, chunk %d", p.snap, c), err)
	if class.Encrypted() {
		l.compareEncrypted(p, class, raw, c)
		return
	}
	if !slices.Equal(raw, l.chunks[c].Blob) {
		wrong("I1: %s: chunk %d is not what was sent", p.snap, c)
	}
}
