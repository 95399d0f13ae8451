package datastore_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

const fixedChunk = wire.FixedChunkSize

// block is a chunk of a fixed image that holds little.
func (l *lab) block(ss *datastore.Session, mark string, size int) index.Entry {
	l.t.Helper()
	c := l.put(ss, mark+strings.Repeat("\x00", size-len(mark)))
	return index.Entry{Size: c.PlainSize, ID: c.ID}
}

func (l *lab) fixed(ss *datastore.Session, size int64) *datastore.IndexWriter {
	l.t.Helper()
	w, err := ss.Create(l.t.Context(), "disk.img.fidx", size)
	if err != nil {
		l.t.Fatal(err)
	}
	return w.(*datastore.IndexWriter)
}

func csumOf(entries ...index.Entry) [32]byte {
	sum := index.NewSummer(index.Fixed)
	for _, e := range entries {
		sum.Add(e)
	}
	return sum.Summary().Csum
}

// fixedImage returns an image of three chunks, the last one short.
func (l *lab) fixedImage(ss *datastore.Session) (entries []index.Entry, size int64) {
	l.t.Helper()
	for i, n := range []int{fixedChunk, fixedChunk, 100} {
		e := l.block(ss, fmt.Sprint("block ", i), n)
		e.Off = uint64(i) * fixedChunk
		entries = append(entries, e)
	}
	return entries, 2*fixedChunk + 100
}

// storeFixed writes a snapshot with that image.
func (l *lab) storeFixed(snap wire.Snapshot) (entries []index.Entry, size int64) {
	l.t.Helper()
	ss := l.foreign(snap, "eve@pbs")
	entries, size = l.fixedImage(ss)
	w := l.fixed(ss, size)
	if err := w.WriteAt(l.t.Context(), entries); err != nil {
		l.t.Fatal(err)
	}
	csum := csumOf(entries...)
	if err := w.CloseWith(l.t.Context(), datastore.Closing{Count: 3, Size: uint64(size), Csum: csum}); err != nil {
		l.t.Fatal(err)
	}
	l.manifestOf(ss, manifest.File{Name: "disk.img.fidx", CryptMode: crypto.ModeNone, Size: uint64(size), Csum: csum})
	if err := ss.Finish(l.t.Context()); err != nil {
		l.t.Fatal(err)
	}
	if err := ss.Close(); err != nil {
		l.t.Fatal(err)
	}
	return entries, size
}

func (l *lab) entries(snap wire.Snapshot) []index.Entry {
	l.t.Helper()
	r, err := l.Open(l.t.Context(), snap)
	if err != nil {
		l.t.Fatal(err)
	}
	defer r.Close()
	idx, err := r.Index(l.t.Context(), "disk.img.fidx")
	if err != nil {
		l.t.Fatal(err)
	}
	defer idx.Close()
	var list []index.Entry
	for e, err := range idx.All(0) {
		if err != nil {
			l.t.Fatal(err)
		}
		list = append(list, e)
	}
	return list
}

