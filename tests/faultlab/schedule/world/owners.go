package world

import (
	"bytes"
	"fmt"
	"math/rand/v2"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// owners are those who make backups; the first may do what the second may. All of them
// have one key, and all but the last are honest.
var owners = []wire.AuthID{"bob@pbs", "bob@pbs!vm", hostile}

// hostile is who sends garbage.
const hostile wire.AuthID = "mallory@pbs"

// The ways in which a content is sealed. Of an encrypted chunk nobody without the key
// can tell which of them it is.
const (
	alike   = iota // with a nonce made of key and content: the same bytes by whomever
	random         // with a random nonce, as other clients do
	random2        // the same content once more
	garbage        // what is no sealing of the content at all
	waysCount
)

// ways is a set of them.
type ways uint8

func (w ways) has(way int) bool { return w&(1<<way) != 0 }

// content is one of the contents that backups have: as a plain chunk, and sealed in
// each of the ways. All have one name and size, so that only class and owner tell them
// apart: a server cannot see that a hostile client has given the name of one to
// another.
type content struct {
	chunkstore.Chunk
	sealed [waysCount]chunkstore.Blob
}

// holding is a content that somebody has sent, as a plain chunk if the owner is "".
// Metadata that is encrypted is held apart.
type holding struct {
	owner wire.AuthID
	meta  bool
	chunk int
}

// heldBy is what an owner's archive of a class has of a content.
func heldBy(owner wire.AuthID, class chunkstore.Class, c int) holding {
	if !class.Encrypted() {
		return holding{"", false, c}
	}
	return holding{owner, class.Meta(), c}
}

// before orders what owners hold of one content.
func (h holding) before(o holding) bool {
	return h.owner < o.owner || h.owner == o.owner && !h.meta && o.meta
}

// fillContents makes the contents.
func (lab *Lab) fillContents() error {
	key, err := crypto.NewKey(bytes.Repeat([]byte{1}, crypto.KeySize))
	if err != nil {
		return err
	}
	other, err := crypto.NewKey(bytes.Repeat([]byte{2}, crypto.KeySize))
	if err != nil {
		return err
	}
	seal := [waysCount]blob.Options{
		alike:   {Key: key},
		random:  {Key: key, Rand: rand.NewChaCha8([32]byte{1})},
		random2: {Key: key, Rand: rand.NewChaCha8([32]byte{2})},
		garbage: {Key: other},
	}
	var codecs [waysCount]*blob.Codec
	for way, o := range seal {
		o.Workers, o.Encrypt = 1, true
		if codecs[way], err = blob.NewCodec(o); err != nil {
			return err
		}
	}
	for i := range chunkCount {
		plain := chunkstore.Plain(fmt.Sprintf("chunk %d %s", i, "........"[:i%8]))
		var c content
		c.ID, c.PlainSize = lab.codec.Name(plain), uint32(len(plain))
		if c.Blob, err = lab.codec.EncodeRaw(nil, plain); err != nil {
			return err
		}
		for way, codec := range codecs {
			if c.sealed[way], err = codec.Encode(nil, plain); err != nil {
				return err
			}
		}
		lab.chunks = append(lab.chunks, c)
	}
	return nil
}

// ref is what an archive of a class says of a content.
func (lab *Lab) ref(class chunkstore.Class, c int) chunkstore.Ref {
	return chunkstore.Ref{ID: lab.chunks[c].ID, Size: lab.chunks[c].PlainSize, Class: class}
}

// as is a content as it is sent: plain, or sealed in a way.
func (lab *Lab) as(class chunkstore.Class, c, way int) chunkstore.Chunk {
	chunk := lab.chunks[c].Chunk
	if class.Encrypted() {
		chunk.Blob = lab.chunks[c].sealed[way]
	}
	return chunk
}

// writer is who makes the next backup of a group: its owner, or now and then somebody
// else. owner is whose the group was when it was asked, "" if nobody's.
func (l *life) writer(g wire.Group) (who, owner wire.AuthID) {
	owner, err := l.store.OwnerNow(g)
	allow("ask for the owner of "+g.String(), err, chunkstore.ErrNotExist)
	if owner == "" || l.rnd.IntN(16) == 0 {
		return owners[l.rnd.IntN(len(owners))], owner
	}
	return owner, owner
}

// admitted makes sure that a session which has begun is one of the owner. before and
// changes are the owner, and how often he had changed, when it was not begun yet.
func (l *life) admitted(g wire.Group, who, before wire.AuthID, changes int) {
	now, err := l.store.OwnerNow(g)
	if allow("ask for the owner of "+g.String(), err, chunkstore.ErrNotExist) && now == before && !who.Owns(now) && changes == l.m.given[g] {
		wrong("I9: a backup of %s has begun in %s, which is %s's", who, g, now)
	}
}

// copiesOf is whose copies the new session of somebody reads and adds to: those of who
// made the group.
func (l *life) copiesOf(g wire.Group, who wire.AuthID) wire.AuthID {
	id, err := l.store.Copies(g)
	if !allow("ask whose copies "+g.String()+" reads", err, chunkstore.ErrNotExist) {
		id = who
	}
	return id
}

// give changes the owner of a group. It reads the copies that it has read before.
func (l *life) give() {
	g, to := groups[l.rnd.IntN(len(groups))], owners[l.rnd.IntN(len(owners))]
	l.m.given[g]++
	allow("give "+g.String()+" to "+string(to), l.store.SetOwner(l.ctx, g, to), chunkstore.ErrNotExist)
	l.m.given[g]++
}

// mustBeSent makes sure that who is told a chunk is there has it from himself: from a
// session that adds to the same copies, or that has sent it plain.
func (b *backup) mustBeSent(class chunkstore.Class, c int, told string) {
	if b.m.sent[heldBy(b.p.copies, class, c)] == 0 {
		wrong("I1: %s: %s the %s chunk %d, which nobody has sent for %s", b.p.snap, told, class, c, b.p.copies)
	}
}

// put sends a chunk.
func (b *backup) put(w wire.IndexWriter, class chunkstore.Class, c, way int) {
	h := heldBy(b.p.copies, class, c)
	b.m.sent[h] |= 1 << way
	b.m.puts[h]++
	added, err := w.PutChunk(b.ctx, b.as(class, c, way))
	allow("send a chunk", err)
	if !added && b.m.puts[h] == 1 {
		wrong("I1: %s: was told that the %s chunk %d is there already, which nobody has sent for %s", b.p.snap, class, c, b.p.copies)
	}
}

// forge sends another content under the name of a plain chunk. Who is not trusted must
// not get it in.
func (b *backup) forge(c int) {
	forged := b.chunks[c].Chunk
	forged.Blob = b.chunks[(c+8)%len(b.chunks)].Blob
	if _, err := b.ss.PutChunk(b.ctx, "disk.img.didx", forged); allow("send what is not of its name", err, chunkstore.ErrInvalid) {
		wrong("I1: %s: a plain chunk of another content was taken for chunk %d", b.p.snap, c)
	}
}

// compareEncrypted makes sure that what was read is what has been sent for the owner, and
// that it stays.
func (l *life) compareEncrypted(p *promise, class chunkstore.Class, raw chunkstore.Blob, c int) {
	h := heldBy(p.copies, class, c)
	sent := l.m.sent[h]
	for way, s := range l.chunks[c].sealed {
		if !bytes.Equal(raw, s) {
			continue
		}
		if !sent.has(way) {
			wrong("I1: %s: chunk %d was sent for another owner than %s, or another kind of archive (sealing %d)", p.snap, c, p.copies, way)
		}
		if was, ok := p.read[h]; ok && was != way {
			wrong("I1: %s: chunk %d has been replaced (sealing %d by %d)", p.snap, c, was, way)
		}
		p.read[h] = way
		return
	}
	wrong("I1: %s: the encrypted chunk %d is not what was sent", p.snap, c)
}

// checkScope makes sure that a chunk is looked for by class and owner of its archive.
func (l *life) checkScope(p *promise, f datastore.IndexFile, k chunkstore.Key) {
	for _, a := range p.archives {
		if a.name != f.Name {
			continue
		}
		if want := l.ref(a.class, l.number(k.ID)).Key(chunkstore.OwnerOf(string(p.copies))); k != want {
			wrong("I3: %s: a collection looks for chunk %d by another class or owner", f, l.number(k.ID))
		}
	}
}
