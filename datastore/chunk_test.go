package datastore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"hash/crc32"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

func TestForeignChunkMustBeWhatItIsCalled(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	good := seal(t, l.codec, strings.Repeat("content ", 1000))
	for name, change := range map[string]func(*chunkstore.Chunk){
		"another name":         func(c *chunkstore.Chunk) { c.ID[0] ^= 1 },
		"one byte less":        func(c *chunkstore.Chunk) { c.PlainSize-- },
		"one byte more":        func(c *chunkstore.Chunk) { c.PlainSize++ },
		"the largest size":     func(c *chunkstore.Chunk) { c.PlainSize = chunkstore.PlainSizeMax },
		"no size":              func(c *chunkstore.Chunk) { c.PlainSize = 0 },
		"too large":            func(c *chunkstore.Chunk) { c.PlainSize = chunkstore.PlainSizeMax + 1 },
		"no name":              func(c *chunkstore.Chunk) { c.ID = chunkstore.ID{} },
		"unknown magic":        func(c *chunkstore.Chunk) { c.Blob[0] ^= 1 },
		"damaged content":      func(c *chunkstore.Chunk) { c.Blob[20] ^= 1 },
		"header only":          func(c *chunkstore.Chunk) { c.Blob = c.Blob[:12] },
		"short of a header":    func(c *chunkstore.Chunk) { c.Blob = c.Blob[:13] },
		"magic of the ancient": func(c *chunkstore.Chunk) { copy(c.Blob, "\x1f\x87\xee\x29\x1c\xe0\x50\x2f") },
	} {
		bad := good
		bad.Blob = bytes.Clone(good.Blob)
		change(&bad)
		if _, err := ss.PutChunk(t.Context(), "disk.img.didx", bad); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ok, err := ss.Has(t.Context(), good.Ref()); ok || err != nil {
		t.Errorf("something of it is stored: %v %v", ok, err)
	}
	if put, err := ss.PutChunk(t.Context(), "disk.img.didx", good); err != nil || !put.Added || put.Ref != good.Ref() {
		t.Errorf("the good one: %+v %v", put, err)
	}
	if put, err := ss.PutChunk(t.Context(), "disk.img.didx", good); err != nil || put.Added || put.Ref != good.Ref() {
		t.Errorf("again: %+v %v", put, err)
	}
}

func TestForeignChecksumIsPutRight(t *testing.T) {
	for name, codec := range map[string]*blob.Codec{"plain": plainCodec(t), "encrypted": keyCodec(t)} {
		for what, content := range map[string]string{"compressed": strings.Repeat("content ", 1000), "raw": "x"} {
			l := newLab(t)
			l.codec = codec
			ss := l.foreign(at(10), "eve@pbs")
			c := seal(t, codec, content)
			right := bytes.Clone(c.Blob)
			binary.LittleEndian.PutUint32(c.Blob[8:], 0x12345678)
			given := bytes.Clone(c.Blob)
			if _, err := ss.PutChunk(t.Context(), "disk.img.didx", c); err != nil {
				t.Errorf("%s %s: %v", name, what, err)
				continue
			}
			if !bytes.Equal(c.Blob, given) {
				t.Errorf("%s %s: the caller's bytes were changed", name, what)
			}
			l.manifestOf(ss)
			if err := ss.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			ref := c.Ref()
			ref.Class = codec.Class()
			if got := l.sealed(at(10), ref); !bytes.Equal(got, right) {
				t.Errorf("%s %s: %x… is stored, want %x…", name, what, got[:20], right[:20])
			}
		}
	}
}

// sealed reads a chunk as it is stored, through a snapshot.
func (l *lab) sealed(snap wire.Snapshot, ref chunkstore.Ref) chunkstore.Blob {
	l.t.Helper()
	r, err := l.Open(l.t.Context(), snap)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	raw, err := r.Get(l.t.Context(), ref)
	if err != nil {
		l.t.Fatal(err)
	}
	return raw
}

// Two different blobs under one name: whoever has sent what, and in which order, reads
// what he has sent, and is told the same as if he were alone.
func TestTwoBlobsUnderOneName(t *testing.T) {
	const content = "the content of the victim"
	plain, key := plainCodec(t), keyCodec(t)
	honest := seal(t, plain, content)
	poison := seal(t, key, strings.Repeat("garbage", 5))
	poison.ID, poison.PlainSize = honest.ID, honest.PlainSize
	poison.Blob = zipped(t, poison.Blob)
	longer := poison
	longer.PlainSize += 5
	secret := seal(t, key, content)
	other := secret
	other.Blob = garbled(t, secret.Blob)
	for name, c := range map[string]struct{ first, second chunkstore.Chunk }{
		"plain after encrypted":             {poison, honest},
		"plain after encrypted, other size": {longer, honest},
		"encrypted after plain":             {honest, poison},
		"encrypted after plain, other size": {honest, longer},
		"encrypted after garbage":           {other, secret},
		"garbage after encrypted":           {secret, other},
		"encrypted twice":                   {secret, secret},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			bobs := at(10)
			bobs.Group.ID = "200"
			eve, bob := l.foreign(at(10), "eve@pbs"), l.foreign(bobs, "bob@pbs")
			l.putNew(eve, c.first)
			l.putNew(bob, c.second)
			for _, ss := range []*datastore.Session{eve, bob} {
				l.manifestOf(ss)
				if err := ss.Finish(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
			for snap, want := range map[wire.Snapshot]chunkstore.Chunk{at(10): c.first, bobs: c.second} {
				if got := l.sealed(snap, want.Ref()); !bytes.Equal(got, want.Blob) {
					t.Errorf("%s reads %d bytes that it has not sent", snap, len(got))
				}
			}
		})
	}
}

// putNew sends a chunk that the session's owner has not sent before.
func (l *lab) putNew(ss *datastore.Session, c chunkstore.Chunk) {
	l.t.Helper()
	if ok, err := ss.Has(l.t.Context(), c.Ref()); ok || err != nil {
		l.t.Errorf("there before it was sent: %v %v", ok, err)
	}
	if put, err := ss.PutChunk(l.t.Context(), "disk.img.didx", c); err != nil || !put.Added || put.Ref != c.Ref() {
		l.t.Fatalf("put: %+v %v", put, err)
	}
	if ok, err := ss.Has(l.t.Context(), c.Ref()); !ok || err != nil {
		l.t.Errorf("not there after it was sent: %v %v", ok, err)
	}
}

// garbled is an encrypted blob with other content and a right checksum.
func garbled(t *testing.T, s chunkstore.Blob) chunkstore.Blob {
	t.Helper()
	s = bytes.Clone(s)
	s[len(s)-1] ^= 1
	binary.LittleEndian.PutUint32(s[8:], crc32.ChecksumIEEE(s[44:]))
	return s
}

// zipped says of an encrypted blob that its content is compressed, so that its length
// does not tell the size.
func zipped(t *testing.T, s chunkstore.Blob) chunkstore.Blob {
	t.Helper()
	s = bytes.Clone(s)
	copy(s, chunkstore.MagicEncryptedCompressed)
	return s
}

// What nobody can open is in nobody's way: neither a false size nor garbage that has
// been sent before keeps an honest backup from being made, or changes what it reads.
func TestGarbageUnderForeignNamesHarmsNobody(t *testing.T) {
	for name, codec := range map[string]*blob.Codec{"plain": plainCodec(t), "encrypted": keyCodec(t)} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.codec = codec
			honest := seal(t, codec, "content")
			eve := l.foreign(at(10), "eve@pbs")
			for _, more := range []uint32{0, 5} {
				poison := honest
				poison.PlainSize += more
				poison.Blob = zipped(t, garbled(t, seal(t, keyCodec(t), "garbage").Blob))
				l.putNew(eve, poison)
			}
			eve.Close()
			snap := at(10)
			snap.Group.ID = "200"
			l.store(snap, "bob@pbs")
			if got, err := l.content(snap, honest.ID, len("content")); err != nil || got != "content" {
				t.Errorf("read back %q, %v", got, err)
			}
		})
	}
}

