package pack

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/storetest"
)

func TestUsage(t *testing.T) {
	dir := create(t)
	cs := chunks(0, 25)
	var want Usage
	for _, c := range cs {
		want.Chunks++
		want.StoredBytes += uint64(len(c.Sealed))
		want.PlainBytes += uint64(c.PlainSize)
	}
	usage := func(s *Store) Usage {
		u, err := s.Usage(bg)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packsIn(t, dir) {
			want.PackBytes += uint64(p.size)
		}
		want.Packs, want.OpenPacks = 3, 1
		return u
	}
	s := openAt(t, dir, smallPacks)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	s.sealDone.Wait()
	if got := usage(s); got != want {
		t.Errorf("before sync: %+v, want %+v", got, want)
	}
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		t.Fatal(err)
	}
	want.PackBytes = 0
	if got := usage(s); got != want {
		t.Errorf("after sync: %+v, want %+v", got, want)
	}
	closeStore(t, s)
	for _, lose := range []string{"", catalogueName} {
		_ = os.Remove(filepath.Join(dir, lose))
		s = openAt(t, dir, smallPacks)
		want.PackBytes = 0
		if got := usage(s); got != want {
			t.Errorf("opened again: %+v, want %+v", got, want)
		}
		closeStore(t, s)
	}
}

// TestSessionsContinueOnePack is the rule against thousands of small packs.
func TestSessionsContinueOnePack(t *testing.T) {
	dir := create(t)
	for i := range 12 {
		s := openAt(t, dir, Options{})
		fill(t, s, chunks(5*i, 2))
		fill(t, s, chunks(5*i+2, 3))
		closeStore(t, s)
	}
	if ps := packsIn(t, dir); len(ps) != 1 {
		t.Errorf("%d packs after 24 small sessions", len(ps))
	}
	small := openAt(t, dir, smallPacks) // finds it full
	fill(t, small, chunks(60, 1))
	closeStore(t, small)
	for _, p := range packsIn(t, dir) {
		if st, err := os.Stat(packPath(dir, p)); err != nil || p.state == stateSealed && st.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", p.name(), st.Mode(), err)
		}
	}
	s := openAt(t, dir, Options{})
	defer closeStore(t, s)
	holdsAll(t, s, chunks(0, 60))
}

// TestContinueRefusesWhatIsNotWhole damages the header of a record in a pack
// that would be continued: the session takes another one.
func TestContinueRefusesWhatIsNotWhole(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	fill(t, s, chunks(0, 5))
	closeStore(t, s)
	p := packsIn(t, dir)[0]
	edit(t, packPath(dir, p), flip(offsets(5)[2]+3))
	s = openAt(t, dir, Options{})
	fill(t, s, chunks(10, 5))
	closeStore(t, s)
	if ps := packsIn(t, dir); len(ps) != 2 {
		t.Errorf("packs %v", ps)
	}
	s = openAt(t, dir, Options{})
	defer closeStore(t, s)
	holdsAll(t, s, chunks(10, 5))
	holdsAll(t, s, chunks(0, 2))
}

func TestReindexReport(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	fill(t, s, chunks(0, 35))
	p, _ := where(t, s, chunks(0, 1)[0])
	edit(t, packPath(dir, p), func(b []byte) []byte { return flip(len(b) - 100)(b) })
	var last Progress
	calls := 0
	r, err := s.Reindex(bg, func(p Progress) { last = p; calls++ })
	if err != nil {
		t.Fatal(err)
	}
	want := ReindexReport{Packs: 4, OpenPacks: 1, Chunks: 35, FootersDamaged: 1, RecordsDamaged: 1, BytesSkipped: r.BytesSkipped, Names: []string{p.name()}}
	if fmt.Sprint(r) != fmt.Sprint(want) {
		t.Errorf("got  %+v\nwant %+v", r, want)
	}
	if calls != 4 || last.PacksDone != 4 || last.PacksTotal != 4 || last.Chunks == 0 {
		t.Errorf("progress: %d calls, the last %+v", calls, last)
	}
	holdsAll(t, s, chunks(0, 35))
	ctx, cancel := context.WithCancel(bg)
	cancel()
	if _, err := s.Reindex(ctx, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("canceled: %v", err)
	}
	holdsAll(t, s, chunks(0, 35))
}

