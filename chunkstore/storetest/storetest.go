// Package storetest holds what every chunk store must do, as tests: Run is the
// conformance suite of the contract in package chunkstore, Faulty a store that
// fails on order, for the tests of those who use one.
//
// The package imports chunkstore and the standard library only.
package storetest

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/chunkstore"
)

// Chunk makes a chunk of size stored bytes, at least 13. Equal arguments make
// equal chunks; the ID is a hash of the bytes, and the bytes are noise.
func Chunk(seed uint64, size int) chunkstore.Chunk {
	b := make([]byte, size+8)
	var key [32]byte
	binary.LittleEndian.PutUint64(key[:], seed)
	r := rand.NewChaCha8(key)
	for i := 0; i < size; i += 8 {
		binary.LittleEndian.PutUint64(b[i:], r.Uint64())
	}
	b = b[:size:size]
	return chunkstore.Chunk{ID: sha256.Sum256(b), PlainSize: uint32(seed%1000) + 1, Blob: b}
}

// Sealed makes an encrypted chunk of size stored bytes, at least 13, for an owner of
// that name. Apart from the first bytes of the blob and the owner, and with them the
// key, it is that of Chunk.
func Sealed(seed uint64, size int, owner string) chunkstore.Chunk {
	c := Chunk(seed, size)
	copy(c.Blob, chunkstore.MagicEncrypted)
	c.Owner = chunkstore.OwnerOf(owner)
	return c
}

