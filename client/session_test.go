package client

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

func codec(t testing.TB) *blob.Codec {
	t.Helper()
	c, err := blob.NewCodec(blob.Options{Workers: 1})
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func chunkOf(t testing.TB, content []byte) chunkstore.Chunk {
	t.Helper()
	c := codec(t)
	raw, err := c.Encode(nil, content)
	if err != nil {
		t.Fatal(err)
	}
	return chunkstore.Chunk{ID: c.Name(content), PlainSize: uint32(len(content)), Blob: raw}
}

func begin(t testing.TB, c *Client, s wire.Snapshot) wire.Session {
	t.Helper()
	sess, err := c.Begin(t.Context(), s)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { sess.Close() })
	return sess
}

func create(t testing.TB, s wire.Session, name string, size int64) wire.IndexWriter {
	t.Helper()
	w, err := s.Create(t.Context(), name, size)
	if err != nil {
		t.Fatal(err)
	}
	return w
}

func put(t testing.TB, w wire.IndexWriter, c chunkstore.Chunk) {
	t.Helper()
	if _, err := w.PutChunk(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// finish writes a manifest of one file.
func finish(t testing.TB, s wire.Session, at wire.Snapshot, name string, sum index.Summary) error {
	t.Helper()
	m := manifest.Manifest{Type: at.Group.Type, ID: at.Group.ID, Time: at.Time}
	m.Files = []manifest.File{{Name: name, CryptMode: crypto.ModeNone, Size: sum.Size, Csum: sum.Csum}}
	raw, err := m.Blob()
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Blob(t.Context(), wire.ManifestName, raw); err != nil {
		return err
	}
	return s.Finish(t.Context())
}

func TestAppendsGoOutInBatches(t *testing.T) {
	for _, holdfast := range []bool{false, true} {
		f := newFake(t)
		f.holdfast = holdfast
		const entries = 40_000
		s := begin(t, dial(t, f.options()), snap(1))
		w := create(t, s, "disk.img.didx", -1)
		a, b := chunkOf(t, []byte("a")), chunkOf(t, []byte("bb"))
		put(t, w, a)
		put(t, w, b)
		sum := index.NewSummer(index.Dynamic)
		off := uint64(0)
		var part []index.Entry
		for i := range entries {
			c := a
			if i%3 == 0 {
				c = b
			}
			e := index.Entry{Off: off, Size: c.PlainSize, ID: c.ID}
			off += uint64(e.Size)
			sum.Add(e)
			if part = append(part, e); len(part) == 1000 || i == entries-1 {
				if err := w.Append(t.Context(), part); err != nil {
					t.Fatal(err)
				}
				part = part[:0]
			}
		}
		if err := w.Close(t.Context(), sum.Summary()); err != nil {
			t.Fatal(err)
		}
		if err := finish(t, s, snap(1), "disk.img.didx", sum.Summary()); err != nil {
			t.Fatal(err)
		}
		most, least, requests := int64(60<<10), entries/batchMax, f.count("PUT /dynamic_index")
		if holdfast {
			most, least = wire.ParamBodyMax, entries/batchMaxHoldfast
		}
		if f.largest.Load() > most || requests < least || requests > entries/batchMin+1 {
			t.Errorf("holdfast %v: largest body %d, %d requests", holdfast, f.largest.Load(), requests)
		}
	}
}

// The largest entries there can be stay below the limit as well.
func TestBatchesFit(t *testing.T) {
	for entries, most := range map[int]int{batchMax: 60 << 10, batchMaxHoldfast: wire.ParamBodyMax} {
		body := `{"wid":256,"digest-list":[],"offset-list":[]}`
		entry := strings.Repeat("f", 64) + `"",` + fmt.Sprint(uint64(index.SizeMax)) + ","
		if got := len(body) + entries*len(entry); got > most {
			t.Errorf("%d entries may have %d bytes, more than %d", entries, got, most)
		}
	}
}

func TestFixedIndex(t *testing.T) {
	f := newFake(t)
	s := begin(t, dial(t, f.options()), snap(1))
	const size = wire.FixedChunkSize + 5
	w := create(t, s, "disk.img.fidx", size)
	first, last := chunkOf(t, make([]byte, wire.FixedChunkSize)), chunkOf(t, []byte("last!"))
	put(t, w, first)
	put(t, w, last)
	entries := []index.Entry{{Size: first.PlainSize, ID: first.ID}, {Off: wire.FixedChunkSize, Size: 5, ID: last.ID}}
	sum := index.NewSummer(index.Fixed)
	for _, e := range entries {
		sum.Add(e)
	}
	if err := w.Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context(), sum.Summary()); err != nil {
		t.Fatal(err)
	}
	if err := finish(t, s, snap(1), "disk.img.fidx", sum.Summary()); err != nil {
		t.Fatal(err)
	}
	if _, err := s.Create(t.Context(), "x.img.fidx", -1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("fixed of unknown size: %v", err)
	}
}

func TestAppendRefuses(t *testing.T) {
	f := newFake(t)
	s := begin(t, dial(t, f.options()), snap(1))
	w := create(t, s, "disk.img.didx", -1)
	c := chunkOf(t, []byte("content"))
	put(t, w, c)
	for name, tc := range map[string]struct {
		e    index.Entry
		want error
	}{
		"never sent": {index.Entry{Size: 7, ID: chunkstore.ID{1}}, chunkstore.ErrNotExist},
		"wrong size": {index.Entry{Size: 8, ID: c.ID}, chunkstore.ErrInvalid},
		"a gap":      {index.Entry{Off: 1, Size: 7, ID: c.ID}, chunkstore.ErrInvalid},
	} {
		if err := w.Append(t.Context(), []index.Entry{tc.e}); !errors.Is(err, tc.want) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if f.count("PUT /dynamic_index") != 0 {
		t.Error("something was sent")
	}
	c.PlainSize++
	if _, err := w.PutChunk(t.Context(), c); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("the same chunk with another size: %v", err)
	}
}

// A request that the server refuses ends the session, and everything after it
// says so.
func TestFailedRequestFailsTheSession(t *testing.T) {
	for _, path := range []string{"/dynamic_chunk", "/dynamic_index", "/dynamic_close"} {
		f := newFake(t)
		var on atomic.Bool
		f.before = func(w http.ResponseWriter, r *http.Request) bool {
			if on.Load() && r.URL.Path == path {
				refuse(w, 400, "chosen to fail")
				return true
			}
			return false
		}
		s := begin(t, dial(t, f.options()), snap(1))
		w := create(t, s, "disk.img.didx", -1)
		on.Store(true)
		err := func() error {
			c := chunkOf(t, []byte("content"))
			if _, err := w.PutChunk(t.Context(), c); err != nil {
				return err
			}
			sum := index.NewSummer(index.Dynamic)
			e := index.Entry{Size: c.PlainSize, ID: c.ID}
			sum.Add(e)
			if err := w.Append(t.Context(), []index.Entry{e}); err != nil {
				return err
			}
			return w.Close(t.Context(), sum.Summary())
		}()
		if err == nil || !strings.Contains(err.Error(), "chosen to fail") {
			t.Errorf("%s: %v", path, err)
		}
		if err := s.Finish(t.Context()); err == nil || !strings.Contains(err.Error(), "chosen to fail") {
			t.Errorf("%s, then finish: %v", path, err)
		}
		if f.count("POST /finish") != 0 {
			t.Errorf("%s: finish was asked for", path)
		}
	}
}

func TestErrorInTheBackgroundIsTold(t *testing.T) {
	f := newFake(t)
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		if r.Method == http.MethodPut {
			refuse(w, 400, "chosen to fail")
		}
		return r.Method == http.MethodPut
	}
	s := begin(t, dial(t, f.options()), snap(1))
	w := create(t, s, "disk.img.didx", -1)
	c := chunkOf(t, []byte("c"))
	put(t, w, c)
	var err error
	for off := uint64(0); err == nil && off < 10*queueMax; off++ {
		err = w.Append(t.Context(), []index.Entry{{Off: off, Size: 1, ID: c.ID}})
	}
	if err == nil || !strings.Contains(err.Error(), "chosen to fail") {
		t.Errorf("append: %v", err)
	}
}