// TestReindexOfHealthyStoreChangesNothing is bug museum M21: repair of what is
// sound is no repair.
func TestReindexOfHealthyStoreChangesNothing(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	fill(t, s, chunks(0, 35))
	where := func() map[chunkstore.ID]location {
		m := make(map[chunkstore.ID]location)
		if _, _, err := s.cat.scan(chunkstore.ID{}, 1000, func(id chunkstore.ID, l location) { m[id] = l }); err != nil {
			t.Fatal(err)
		}
		return m
	}
	packs, before := listing(t, packsDir(dir)), where()
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	if fmt.Sprint(where()) != fmt.Sprint(before) || listing(t, packsDir(dir)) != packs {
		t.Error("something has changed")
	}
}

// TestReindexBesideWriters builds the catalogue anew over and over while four
// sessions fill and seal packs.
func TestReindexBesideWriters(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	var wg sync.WaitGroup
	stop := make(chan struct{})
	for w := range 4 {
		se, err := s.Begin(bg)
		if err != nil {
			t.Fatal(err)
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			defer se.Close()
			for i, c := range chunks(1000*w, 120) {
				if _, err := se.Put(bg, c); err != nil {
					t.Errorf("put: %v", err)
					return
				}
				if i%25 != 0 {
					continue
				}
				if err := se.Sync(bg); err != nil {
					t.Errorf("sync: %v", err)
					return
				}
			}
			if err := se.Sync(bg); err != nil {
				t.Errorf("sync: %v", err)
			}
		}()
	}
	done := make(chan int)
	go func() {
		for n := 0; ; n++ {
			select {
			case <-stop:
				done <- n
				return
			default:
			}
			if _, err := s.Reindex(bg, nil); err != nil {
				t.Errorf("reindex: %v", err)
			}
		}
	}()
	wg.Wait()
	close(stop)
	if n := <-done; n == 0 {
		t.Error("no reindex came to its end")
	}
	check := func() {
		for w := range 4 {
			holdsAll(t, s, chunks(1000*w, 120))
		}
		if u, err := s.Usage(bg); err != nil || u.Chunks != 480 {
			t.Errorf("%+v, %v", u, err)
		}
	}
	check()
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	check()
	if o := s.Opened(); o.Chunks > 0 || o.Rebuilt != nil {
		t.Errorf("%+v", o)
	}
	closeStore(t, s)
}

// TestGetHealsMissOnce takes chunks out of the catalogue behind the store's
// back. The first Get that misses one builds it anew; after that a miss is the
// answer.
func TestGetHealsMissOnce(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	cs := chunks(0, 25)
	fill(t, s, cs)
	forget := func(c chunkstore.Chunk) {
		if _, err := s.cat.commit(changes{deletes: []chunkstore.ID{c.ID}}); err != nil {
			t.Fatal(err)
		}
	}
	forget(cs[3])
	forget(cs[4])
	if _, err := s.Stat(bg, cs[3].ID); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("stat: %v", err)
	}
	storetest.Holds(t, s, cs[3])
	storetest.Holds(t, s, cs[4])
	forget(cs[5])
	if _, err := s.Get(bg, cs[5].ID); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("second miss: %v", err)
	}
}

// TestHealsWhileOpen damages the catalogue under a running store: whoever
// meets it, be it a reader, a Put or a Sync, gets what he asked for.
func TestHealsWhileOpen(t *testing.T) {
	cs := chunks(0, 30)
	for name, act := range map[string]func(*testing.T, *Store){
		"get": func(t *testing.T, s *Store) { holdsAll(t, s, cs) },
		"put": func(t *testing.T, s *Store) { fill(t, s, cs) },
		"sync": func(t *testing.T, s *Store) {
			se, err := s.Begin(bg)
			if err != nil {
				t.Fatal(err)
			}
			s.mu.Lock() // past the lookup of Put
			s.pending[chunkstore.ID{1}] = location{pack: 0, off: headerSize, stored: 100, plain: 1}
			s.mu.Unlock()
			if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
				t.Fatal(err)
			}
		},
		"all at once": func(t *testing.T, s *Store) {
			var wg sync.WaitGroup
			for range 6 {
				wg.Add(1)
				go func() {
					defer wg.Done()
					for _, c := range cs {
						if _, err := s.Get(bg, c.ID); err != nil {
							t.Errorf("get: %v", err)
						}
					}
				}()
			}
			wg.Wait()
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := create(t)
			s := openAt(t, dir, smallPacks)
			fill(t, s, cs)
			if err := os.Truncate(filepath.Join(dir, catalogueName), 8192); err != nil {
				t.Fatal(err)
			}
			act(t, s)
			holdsAll(t, s, cs)
			fill(t, s, chunks(100, 10))
			if name != "sync" {
				closeStore(t, s)
				s = openAt(t, dir, smallPacks)
				if o := s.Opened(); o.Rebuilt != nil || o.Unclean {
					t.Errorf("%+v", o)
				}
				holdsAll(t, s, cs)
				holdsAll(t, s, chunks(100, 10))
			}
			closeStore(t, s)
		})
	}
}