// Run checks a store against the contract. open is called for each part of the
// suite and returns an empty store; Run closes it.
func Run(t *testing.T, open func(t *testing.T) chunkstore.Store) {
	for _, part := range []struct {
		name string
		run  func(*testing.T, chunkstore.Store)
	}{
		{"PutGet", testPutGet},
		{"NotFound", testNotFound},
		{"Duplicates", testDuplicates},
		{"Ownership", testOwnership},
		{"Limits", testLimits},
		{"SyncAcrossSessions", testSync},
		{"Concurrency", testConcurrency},
		{"SameChunkAtOnce", testSameChunk},
		{"Canceled", testCanceled},
		{"ClosedSession", testClosedSession},
		{"ClosedStore", testClosedStore},
		{"Walk", testWalk},
		{"Classes", testClasses},
		{"Owners", testOwners},
		{"Sizes", testSizes},
	} {
		t.Run(part.name, func(t *testing.T) {
			s := open(t)
			part.run(t, s)
			if err := s.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
}

// Holds fails the test unless s has c, byte for byte, by every way there is to
// ask for it.
func Holds(t testing.TB, s chunkstore.Store, c chunkstore.Chunk) {
	t.Helper()
	ctx := context.Background()
	got, err := s.Get(ctx, c.Key())
	if err != nil {
		t.Fatalf("get: %v", err)
	}
	if !bytes.Equal(got, c.Blob) {
		t.Fatalf("get %s: the bytes are not those that were put", c.ID)
	}
	info, err := s.Stat(ctx, c.Key())
	if want := (chunkstore.Info{StoredSize: uint32(len(c.Blob)), PlainSize: c.PlainSize}); err != nil || info != want {
		t.Fatalf("stat: %+v, %v; want %+v", info, err, want)
	}
	if err := s.Check(ctx, c.Key()); err != nil {
		t.Fatalf("check: %v", err)
	}
}

// Lacks fails the test unless s says everywhere that it has no chunk k.
func Lacks(t testing.TB, s chunkstore.Store, k chunkstore.Key) {
	t.Helper()
	ctx := context.Background()
	b, err := s.Get(ctx, k)
	if b != nil || !errors.Is(err, chunkstore.ErrNotExist) {
		t.Fatalf("get: %d bytes, %v; want not found", len(b), err)
	}
	if !strings.Contains(err.Error(), k.ID.Short()) {
		t.Errorf("the error does not name the chunk: %v", err)
	}
	if info, err := s.Stat(ctx, k); info != (chunkstore.Info{}) || !errors.Is(err, chunkstore.ErrNotExist) {
		t.Fatalf("stat: %+v, %v; want not found", info, err)
	}
	if err := s.Check(ctx, k); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Fatalf("check: %v; want not found", err)
	}
}

// begin opens a session that is closed with the test.
func begin(t *testing.T, s chunkstore.Store) chunkstore.Session {
	t.Helper()
	se, err := s.Begin(context.Background())
	if err != nil {
		t.Fatalf("begin: %v", err)
	}
	return se
}

// put puts c and wants to be told added.
func put(t *testing.T, se chunkstore.Session, c chunkstore.Chunk, added bool) {
	t.Helper()
	got, err := se.Put(context.Background(), c)
	if err != nil || got != added {
		t.Fatalf("put %s: added %v, %v; want %v", c.ID, got, err, added)
	}
}

// end syncs and closes a session.
func end(t *testing.T, se chunkstore.Session) {
	t.Helper()
	if err := se.Sync(context.Background()); err != nil {
		t.Fatalf("sync: %v", err)
	}
	if err := se.Close(); err != nil {
		t.Fatalf("close session: %v", err)
	}
}

func testPutGet(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	var all []chunkstore.Chunk
	for i, size := range []int{chunkstore.BlobSizeMin + 1, 100, 4095, 4096, 1 << 20, chunkstore.BlobSizeMax} {
		c := Chunk(uint64(i), size)
		c.PlainSize = uint32(max(1, size-44))
		all = append(all, c)
		put(t, se, c, true)
		Holds(t, s, c)
	}
	end(t, se)
	for _, c := range all {
		Holds(t, s, c)
	}
}

func testNotFound(t *testing.T, s chunkstore.Store) {
	Lacks(t, s, Chunk(1, 50).Key())
	se := begin(t, s)
	put(t, se, Chunk(2, 50), true)
	Lacks(t, s, Chunk(1, 50).Key())
	end(t, se)
	Lacks(t, s, Chunk(1, 50).Key())
}

func testDuplicates(t *testing.T, s chunkstore.Store) {
	a, b := begin(t, s), begin(t, s)
	c := Chunk(1, 500)
	put(t, a, c, true)
	put(t, a, c, false)
	put(t, b, c, false)
	end(t, a)
	put(t, b, c, false)
	// Of two different blobs under one key the first stays.
	other := Chunk(2, 600)
	other.ID, other.PlainSize = c.ID, c.PlainSize
	put(t, b, other, false)
	end(t, b)
	Holds(t, s, c)
}

func testOwnership(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	c := Chunk(1, 500)
	mine := chunkstore.Chunk{ID: c.ID, PlainSize: c.PlainSize, Blob: bytes.Clone(c.Blob)}
	put(t, se, mine, true)
	clear(mine.Blob)
	Holds(t, s, c)
	got, err := s.Get(context.Background(), c.Key())
	if err != nil {
		t.Fatal(err)
	}
	clear(got)
	if cap(got) > len(got) {
		clear(got[:cap(got)])
	}
	end(t, se)
	Holds(t, s, c)
}

func testLimits(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	for _, tc := range []struct {
		name   string
		change func(*chunkstore.Chunk)
	}{
		{"zero id", func(c *chunkstore.Chunk) { c.ID = chunkstore.ID{} }},
		{"no plain size", func(c *chunkstore.Chunk) { c.PlainSize = 0 }},
		{"plain size too large", func(c *chunkstore.Chunk) { c.PlainSize = chunkstore.PlainSizeMax + 1 }},
		{"no bytes", func(c *chunkstore.Chunk) { c.Blob = nil }},
		{"empty blob", func(c *chunkstore.Chunk) { c.Blob = c.Blob[:chunkstore.BlobSizeMin] }},
		{"encrypted without owner", func(c *chunkstore.Chunk) { copy(c.Blob, chunkstore.MagicEncryptedCompressed) }},
		{"too many bytes", func(c *chunkstore.Chunk) { c.Blob = make(chunkstore.Blob, chunkstore.BlobSizeMax+1) }},
	} {
		c := Chunk(1, 500)
		tc.change(&c)
		if added, err := se.Put(context.Background(), c); added || !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: added %v, %v; want invalid", tc.name, added, err)
		}
	}
	Lacks(t, s, Chunk(1, 500).Key())
	put(t, se, Chunk(1, 500), true)
	end(t, se)
}

func testSync(t *testing.T, s chunkstore.Store) {
	a, b := begin(t, s), begin(t, s)
	if err := b.Sync(context.Background()); err != nil {
		t.Fatalf("sync of nothing: %v", err)
	}
	c, d := Chunk(1, 500), Chunk(2, 500)
	put(t, a, c, true)
	end(t, b) // makes durable what a has put
	put(t, a, d, true)
	Holds(t, s, c)
	Holds(t, s, d)
	for range 2 {
		if err := a.Sync(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	end(t, a)
}

func testConcurrency(t *testing.T, s chunkstore.Store) {
	const workers, chunks = 8, 40
	var added atomic.Int64
	var wg sync.WaitGroup
	for w := range workers {
		se := begin(t, s)
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer se.Close()
			for i := range chunks {
				c := Chunk(uint64((i+w*5)%chunks), 2000)
				ok, err := se.Put(context.Background(), c)
				if err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if ok {
					added.Add(1)
				}
				got, err := s.Get(context.Background(), c.Key())
				if err != nil || !bytes.Equal(got, c.Blob) {
					t.Errorf("get after put: %v", err)
					return
				}
			}
			if err := se.Sync(context.Background()); err != nil {
				t.Errorf("sync: %v", err)
			}
		}()
	}
	wg.Wait()
	if added.Load() != chunks {
		t.Errorf("%d chunks were added, want %d", added.Load(), chunks)
	}
	for i := range chunks {
		Holds(t, s, Chunk(uint64(i), 2000))
	}
}

func testSameChunk(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	for i := range 10 {
		c := Chunk(uint64(i), 100_000)
		var added atomic.Int64
		var wg sync.WaitGroup
		for range 4 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				ok, err := se.Put(context.Background(), c)
				if err != nil {
					t.Errorf("put: %v", err)
				}
				if ok {
					added.Add(1)
				}
				// Whoever is told that the chunk is there may read it.
				if _, err := s.Get(context.Background(), c.Key()); err != nil {
					t.Errorf("get after put: %v", err)
				}
			}()
		}
		wg.Wait()
		if added.Load() != 1 {
			t.Errorf("chunk %d was added %d times", i, added.Load())
		}
	}
	end(t, se)
}