// A caller that gives up a chunk does not take the session with it.
func TestCancelledPutLeavesTheSession(t *testing.T) {
	f := newFake(t)
	inside := make(chan struct{}, 1)
	var once sync.Once
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		stop := false
		if r.URL.Path == "/dynamic_chunk" {
			once.Do(func() { stop = true })
		}
		if stop {
			inside <- struct{}{}
			<-r.Context().Done()
		}
		return stop
	}
	s := begin(t, dial(t, f.options()), snap(1))
	w := create(t, s, "disk.img.didx", -1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-inside; cancel() }()
	c := chunkOf(t, []byte("content"))
	if _, err := w.PutChunk(ctx, c); !errors.Is(err, context.Canceled) {
		t.Fatalf("put: %v", err)
	}
	if added, err := w.PutChunk(t.Context(), c); err != nil || !added {
		t.Errorf("put again: %v %v", added, err)
	}
}

// The transport must not look at a chunk after PutChunk has returned.
func TestLoanEnds(t *testing.T) {
	l := &loan{read: func() {}, in: bytes.NewReader([]byte("secret"))}
	b := make([]byte, 3)
	if n, err := l.Read(b); n != 3 || err != nil {
		t.Fatal(n, err)
	}
	l.Close()
	if n, err := l.Read(b); n != 0 || err == nil {
		t.Errorf("read %d bytes after the end, %v", n, err)
	}
}