// TestDamageIsMarkedAndHealed follows a damaged chunk: Check finds it, Stat
// disowns it, the next Put stores it again, and nothing after that, not even
// the loss of the catalogue, brings the damaged copy back.
func TestDamageIsMarkedAndHealed(t *testing.T) {
	dir := create(t)
	cs := chunks(0, 25)
	s := openAt(t, dir, smallPacks)
	fill(t, s, cs)
	p, l := where(t, s, cs[2])
	path := packPath(dir, p)
	edit(t, path, flip(int(l.off)+recordSize+10))
	if err := s.Check(bg, cs[2].ID); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Fatalf("check: %v", err)
	}
	stat := func(want error) {
		t.Helper()
		if _, err := s.Stat(bg, cs[2].ID); !errors.Is(err, want) {
			t.Errorf("stat: %v, want %v", err, want)
		}
	}
	stat(chunkstore.ErrNotExist)
	// The mark survives, and goes when the damage was none after all.
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	stat(chunkstore.ErrNotExist)
	edit(t, path, flip(int(l.off)+recordSize+10))
	if err := s.Check(bg, cs[2].ID); err != nil {
		t.Errorf("check: %v", err)
	}
	stat(nil)
	edit(t, path, flip(int(l.off)+recordSize+10))
	if err := s.Check(bg, cs[2].ID); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Fatalf("check: %v", err)
	}
	fill(t, s, cs)
	storetest.Holds(t, s, cs[2])
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, s, cs[2])
	closeStore(t, s)
	remove(t, filepath.Join(dir, catalogueName))
	s = openAt(t, dir, smallPacks)
	holdsAll(t, s, cs)
	closeStore(t, s)
}

// TestMarkDoesNotHitTheNewCopy marks a chunk bad that was put again meanwhile.
func TestMarkDoesNotHitTheNewCopy(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	c := chunks(0, 1)[0]
	fill(t, s, []chunkstore.Chunk{c})
	_, old := where(t, s, c)
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	if err := se.(chunkstore.Replacer).Replace(bg, c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.mark(bg, c.ID, old, true)
		storetest.Holds(t, s, c)
		if err := se.Sync(bg); err != nil {
			t.Fatal(err)
		}
	}
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestWalkNamesMarkedChunkOnce has a chunk in the catalogue and, with a mark,
// among those on their way to it.
func TestWalkNamesMarkedChunkOnce(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, smallPacks)
	defer closeStore(t, s)
	cs := chunks(0, 5)
	fill(t, s, cs)
	_, l := where(t, s, cs[1])
	s.mark(bg, cs[1].ID, l, true)
	n := 0
	if err := s.Walk(bg, func(chunkstore.ID, chunkstore.Info) error { n++; return nil }); err != nil || n != 5 {
		t.Errorf("%d chunks, %v", n, err)
	}
}