func testCanceled(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	c := Chunk(1, 500)
	put(t, se, c, true)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for name, call := range map[string]func() error{
		"get":   func() error { _, err := s.Get(ctx, c.Key()); return err },
		"stat":  func() error { _, err := s.Stat(ctx, c.Key()); return err },
		"check": func() error { return s.Check(ctx, c.Key()) },
		"begin": func() error { _, err := s.Begin(ctx); return err },
		"put":   func() error { _, err := se.Put(ctx, Chunk(2, 500)); return err },
		"sync":  func() error { return se.Sync(ctx) },
	} {
		if err := call(); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: %v; want canceled", name, err)
		}
	}
	// Giving up one call harms nothing.
	Lacks(t, s, Chunk(2, 500).Key())
	put(t, se, Chunk(2, 500), true)
	end(t, se)
	Holds(t, s, c)
}

func testClosedSession(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	c := Chunk(1, 500)
	put(t, se, c, true)
	end(t, se)
	if added, err := se.Put(context.Background(), Chunk(2, 500)); added || err == nil {
		t.Error("put after close: no error")
	}
	if err := se.Sync(context.Background()); err == nil {
		t.Error("sync after close: no error")
	}
	if err := se.Close(); err != nil {
		t.Errorf("second close: %v", err)
	}
	Holds(t, s, c)
	// The next session goes on where this one was.
	se = begin(t, s)
	put(t, se, c, false)
	put(t, se, Chunk(3, 500), true)
	end(t, se)
	Holds(t, s, Chunk(3, 500))
}

func testClosedStore(t *testing.T, s chunkstore.Store) {
	ctx := context.Background()
	se := begin(t, s)
	c := Chunk(1, 500)
	put(t, se, c, true)
	end(t, se)
	for range 2 {
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
	for name, call := range map[string]func() error{
		"get":   func() error { _, err := s.Get(ctx, c.Key()); return err },
		"stat":  func() error { _, err := s.Stat(ctx, c.Key()); return err },
		"check": func() error { return s.Check(ctx, c.Key()) },
		"begin": func() error { _, err := s.Begin(ctx); return err },
	} {
		if err := call(); err == nil || errors.Is(err, chunkstore.ErrNotExist) {
			t.Errorf("%s after close: %v", name, err)
		}
	}
}

func testWalk(t *testing.T, s chunkstore.Store) {
	w, ok := s.(chunkstore.Walker)
	if !ok {
		return
	}
	se := begin(t, s)
	want := make(map[chunkstore.Key]chunkstore.Info)
	for i := range 30 {
		c := Chunk(uint64(i), 100+i)
		put(t, se, c, true)
		want[c.Key()] = chunkstore.Info{StoredSize: uint32(len(c.Blob)), PlainSize: c.PlainSize}
		if i == 20 {
			if err := se.Sync(context.Background()); err != nil {
				t.Fatal(err)
			}
		}
	}
	got := make(map[chunkstore.Key]chunkstore.Info)
	err := w.Walk(context.Background(), func(k chunkstore.Key, info chunkstore.Info) error {
		if _, twice := got[k]; twice {
			t.Errorf("chunk %s was named twice", k)
		}
		got[k] = info
		return nil
	})
	if err != nil || fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("walk: %d chunks, %v; want %d", len(got), err, len(want))
	}
	stop := errors.New("stop")
	if err := w.Walk(context.Background(), func(chunkstore.Key, chunkstore.Info) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("walk with an error: %v", err)
	}
	end(t, se)
}
