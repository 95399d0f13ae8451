package world

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/tests/faultlab/schedule/sim"
)

// life is one opening of the store, with the tasks that use it.
type life struct {
	*run
	ctx   context.Context
	store *datastore.Store
	m     *model
	rnd   *rand.Rand
	now   func() time.Time
	// uptime stands for boot.Uptime.
	uptime func() (string, time.Duration)
}

// wrong ends the schedule: an invariant is broken.
func wrong(format string, args ...any) { panic(Violation(fmt.Sprintf(format, args...))) }

// allow ends the schedule unless err is nil or one of those.
func allow(what string, err error, fine ...error) bool {
	if err == nil {
		return true
	}
	for _, e := range fine {
		if errors.Is(err, e) {
			return false
		}
	}
	wrong("%s: %v", what, err)
	return false
}

// backup writes one snapshot.
type backup struct {
	*life
	p     *promise
	ss    *datastore.Session
	known map[chunkstore.Ref]bool // of the base and of the resume list: they need not be sent
	lies  bool                    // it refers to a chunk that it has not sent
	turns bool                    // its manifest tells the other class of its archives
	bogus bool                    // it sends garbage
	quit  int                     // after how many chunks it gives up; -1 means not at all
}

func (l *life) backup() { l.write(l.rnd.IntN(12) == 0) }

// write makes a backup. One that lies refers to chunks that it has not sent.
func (l *life) write(lies bool) {
	g := groups[l.rnd.IntN(len(groups))]
	l.m.last++
	b := &backup{life: l, quit: -1, known: make(map[chunkstore.Ref]bool), lies: lies, turns: lies && l.rnd.IntN(3) == 0}
	b.p = &promise{snap: wire.Snapshot{Group: g, Time: l.m.last}, may: absent, read: make(map[holding]int)}
	l.m.all[b.p.snap] = b.p
	if l.rnd.IntN(8) == 0 {
		b.quit = l.rnd.IntN(4)
	}
	changes := l.m.given[g]
	who, owner := l.writer(g)
	var err error
	o := datastore.SessionOptions{Snapshot: b.p.snap, Owner: who, Foreign: l.rnd.IntN(2) == 0}
	fine := []error{wire.ErrBusy, wire.ErrExists, datastore.ErrOwner}
	if o.Foreign && g.NS != "" {
		fine = append(fine, chunkstore.ErrNotExist) // nobody has made the namespace
	}
	b.ss, err = l.store.BeginSession(l.ctx, o)
	if !allow("begin "+b.p.snap.String(), err, fine...) {
		return
	}
	l.admitted(g, who, owner, changes)
	b.p.copies = l.copiesOf(g, who)
	// Who was given a group is trusted with the copies that it reads.
	b.bogus = who == hostile && b.p.copies == hostile && l.rnd.IntN(2) == 0
	b.send(o.Foreign && who == hostile && l.rnd.IntN(4) == 0)
	allow("close the session", b.ss.Close())
}

// send sends all. With forges it tries to get in what is not of its name.
func (b *backup) send(forges bool) {
	b.learn()
	files := b.archive(b.oneOf("disk.img.didx", "disk.mpxar.didx"), 1+b.rnd.IntN(5))
	if files == nil {
		return
	}
	if forges {
		b.forge(b.rnd.IntN(len(b.chunks)))
	}
	if b.rnd.IntN(4) == 0 {
		more := b.archive(b.oneOf("more.img.didx", "more.mpxar.didx"), 1+b.rnd.IntN(2))
		if more == nil {
			return
		}
		files = append(files, more...)
	}
	g := b.p.snap.Group
	m := manifest.Manifest{Type: g.Type, ID: g.ID, Time: b.p.snap.Time, Files: files}
	text, err := m.Encode()
	allow("encode the manifest", err)
	raw, err := b.codec.EncodeRaw(nil, text) // without compression, to save time
	allow("seal the manifest", err)
	allow("send the manifest", b.ss.Blob(b.ctx, wire.ManifestName, raw))
	b.p.manifest = raw
	b.finish()
}