// An encrypted chunk that is not compressed has the size that its length says.
func TestForeignEncryptedChunkHasItsSize(t *testing.T) {
	l := newLab(t)
	c := seal(t, keyCodec(t), "x")
	c.PlainSize++
	if _, err := l.foreign(at(10), "eve@pbs").PutChunk(t.Context(), "disk.img.didx", c); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("accepted: %v", err)
	}
}

// What a manifest calls plain was sent plain, and what it calls encrypted encrypted:
// otherwise a snapshot would read what nobody has sent for it.
func TestManifestTellsTheClassThatWasSent(t *testing.T) {
	for name, c := range map[string]struct {
		sent chunkstore.Classes
		mode crypto.Mode
		ok   bool
	}{
		"plain as plain":          {chunkstore.Classes(0).With(chunkstore.ClassPlain), crypto.ModeNone, true},
		"plain as signed":         {chunkstore.Classes(0).With(chunkstore.ClassPlain), crypto.ModeSignOnly, true},
		"plain as encrypted":      {chunkstore.Classes(0).With(chunkstore.ClassPlain), crypto.ModeEncrypt, false},
		"encrypted as plain":      {chunkstore.Classes(0).With(chunkstore.ClassEncrypted), crypto.ModeNone, false},
		"encrypted as signed":     {chunkstore.Classes(0).With(chunkstore.ClassEncrypted), crypto.ModeSignOnly, false},
		"encrypted as encrypted":  {chunkstore.Classes(0).With(chunkstore.ClassEncrypted), crypto.ModeEncrypt, true},
		"encrypted and not named": {chunkstore.Classes(0).With(chunkstore.ClassEncrypted), "", false},
		"plain and not named":     {chunkstore.Classes(0).With(chunkstore.ClassPlain), "", true},
	} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			ss := l.foreign(at(10), "eve@pbs")
			for _, codec := range []*blob.Codec{plainCodec(t), keyCodec(t)} { // the name is stored in both classes
				sealed := seal(t, codec, strings.Repeat("content", 99))
				sealed.ID = seal(t, l.codec, strings.Repeat("content", 99)).ID
				if _, err := ss.PutChunk(t.Context(), "disk.img.didx", sealed); err != nil {
					t.Fatal(err)
				}
			}
			f := l.narrowed(ss, "disk.img.didx", strings.Repeat("content", 99), c.sent)
			f.CryptMode = c.mode
			if c.mode == "" {
				l.manifestOf(ss)
			} else {
				l.manifestOf(ss, f)
			}
			if err := ss.Finish(t.Context()); (err == nil) != c.ok {
				t.Errorf("finish: %v", err)
			}
		})
	}
}