// What becomes of a snapshot whose finish was not answered is looked up, and what
// is found must be what was sent.
func TestFinishIsAskedForOnce(t *testing.T) {
	size := func(n uint64) *uint64 { return &n }
	for name, tc := range map[string]struct {
		carriedOut bool
		sent       map[string]*uint64
		made       bool
	}{
		"carried out":            {true, map[string]*uint64{"disk.img.didx": size(1), wire.ManifestName: nil}, true},
		"not carried out":        {false, nil, false},
		"another one's archives": {true, map[string]*uint64{"other.img.didx": size(1)}, false},
		"another one's content":  {true, map[string]*uint64{"disk.img.didx": size(2)}, false},
	} {
		t.Run(name, func(t *testing.T) {
			f := newFake(t)
			at := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "200"}, Time: 7}
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/finish" {
					return false
				}
				if tc.carriedOut {
					wiretest.Store(t, f.memory, wiretest.Content{Snapshot: at, Chunks: []string{"x"}})
				}
				f.cut()
				return true
			}
			c := dial(t, f.options())
			sess, err := c.Begin(t.Context(), wire.Snapshot{Group: wire.Group{Type: "vm", ID: "201"}, Time: 7})
			if err != nil {
				t.Fatal(err)
			}
			defer sess.Close()
			ss := sess.(*session)
			ss.snap, ss.sent = at, tc.sent // the fake's group of that name is not held
			if err := sess.Finish(t.Context()); (err == nil) != tc.made {
				t.Errorf("made %v: %v", tc.made, err)
			}
			if n := f.count("POST /finish"); n != 1 {
				t.Errorf("asked %d times", n)
			}
		})
	}
}

func TestPrevious(t *testing.T) {
	f := newFake(t)
	c := dial(t, f.options())
	wiretest.Store(t, c, wiretest.Content{Snapshot: snap(10), Chunks: []string{"old ", "content"}})
	s := begin(t, c, snap(20))
	p, err := s.Previous(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	raw, err := p.Blob(t.Context(), wire.ManifestName)
	if err != nil || !bytes.Equal(raw, f.memory.File(snap(10), wire.ManifestName)) {
		t.Errorf("manifest: %v", err)
	}
	if _, err := p.Blob(t.Context(), "missing.blob"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("missing blob: %v", err)
	}
	if _, err := p.Index(t.Context(), "missing.didx"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("missing index: %v", err)
	}
	idx, err := p.Index(t.Context(), "disk.img.didx")
	if err != nil {
		t.Fatal(err)
	}
	defer idx.Close()
	if f.count("GET /reader") != 0 {
		t.Error("a reader session was opened before a chunk was asked for")
	}
	w := create(t, s, "disk.img.didx", -1)
	var entries []index.Entry
	for e, err := range idx.All(0) {
		if err != nil {
			t.Fatal(err)
		}
		entries = append(entries, e)
		if _, err := p.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size}); err != nil {
			t.Error(err)
		}
	}
	if f.count("GET /reader") != 1 {
		t.Errorf("%d reader sessions", f.count("GET /reader"))
	}
	sum, err := idx.Summary()
	if err != nil {
		t.Fatal(err)
	}
	chunks := f.count("POST /dynamic_chunk")
	if err := w.Append(t.Context(), entries); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context(), sum); err != nil {
		t.Fatal(err)
	}
	if err := finish(t, s, snap(20), "disk.img.didx", sum); err != nil {
		t.Error(err)
	}
	if n := f.count("POST /dynamic_chunk"); n != chunks {
		t.Errorf("%d chunks were sent", n-chunks)
	}
}