// finish is where the promise is made.
func (b *backup) finish() {
	b.p.may = absent | inTree
	g := b.p.snap.Group
	removals := b.m.ended[g]
	b.p.finishing = true
	err := b.ss.Finish(b.ctx)
	b.p.finishing = false
	var missing *wire.MissingError
	switch {
	case err == nil && b.turns:
		wrong("I2: finish %s: its archives are of another class than what was sent for them", b.p.snap)
	case b.turns && errors.Is(err, chunkstore.ErrInvalid):
		b.p.may = absent
	case err == nil && b.m.begun[g] > removals:
		b.p.may = inTree | b.m.removed() // it may have gone with its group
	case err == nil:
		b.p.may = inTree
		sim.The().Note("finished %s", b.p.snap)
	case b.p.may&absent == 0:
		wrong("I1: finish %s: %v, and it was listed", b.p.snap, err)
	case errors.As(err, &missing) && b.lies:
		b.p.may = absent
	case errors.As(err, &missing):
		wrong("I3: finish %s: a chunk is gone that was sent or that need not be sent: %v", b.p.snap, err)
	default:
		wrong("finish %s: %v", b.p.snap, err)
	}
	if err == nil {
		b.allSent()
	}
}

// allSent makes sure that a snapshot which was accepted has nothing that nobody has sent
// for its owner.
func (b *backup) allSent() {
	for _, a := range b.p.archives {
		for _, c := range a.chunks {
			b.mustBeSent(a.class, c, "was accepted with")
		}
	}
}

// learn finds out which chunks need not be sent.
func (b *backup) learn() {
	if b.rnd.IntN(2) == 0 {
		b.fromBase()
	}
	if b.rnd.IntN(4) == 0 {
		allow("resume", b.ss.EachResumed(b.ctx, func(list []chunkstore.Ref) error {
			for _, ref := range list {
				b.mustBeSent(ref.Class, b.number(ref.ID), "was told to go on with")
				b.known[ref] = true
			}
			return nil
		}))
	}
}

func (b *backup) fromBase() {
	r, err := b.ss.Previous(b.ctx)
	if !allow("open the base", err, chunkstore.ErrNotExist) {
		return
	}
	defer r.Close()
	p := b.m.all[r.Snapshot()]
	if p == nil || p.may&inTree == 0 {
		wrong("I2: the base is %s, which is %s", r.Snapshot(), p.may)
	}
	for _, a := range p.archives {
		for _, n := range a.chunks {
			b.known[b.ref(a.class, n)] = true
		}
	}
}

// oneOf picks the name of an archive of content or, less often, of metadata.
func (b *backup) oneOf(content, meta string) string {
	if b.rnd.IntN(3) == 0 {
		return meta
	}
	return content
}

// archive writes one index; nil means that the session is to be given up.
func (b *backup) archive(name string, n int) []manifest.File {
	w, err := b.ss.Create(b.ctx, name, -1)
	allow("create "+name, err)
	sum, off := index.NewSummer(index.Dynamic), uint64(0)
	class, way := manifest.ClassIn(name, chunkstore.Class(b.rnd.IntN(2))), b.rnd.IntN(garbage)
	if b.bogus {
		way = garbage
	}
	a := archive{name: name, class: class}
	if narrow, ok := w.(*datastore.IndexWriter); ok { // as the server does
		narrow.Narrow(chunkstore.Classes(0).With(class))
	}
	for i := range n {
		if i == b.quit {
			return nil
		}
		c := b.rnd.IntN(len(b.chunks))
		b.chunk(w, class, c, way)
		a.chunks = append(a.chunks, c)
		e := index.Entry{Off: off, Size: b.chunks[c].PlainSize, ID: b.chunks[c].ID}
		sum.Add(e)
		off += uint64(e.Size)
		allow("append", w.Append(b.ctx, []index.Entry{e}))
	}
	s := sum.Summary()
	allow("close "+name, w.Close(b.ctx, s))
	b.p.archives = append(b.p.archives, a)
	mode := crypto.ModeNone
	if class.Encrypted() != b.turns {
		mode = crypto.ModeEncrypt
	}
	return []manifest.File{{Name: name, CryptMode: mode, Size: s.Size, Csum: s.Csum}}
}

// has asks for a chunk, by itself or as one of many.
func (b *backup) has(ref chunkstore.Ref) bool {
	if b.rnd.IntN(2) == 0 {
		missing, err := b.ss.HasAll(b.ctx, []chunkstore.Ref{ref})
		allow("ask for chunks", err)
		return err == nil && len(missing) == 0
	}
	has, err := b.ss.Has(b.ctx, ref)
	allow("ask for a chunk", err)
	return has
}

// chunk makes sure that the store has a chunk, in one of the ways there are.
func (b *backup) chunk(w wire.IndexWriter, class chunkstore.Class, c, way int) {
	ref := b.ref(class, c)
	if b.lies && b.rnd.IntN(2) == 0 || b.known[ref] && b.rnd.IntN(4) > 0 {
		return
	}
	if b.rnd.IntN(2) == 0 {
		if b.has(ref) {
			b.mustBeSent(class, c, "was told that there is")
			return
		}
	}
	b.put(w, class, c, way)
}