// narrowed writes an index of one chunk whose chunks are of some classes.
func (l *lab) narrowed(ss *datastore.Session, name, content string, classes chunkstore.Classes) manifest.File {
	l.t.Helper()
	w, err := ss.Create(l.t.Context(), name, -1)
	if err != nil {
		l.t.Fatal(err)
	}
	c := seal(l.t, plainCodec(l.t), content)
	e := index.Entry{Size: c.PlainSize, ID: c.ID}
	sum := index.NewSummer(index.Dynamic)
	sum.Add(e)
	w.(*datastore.IndexWriter).Narrow(classes)
	if err := errors.Join(w.Append(l.t.Context(), []index.Entry{e}), w.Close(l.t.Context(), sum.Summary())); err != nil {
		l.t.Fatal(err)
	}
	return manifest.File{Name: name, Size: sum.Summary().Size, Csum: sum.Summary().Csum}
}

// A group that gets another owner goes on reading what it has, and adds to that.
func TestChangeOfOwnerChangesNoCopy(t *testing.T) {
	l := newLab(t)
	l.codec = keyCodec(t)
	l.store(at(10), "alice@pbs")
	if err := l.SetOwner(t.Context(), group, "bob@pbs"); err != nil {
		t.Fatal(err)
	}
	id := l.codec.Name(chunkstore.Plain("content"))
	for _, then := range []func(){
		func() {},
		func() { l.store(at(20), "bob@pbs") },
		func() {
			if err := l.Forget(t.Context(), at(20)); err != nil {
				t.Fatal(err)
			}
			if err := l.Forget(t.Context(), at(10)); err != nil { // and the group with it
				t.Fatal(err)
			}
			if err := l.RestoreDeleted(t.Context(), at(10)); err != nil {
				t.Fatal(err)
			}
		},
	} {
		then()
		if got, err := l.content(at(10), id, len("content")); err != nil || got != "content" {
			t.Errorf("read back %q, %v", got, err)
		}
		if copies, err := l.Copies(group); err != nil || copies != "alice@pbs" {
			t.Errorf("the group reads the copies of %q, %v", copies, err)
		}
	}
}