func TestResume(t *testing.T) {
	f := newFake(t)
	c := dial(t, f.options())
	if _, ok := begin(t, c, snap(1)).(wire.Resumer); ok {
		t.Error("a server that is no Holdfast can resume")
	}
	other := wire.Snapshot{Group: wire.Group{Type: "vm", ID: "7"}, Time: 5}
	wiretest.Store(t, c, wiretest.Content{Snapshot: other, Chunks: []string{"content"}})
	f.holdfast = true
	known := chunkOf(t, []byte("content"))
	f.resume = []wire.ChunkSize{{ID: known.ID, Size: known.PlainSize}, {ID: chunkstore.ID{1}, Size: 5}}
	s := begin(t, c, wire.Snapshot{Group: wire.Group{Type: "vm", ID: "8"}, Time: 5})
	list, err := s.(wire.Resumer).Resume(t.Context())
	if err != nil || len(list) != 2 || list[0] != f.resume[0] || list[1] != f.resume[1] {
		t.Fatalf("%v %v", list, err)
	}
	w := create(t, s, "disk.img.didx", -1)
	e := index.Entry{Size: known.PlainSize, ID: known.ID}
	sum := index.NewSummer(index.Dynamic)
	sum.Add(e)
	if err := w.Append(t.Context(), []index.Entry{e}); err != nil {
		t.Fatal(err)
	}
	if err := w.Close(t.Context(), sum.Summary()); err != nil {
		t.Error(err)
	}
}

func FuzzChunkList(f *testing.F) {
	f.Add(wire.ChunkSize{ID: chunkstore.ID{1}, Size: 5}.Append(nil), 7)
	f.Fuzz(func(t *testing.T, b []byte, step int) {
		step = max(step%100, 1)
		l := &chunkList{}
		for rest := b; len(rest) > 0; {
			n := min(step, len(rest))
			if _, err := l.Write(rest[:n]); err != nil {
				return
			}
			rest = rest[n:]
		}
		var again []byte
		for _, c := range l.list {
			again = c.Append(again)
		}
		if !bytes.Equal(append(again, l.rest...), b) {
			t.Fatalf("%x became %d chunks and %x", b, len(l.list), l.rest)
		}
	})
}

func TestKnown(t *testing.T) {
	k := newAppendable()
	id := chunkstore.ID{1}
	if size, sent := k.size(id); size != 0 || sent {
		t.Error("an unknown chunk is known")
	}
	for i, step := range []struct {
		size  uint32
		sent  bool
		added bool
		want  uint32
	}{{5, false, true, 5}, {chunkstore.PlainSizeMax, true, true, chunkstore.PlainSizeMax}, {7, false, false, chunkstore.PlainSizeMax}, {chunkstore.PlainSizeMax, true, false, chunkstore.PlainSizeMax}} {
		if added := k.add(id, step.size, step.sent); added != step.added {
			t.Errorf("step %d: added %v", i, added)
		}
		if size, _ := k.size(id); size != step.want {
			t.Errorf("step %d: size %d", i, size)
		}
	}
}

func TestManyPutsAtOnce(t *testing.T) {
	f := newFake(t)
	s := begin(t, dial(t, f.options()), snap(1))
	w := create(t, s, "disk.img.didx", -1)
	var wg sync.WaitGroup
	for i := range 300 {
		wg.Go(func() {
			c := chunkOf(t, binary.LittleEndian.AppendUint64(make([]byte, 20_000), uint64(i)))
			if added, err := w.PutChunk(t.Context(), c); err != nil || !added {
				t.Errorf("chunk %d: %v %v", i, added, err)
			}
			for j := range c.Blob {
				c.Blob[j] = 0xff // nobody may look any longer
			}
		})
	}
	wg.Wait()
	if f.memory.Chunks() != 300 {
		t.Errorf("%d chunks arrived", f.memory.Chunks())
	}
}
