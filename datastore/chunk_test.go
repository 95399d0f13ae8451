package datastore_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/datastore"
	"holdfast/datastore/index"
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
		"unknown magic":        func(c *chunkstore.Chunk) { c.Sealed[0] ^= 1 },
		"damaged content":      func(c *chunkstore.Chunk) { c.Sealed[20] ^= 1 },
		"header only":          func(c *chunkstore.Chunk) { c.Sealed = c.Sealed[:12] },
		"short of a header":    func(c *chunkstore.Chunk) { c.Sealed = c.Sealed[:13] },
		"magic of the ancient": func(c *chunkstore.Chunk) { copy(c.Sealed, "\x1f\x87\xee\x29\x1c\xe0\x50\x2f") },
	} {
		bad := good
		bad.Sealed = bytes.Clone(good.Sealed)
		change(&bad)
		if _, err := ss.PutChunk(t.Context(), bad); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if ok, err := ss.Has(t.Context(), good.ID, good.PlainSize); ok || err != nil {
		t.Errorf("something of it is stored: %v %v", ok, err)
	}
	if put, err := ss.PutChunk(t.Context(), good); err != nil || !put.Added || put.StoredSize != uint32(len(good.Sealed)) {
		t.Errorf("the good one: %+v %v", put, err)
	}
	if put, err := ss.PutChunk(t.Context(), good); err != nil || put.Added || put.StoredSize != uint32(len(good.Sealed)) {
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
			right := bytes.Clone(c.Sealed)
			binary.LittleEndian.PutUint32(c.Sealed[8:], 0x12345678)
			given := bytes.Clone(c.Sealed)
			if _, err := ss.PutChunk(t.Context(), c); err != nil {
				t.Errorf("%s %s: %v", name, what, err)
				continue
			}
			if !bytes.Equal(c.Sealed, given) {
				t.Errorf("%s %s: the caller's bytes were changed", name, what)
			}
			l.manifestOf(ss)
			if err := ss.Finish(t.Context()); err != nil {
				t.Fatal(err)
			}
			if got := l.sealed(c.ID); !bytes.Equal(got, right) {
				t.Errorf("%s %s: %x… is stored, want %x…", name, what, got[:20], right[:20])
			}
		}
	}
}

// sealed reads a chunk as it is stored. There must be a snapshot at 10.
func (l *lab) sealed(id chunkstore.ID) chunkstore.Sealed {
	l.t.Helper()
	r, err := l.Open(l.t.Context(), at(10))
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	sealed, err := r.Get(l.t.Context(), id)
	if err != nil {
		l.t.Fatal(err)
	}
	return sealed
}

// Two different blobs under one name: one whose content was compared stays, or
// takes the place of one that cannot be.
func TestTwoBlobsUnderOneName(t *testing.T) {
	const content = "the content of the victim"
	plain, key := plainCodec(t), keyCodec(t)
	honest := seal(t, plain, content)
	poison := seal(t, key, strings.Repeat("garbage", 5))
	poison.ID, poison.PlainSize = honest.ID, honest.PlainSize
	longer := poison
	longer.PlainSize += 5
	secret := seal(t, key, content)
	again := seal(t, key, content) // another nonce
	raw, err := plain.SealRaw(nil, chunkstore.Plain(strings.Repeat("content ", 1000)))
	if err != nil {
		t.Fatal(err)
	}
	small := seal(t, plain, strings.Repeat("content ", 1000))
	large := small
	large.Sealed = raw

	for name, c := range map[string]struct {
		first, second chunkstore.Chunk
		replaced      bool
	}{
		"plain over encrypted":                {poison, honest, true},
		"plain over encrypted, other size":    {longer, honest, true},
		"encrypted over plain":                {honest, poison, false},
		"encrypted over plain, other size":    {honest, longer, false},
		"encrypted over encrypted":            {secret, again, false},
		"compressed over what is not":         {large, small, false},
		"what is not compressed over what is": {small, large, false},
	} {
		l := newLab(t)
		eve := l.foreign(at(10), "eve@pbs")
		if put, err := eve.PutChunk(t.Context(), c.first); err != nil || !put.Added {
			t.Fatalf("%s: first: %+v %v", name, put, err)
		}
		l.manifestOf(eve)
		if err := eve.Finish(t.Context()); err != nil {
			t.Fatal(err)
		}
		other := at(10)
		other.Group.ID = "200"
		victim := l.foreign(other, "bob@pbs")
		put, err := victim.PutChunk(t.Context(), c.second)
		if err != nil || put.Added != c.replaced {
			t.Errorf("%s: second: %+v %v", name, put, err)
		}
		want := c.first
		if c.replaced {
			want = c.second
		}
		if got := l.sealed(c.first.ID); !bytes.Equal(got, want.Sealed) || put.StoredSize != uint32(len(want.Sealed)) {
			t.Errorf("%s: the wrong one is stored, %d bytes; the answer is %d", name, len(got), put.StoredSize)
		}
		if ok, err := victim.Has(t.Context(), want.ID, want.PlainSize); !ok || err != nil {
			t.Errorf("%s: has: %v %v", name, ok, err)
		}
	}
}

// A backup that was acknowledged restores, whatever was there before it.
func TestPoisonedStoreHealsWithTheNextUpload(t *testing.T) {
	l := newLab(t)
	honest := seal(t, l.codec, "content")
	poison := seal(t, keyCodec(t), "garbage")
	poison.ID = honest.ID
	eve := l.foreign(at(10), "eve@pbs")
	if _, err := eve.PutChunk(t.Context(), poison); err != nil {
		t.Fatal(err)
	}
	eve.Close()
	snap := at(10)
	snap.Group.ID = "200"
	l.store(snap, "bob@pbs")
	if got, err := l.content(snap, honest.ID, len("content")); err != nil || got != "content" {
		t.Errorf("read back %q, %v", got, err)
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
			if _, err := ss.PutChunk(context.Background(), c); err != nil {
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