// A crash can leave whose copies a group reads and not yet whose it is.
func TestGroupThatNeverCameToBeSaysNothingOfCopies(t *testing.T) {
	for name, foreign := range map[string]bool{"on a path": false, "through a server": true} {
		t.Run(name, func(t *testing.T) {
			l := newLab(t)
			l.codec = keyCodec(t)
			dir := filepath.Join(l.path, "vm", "100")
			l.must(os.MkdirAll(dir, 0o700))
			l.must(os.WriteFile(filepath.Join(dir, "copies"), []byte("alice@pbs\n"), 0o600))
			if copies, err := l.Copies(group); !errors.Is(err, chunkstore.ErrNotExist) {
				t.Errorf("a group that is not there reads the copies of %q, %v", copies, err)
			}
			ss := l.begin(datastore.SessionOptions{Snapshot: at(10), Owner: "bob@pbs", Foreign: foreign})
			l.finish(ss)
			l.must(ss.Close())
			if copies, err := l.Copies(group); err != nil || copies != "bob@pbs" {
				t.Errorf("the group reads the copies of %q, %v", copies, err)
			}
			id := l.codec.Name(chunkstore.Plain("content"))
			if got, err := l.content(at(10), id, len("content")); err != nil || got != "content" {
				t.Errorf("read back %q, %v", got, err)
			}
		})
	}
}

func TestConcurrentForeignUploads(t *testing.T) {
	l := newLab(t)
	honest := seal(t, l.codec, "content")
	poison := seal(t, keyCodec(t), "garbage")
	poison.ID = honest.ID
	ss := l.foreign(at(10), "eve@pbs")
	var wg sync.WaitGroup
	for i := range 16 {
		wg.Go(func() {
			c := honest
			if i%2 == 0 {
				c = poison
			}
			if _, err := ss.PutChunk(context.Background(), "disk.img.didx", c); err != nil {
				t.Errorf("put: %v", err)
			}
		})
	}
	wg.Wait()
	l.finish(ss)
	if got, err := l.content(at(10), honest.ID, len("content")); err != nil || got != "content" {
		t.Errorf("read back %q, %v", got, err)
	}
}