func TestFixedIndexInAnyOrder(t *testing.T) {
	l := newLab(t)
	ss := l.foreign(at(10), "eve@pbs")
	zero := l.block(ss, "", fixedChunk)
	const n = 50
	var entries []index.Entry
	for i := range n {
		e := zero
		if i%7 == 0 {
			e = l.block(ss, fmt.Sprint("block ", i), fixedChunk)
		}
		e.Off = uint64(i) * fixedChunk
		entries = append(entries, e)
	}
	w := l.fixed(ss, n*fixedChunk)
	var wg sync.WaitGroup
	for _, part := range [][]int{rand.Perm(n)[:25], rand.Perm(n)} {
		wg.Go(func() {
			for _, i := range part {
				if err := w.WriteAt(context.Background(), entries[i:i+1]); err != nil {
					t.Errorf("entry %d: %v", i, err)
				}
			}
		})
	}
	wg.Wait()
	c := datastore.Closing{Count: n + 25, Size: n * fixedChunk, Csum: csumOf(entries...)}
	is(t, "repeated entries count", w.CloseWith(t.Context(), c), chunkstore.ErrInvalid)

	w = l.fixed(ss, n*fixedChunk)
	for _, i := range rand.Perm(n) {
		if err := w.WriteAt(t.Context(), entries[i:i+1]); err != nil {
			t.Fatal(err)
		}
	}
	c.Count = n
	if err := w.CloseWith(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	is(t, "close it again", w.CloseWith(t.Context(), c), chunkstore.ErrInvalid)
	if err := w.WriteAt(t.Context(), entries[:1]); err == nil {
		t.Error("written after it was closed")
	}
}

func TestGrowingFixedIndex(t *testing.T) {
	for _, c := range []struct {
		announced uint64
		ok        bool
	}{{2*fixedChunk + 100, true}, {3 * fixedChunk, false}} {
		l := newLab(t)
		ss := l.foreign(at(10), "eve@pbs")
		entries, _ := l.fixedImage(ss)
		w := l.fixed(ss, -1)
		for _, i := range []int{1, 0, 2} {
			if err := w.WriteAt(t.Context(), entries[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		err := w.CloseWith(t.Context(), datastore.Closing{Count: 3, Size: c.announced, Csum: csumOf(entries...)})
		if (err == nil) != c.ok {
			t.Errorf("closed with %d bytes: %v", c.announced, err)
		}
	}
}

func TestCloseWithChecks(t *testing.T) {
	const size = 2*fixedChunk + 100
	for name, c := range map[string]struct {
		put    []int
		change func(*datastore.Closing)
		text   string
	}{
		"as it is":               {put: []int{0, 1, 2}},
		"count":                  {put: []int{0, 1, 2}, change: func(c *datastore.Closing) { c.Count++ }, text: "3 chunks were appended, announced were 4"},
		"count before size":      {put: []int{0, 1, 2}, change: func(c *datastore.Closing) { c.Count, c.Size = 9, 9 }, text: "announced were 9"},
		"count of the image":     {put: []int{0, 1}, change: func(c *datastore.Closing) { c.Count = 2 }, text: "the image has 3"},
		"repeated in place of 1": {put: []int{0, 2, 2}, text: "there is no chunk at offset 4194304"},
		"size":                   {put: []int{0, 1, 2}, change: func(c *datastore.Closing) { c.Size-- }, text: "8388708 bytes, announced were 8388707"},
		"size before checksum":   {put: []int{0, 1, 2}, change: func(c *datastore.Closing) { c.Size--; c.Csum[0] ^= 1 }, text: "bytes, announced"},
		"checksum":               {put: []int{0, 1, 2}, change: func(c *datastore.Closing) { c.Csum[31] ^= 1 }, text: "checksum"},
	} {
		l := newLab(t)
		ss := l.foreign(at(10), "eve@pbs")
		entries, _ := l.fixedImage(ss)
		w := l.fixed(ss, size)
		for _, i := range c.put {
			if err := w.WriteAt(t.Context(), entries[i:i+1]); err != nil {
				t.Fatal(err)
			}
		}
		closing := datastore.Closing{Count: 3, Size: size, Csum: csumOf(entries...)}
		if c.change == nil {
			c.change = func(*datastore.Closing) {}
		}
		c.change(&closing)
		err := w.CloseWith(t.Context(), closing)
		if c.text == "" {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
			continue
		}
		is(t, name, err, chunkstore.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v lacks %q", name, err, c.text)
		}
		// The writer is gone, the session goes on without it.
		is(t, name+": again", w.CloseWith(t.Context(), closing), chunkstore.ErrInvalid)
		l.finish(ss)
		if files, err := l.Files(at(10)); err != nil || len(files) != 2 {
			t.Errorf("%s: left is %q %v", name, files, err)
		}
	}
}

func TestCloseWithChecksADynamicIndex(t *testing.T) {
	for name, c := range map[string]struct {
		closing datastore.Closing
		text    string
	}{
		"count": {datastore.Closing{Count: 2, Size: 7}, "chunks were appended"},
		"size":  {datastore.Closing{Count: 1, Size: 8}, "7 bytes, announced were 8"},
		"csum":  {datastore.Closing{Count: 1, Size: 7}, "checksum"},
	} {
		l := newLab(t)
		ss := l.foreign(at(10), "eve@pbs")
		chunk := l.put(ss, "content")
		out, err := ss.Create(t.Context(), "disk.img.didx", -1)
		if err != nil {
			t.Fatal(err)
		}
		w := out.(*datastore.IndexWriter)
		e := []index.Entry{{Size: 7, ID: chunk.ID}}
		if err := w.WriteAt(t.Context(), e); err != nil {
			t.Fatal(err)
		}
		is(t, "out of order", w.WriteAt(t.Context(), e), chunkstore.ErrInvalid)
		err = w.CloseWith(t.Context(), c.closing)
		is(t, name, err, chunkstore.ErrInvalid)
		if err != nil && !strings.Contains(err.Error(), c.text) {
			t.Errorf("%s: %v lacks %q", name, err, c.text)
		}
	}
}

func TestReuse(t *testing.T) {
	l := newLab(t)
	entries, size := l.storeFixed(at(10))
	csum := csumOf(entries...)
	ss := l.foreign(at(20), "eve@pbs")
	w, err := ss.CreateReusing(t.Context(), "disk.img.fidx", size, csum)
	if err != nil {
		t.Fatal(err)
	}
	changed := l.block(ss, "changed", fixedChunk)
	changed.Off = fixedChunk
	last := l.block(ss, "changed", 100)
	last.Off = 2 * fixedChunk
	// Twice the same place: it counts twice, and the last one stays.
	if err := w.WriteAt(t.Context(), []index.Entry{last, changed, last}); err != nil {
		t.Fatal(err)
	}
	want := []index.Entry{entries[0], changed, last}
	closing := datastore.Closing{Count: 3, Size: 3 * 100, Csum: csumOf(want...)} // the size says nothing
	if err := w.CloseWith(t.Context(), closing); err != nil {
		t.Fatal(err)
	}
	l.manifestOf(ss, manifest.File{Name: "disk.img.fidx", CryptMode: crypto.ModeNone, Size: uint64(size), Csum: closing.Csum})
	if err := ss.Finish(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := l.entries(at(20)); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("entries %v, want %v", got, want)
	}
	if got := l.entries(at(10)); fmt.Sprint(got) != fmt.Sprint(entries) {
		t.Errorf("the base has changed: %v", got)
	}
}

func TestReuseUnchanged(t *testing.T) {
	l := newLab(t)
	entries, size := l.storeFixed(at(10))
	csum := csumOf(entries...)
	ss := l.foreign(at(20), "eve@pbs")
	w, err := ss.CreateReusing(t.Context(), "disk.img.fidx", size, csum)
	if err != nil {
		t.Fatal(err)
	}
	if err := w.CloseWith(t.Context(), datastore.Closing{Csum: csum}); err != nil {
		t.Fatal(err)
	}
	l.manifestOf(ss, manifest.File{Name: "disk.img.fidx", CryptMode: crypto.ModeNone, Size: uint64(size), Csum: csum})
	if err := ss.Finish(t.Context()); err != nil {
		t.Error(err)
	}
}

func TestReuseRefuses(t *testing.T) {
	l := newLab(t)
	entries, size := l.storeFixed(at(10))
	csum := csumOf(entries...)
	ss := l.foreign(at(20), "eve@pbs")
	for name, c := range map[string]struct {
		file string
		size int64
		csum [32]byte
		want error
	}{
		"not in the base":  {"other.img.fidx", size, csum, chunkstore.ErrNotExist},
		"another checksum": {"disk.img.fidx", size, [32]byte{1}, chunkstore.ErrInvalid},
		"another size":     {"disk.img.fidx", size + 1, csum, chunkstore.ErrInvalid},
		"no size":          {"disk.img.fidx", -1, csum, chunkstore.ErrInvalid},
		"dynamic":          {"disk.img.didx", size, csum, wire.ErrName},
		"no archive":       {"../disk.img.fidx", size, csum, wire.ErrName},
	} {
		_, err := ss.CreateReusing(t.Context(), c.file, c.size, c.csum)
		is(t, name, err, c.want)
	}
	if w, err := ss.CreateReusing(t.Context(), "disk.img.fidx", size, csum); err != nil || w == nil {
		t.Errorf("after all that: %v", err)
	}
	_, err := ss.CreateReusing(t.Context(), "disk.img.fidx", size, csum)
	is(t, "while it is open", err, wire.ErrBusy)
	ss.Close()

	first := at(10)
	first.Group.ID = "200"
	_, err = l.foreign(first, "eve@pbs").CreateReusing(t.Context(), "disk.img.fidx", size, csum)
	is(t, "no base", err, chunkstore.ErrNotExist)
	if err == nil || !strings.Contains(err.Error(), "cannot reuse index - no valid previous backup exists") {
		t.Errorf("no base: %v", err)
	}
}

func TestReuseOfADamagedIndexIsRefused(t *testing.T) {
	l := newLab(t)
	entries, size := l.storeFixed(at(10))
	name := filepath.Join(l.path, "vm", "100", at(10).TimeString(), "disk.img.fidx")
	raw, err := os.ReadFile(name)
	if err != nil {
		t.Fatal(err)
	}
	raw[4096+40] ^= 1
	if err := os.WriteFile(name, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	_, err = l.foreign(at(20), "eve@pbs").CreateReusing(t.Context(), "disk.img.fidx", size, csumOf(entries...))
	is(t, "reuse", err, chunkstore.ErrInvalid)
}