// TestGetProvesTheRecord gives the catalogue a wrong location with a good
// checksum: another chunk's bytes must not come back.
func TestGetProvesTheRecord(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	defer closeStore(t, s)
	a, b := storetest.Chunk(1, 500), storetest.Chunk(1001, 500)
	fill(t, s, []chunkstore.Chunk{a, b, storetest.Chunk(2, 600)})
	_, la := where(t, s, a)
	_, lb := where(t, s, b)
	for name, wrong := range map[string]location{
		"another chunk":  lb,
		"no record":      {pack: la.pack, off: la.off + 1, stored: la.stored, plain: la.plain},
		"behind the end": {pack: la.pack, off: 1 << 20, stored: la.stored, plain: la.plain},
		"another size":   {pack: la.pack, off: la.off, stored: la.stored - 1, plain: la.plain},
		"another plain":  {pack: la.pack, off: la.off, stored: la.stored, plain: la.plain + 1},
	} {
		if _, err := s.cat.commit(changes{chunks: map[chunkstore.ID]location{a.ID: wrong}}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(bg, a.ID); got != nil || !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		delete(s.pending, a.ID) // the mark
	}
}

func TestHandlesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 200 {
		if err := os.WriteFile(filepath.Join(dir, packID{byte(i)}.String()+sealedExt), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := newHandles(dir)
	var held []*handle
	for i := range 200 {
		e, err := h.acquire(packID{byte(i)}, stateOpen)
		if err != nil {
			t.Fatal(err)
		}
		held = append(held, e)
		if i >= 100 {
			h.release(e)
		}
	}
	b := make([]byte, 1)
	for i, e := range held[:100] {
		if _, err := e.f.ReadAt(b, 0); err != nil || b[0] != byte(i) {
			t.Fatalf("pack %d was closed under its reader: %v", i, err)
		}
		if i == 50 {
			h.forget(e.id)
			if _, err := e.f.ReadAt(b, 0); err != nil {
				t.Errorf("forget has closed a pack in use: %v", err)
			}
		}
		h.release(e)
	}
	if len(h.open) > handlesMax || h.used.Len() != len(h.open) {
		t.Errorf("%d packs are open, %d in the list", len(h.open), h.used.Len())
	}
	if _, err := held[50].f.ReadAt(b, 0); !errors.Is(err, os.ErrClosed) {
		t.Errorf("a forgotten pack stays open: %v", err)
	}
	h.closeAll()
	if len(h.open) != 0 {
		t.Errorf("%d packs are open after the end", len(h.open))
	}
}

// TestIndexAgainstModel is bug museum M20: many operations on the index beside
// a map, with small batches, reopenings and rebuilds in between.
func TestIndexAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	dir := tempDir(t)
	fillBolt(t, dir, 0)
	path := filepath.Join(dir, catalogueName)
	c, err := openBolt(path, false, true)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[chunkstore.ID]location)
	id := func() chunkstore.ID { return sum([]byte(fmt.Sprint(r.IntN(20_000)))) }
	for round := range 40 {
		ch := changes{chunks: make(map[chunkstore.ID]location)}
		for range r.IntN(1500) {
			ch.chunks[id()] = location{pack: r.Uint32(), off: headerSize + r.Int64N(1<<30), stored: uint32(r.IntN(1 << 20)), rank: r.Uint32()}
		}
		for range r.IntN(300) {
			x := id()
			ch.deletes = append(ch.deletes, x)
			delete(want, x)
		}
		for x, l := range ch.chunks {
			want[x] = l
		}
		if _, err := c.commit(ch); err != nil {
			t.Fatal(err)
		}
		for range 500 {
			x := id()
			l, ok, err := c.get(x)
			if w, there := want[x]; err != nil || ok != there || l != w {
				t.Fatalf("round %d: %+v, %v, %v; want %+v, %v", round, l, ok, err, w, there)
			}
		}
		if round%20 == 10 {
			if err := c.close(); err != nil {
				t.Fatal(err)
			}
			if err := checkCatalogue(dir); err != nil {
				t.Fatal(err)
			}
			if c, err = openBolt(path, false, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	if _, done, err := c.scan(chunkstore.ID{}, 1<<20, func(x chunkstore.ID, l location) {
		n++
		if want[x] != l {
			t.Errorf("chunk %s differs", x.Short())
		}
	}); err != nil || !done || n != len(want) {
		t.Errorf("%d of %d chunks, %v", n, len(want), err)
	}
	if err := c.close(); err != nil {
		t.Fatal(err)
	}
}

// TestKeepsLimitsOfMemory puts more chunks than are held in memory.
func TestKeepsLimitsOfMemory(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	defer closeStore(t, s)
	s.mu.Lock()
	for i := range pendingMax - 3 {
		var id chunkstore.ID
		id[0], id[1], id[2], id[3] = 1, byte(i), byte(i>>8), byte(i>>16)
		s.pending[id] = location{pack: 0, off: headerSize, stored: 100, plain: 1}
	}
	s.packs[0] = &packInfo{id: packID{9}, state: stateOpen, savedTo: 1 << 20, seen: s.generation}
	s.nextPack = 1
	s.mu.Unlock()
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range chunks(0, 10) {
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	if n := len(s.pending); n > 10 {
		t.Errorf("%d entries are pending", n)
	}
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
	holdsAll(t, s, chunks(0, 10))
}

func TestDiskErrors(t *testing.T) {
	for _, tc := range []struct {
		err         error
		full, final bool
	}{
		{unix.ENOSPC, true, false},
		{unix.EDQUOT, true, false},
		{unix.EFBIG, true, false},
		{unix.EIO, false, true},
		{unix.EROFS, false, true},
		{fmt.Errorf("%w: %w", errLost, unix.ENOSPC), true, true},
		{context.Canceled, false, false},
		{nil, false, false},
	} {
		err := disk{}.do("write", "/some/file", func() error { return tc.err })
		if errors.Is(err, chunkstore.ErrNoSpace) != tc.full || isFinal(err) != tc.final || !errors.Is(err, tc.err) {
			t.Errorf("%v became %v: full %v, final %v", tc.err, err, tc.full, tc.final)
		}
	}
}