func TestUnknownSizeOfAnEncryptedChunkIsProvedAtFinish(t *testing.T) {
	l := newLab(t)
	l.codec = keyCodec(t)
	ss := l.foreign(at(10), "eve@pbs")
	c := l.put(ss, "content")
	w, err := ss.Create(t.Context(), "disk.img.didx", -1)
	if err != nil {
		t.Fatal(err)
	}
	e := index.Entry{Size: c.PlainSize + 1, ID: c.ID}
	sum := index.NewSummer(index.Dynamic)
	sum.Add(e)
	if err := w.Append(t.Context(), []index.Entry{e}); err != nil {
		t.Fatal(err)
	}
	s := sum.Summary()
	if err := w.(*datastore.IndexWriter).CloseWith(t.Context(), datastore.Closing{Count: 1, Size: s.Size, Csum: s.Csum}); err != nil {
		t.Fatal(err)
	}
	l.manifestOf(ss)
	if err := ss.Finish(t.Context()); err == nil {
		t.Error("finished")
	}
}

// What was sent for an archive of metadata stands for no chunk of another archive, and
// the other way round, whatever is written into an index.
func TestMetadataIsStoredApart(t *testing.T) {
	const metaName, contentName = "root.mpxar.didx", "root.ppxar.didx"
	l := newLab(t)
	l.codec = keyCodec(t)
	secret := seal(t, l.codec, "the content of a file")
	garbage := secret
	garbage.Blob = garbled(t, secret.Blob)
	first := l.foreign(at(10), "eve@pbs")
	for name, c := range map[string]chunkstore.Chunk{contentName: secret, metaName: garbage} {
		put, err := first.PutChunk(t.Context(), name, c)
		if err != nil || !put.Added || !put.Ref.Class.Encrypted() || put.Ref.Class.Meta() != (name == metaName) {
			t.Errorf("%s: %+v, %v", name, put, err)
		}
	}
	files := []manifest.File{l.refer(first, contentName, secret), l.refer(first, metaName, secret)}
	l.manifestOf(first, files...)
	if err := first.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	for class, want := range map[chunkstore.Class]chunkstore.Blob{chunkstore.ClassEncrypted: secret.Blob, chunkstore.ClassEncryptedMeta: garbage.Blob} {
		if got := l.sealed(at(10), chunkstore.Ref{ID: secret.ID, Size: secret.PlainSize, Class: class}); !bytes.Equal(got, want) {
			t.Errorf("class %d: another chunk", class)
		}
	}
	for sent, name := range map[string]string{contentName: metaName, metaName: contentName} {
		ss := l.foreign(at(20), "eve@pbs")
		other := seal(t, l.codec, "what is sent for "+sent)
		if _, err := ss.PutChunk(t.Context(), sent, other); err != nil {
			t.Fatal(err)
		}
		l.manifestOf(ss, l.refer(ss, name, other))
		var missing *wire.MissingError
		if err := ss.Finish(t.Context()); !errors.As(err, &missing) || missing.Count != 1 {
			t.Errorf("sent for %s, named in %s: %v", sent, name, err)
		}
		if err := ss.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// So it is when it has been in the trash.
	if err := errors.Join(first.Close(), l.Forget(t.Context(), at(10)), l.RestoreDeleted(t.Context(), at(10))); err != nil {
		t.Fatal(err)
	}
	for _, class := range []chunkstore.Class{chunkstore.ClassEncrypted, chunkstore.ClassEncryptedMeta} {
		l.sealed(at(10), chunkstore.Ref{ID: secret.ID, Size: secret.PlainSize, Class: class})
	}
}

// refer writes an index of one chunk, which it does not send.
func (l *lab) refer(ss *datastore.Session, name string, c chunkstore.Chunk) manifest.File {
	l.t.Helper()
	w, err := ss.Create(l.t.Context(), name, -1)
	if err != nil {
		l.t.Fatal(err)
	}
	e := index.Entry{Size: c.PlainSize, ID: c.ID}
	sum := index.NewSummer(index.Dynamic)
	sum.Add(e)
	if err := errors.Join(w.Append(l.t.Context(), []index.Entry{e}), w.Close(l.t.Context(), sum.Summary())); err != nil {
		l.t.Fatal(err)
	}
	return manifest.File{Name: name, CryptMode: crypto.ModeEncrypt, Size: sum.Summary().Size, Csum: sum.Summary().Csum}
}
