package pack

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
)

func TestUsage(t *testing.T) {
	dir := create(t)
	cs := chunks(0, 25)
	var want Usage
	for _, c := range cs {
		want.Chunks++
		want.StoredBytes += uint64(len(c.Blob))
		want.PlainBytes += uint64(c.PlainSize)
	}
	usage := func(s *Store) Usage {
		u, err := s.Usage(bg)
		if err != nil {
			t.Fatal(err)
		}
		for _, p := range packsIn(t, dir) {
			want.PackBytes += uint64(p.Size)
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
	for _, lose := range []string{"", catalogue.FileName} {
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
		if st, err := os.Stat(packPath(dir, p)); err != nil || p.State == packfile.StateSealed && st.Mode().Perm() != 0o444 {
			t.Errorf("%s: %v, %v", p.Name(), st.Mode(), err)
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
	want := ReindexReport{Packs: 4, OpenPacks: 1, Chunks: 35, FootersDamaged: 1, RecordsDamaged: 1, BytesSkipped: r.BytesSkipped, Names: []string{p.Name()}}
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
	where := func() map[chunkstore.Key]catalogue.Location {
		m := make(map[chunkstore.Key]catalogue.Location)
		if _, _, err := s.cat.Scan(chunkstore.Key{}, 1000, func(id chunkstore.Key, l catalogue.Location) { m[id] = l }); err != nil {
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
	edit(t, path, flip(int(l.Off)+packfile.RecordSize+10))
	if err := s.Check(bg, cs[2].Key()); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Fatalf("check: %v", err)
	}
	stat := func(want error) {
		t.Helper()
		if _, err := s.Stat(bg, cs[2].Key()); !errors.Is(err, want) {
			t.Errorf("stat: %v, want %v", err, want)
		}
	}
	stat(chunkstore.ErrNotExist)
	// The mark survives, and goes when the damage was none after all.
	closeStore(t, s)
	s = openAt(t, dir, smallPacks)
	stat(chunkstore.ErrNotExist)
	edit(t, path, flip(int(l.Off)+packfile.RecordSize+10))
	if err := s.Check(bg, cs[2].Key()); err != nil {
		t.Errorf("check: %v", err)
	}
	stat(nil)
	edit(t, path, flip(int(l.Off)+packfile.RecordSize+10))
	if err := s.Check(bg, cs[2].Key()); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Fatalf("check: %v", err)
	}
	fill(t, s, cs)
	storetest.Holds(t, s, cs[2])
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	storetest.Holds(t, s, cs[2])
	closeStore(t, s)
	remove(t, filepath.Join(dir, catalogue.FileName))
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
	if err := replace(se, c); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		s.mark(bg, c.Key(), old.Spot(), true)
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
	s.mark(bg, cs[1].Key(), l.Spot(), true)
	n := 0
	if err := s.Walk(bg, func(chunkstore.Key, chunkstore.Info) error { n++; return nil }); err != nil || n != 5 {
		t.Errorf("%d chunks, %v", n, err)
	}
}

// TestGetProvesTheRecord gives the catalogue a wrong location with a good
// checksum: another chunk's bytes must not come back.
func TestGetProvesTheRecord(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	defer closeStore(t, s)
	a, b := storetest.Sealed(1, 500, "alice"), storetest.Sealed(1001, 500, "bob")
	fill(t, s, []chunkstore.Chunk{a, b, storetest.Chunk(2, 600)})
	_, la := where(t, s, a)
	_, lb := where(t, s, b)
	for name, wrong := range map[string]catalogue.Location{
		"another chunk":  lb,
		"no record":      {Pack: la.Pack, Off: la.Off + 1, Stored: la.Stored},
		"behind the end": {Pack: la.Pack, Off: 1 << 20, Stored: la.Stored},
		"another size":   {Pack: la.Pack, Off: la.Off, Stored: la.Stored - 1},
		"another sum":    {Pack: la.Pack, Off: la.Off, Stored: la.Stored, Sum: [catalogue.SumSize]byte{1}},
		"by a claim":     {Pack: lb.Pack, Off: lb.Off, Stored: lb.Stored, Sum: lb.Sum, ClaimPack: la.Pack, ClaimOff: la.Off},
	} {
		if _, err := s.cat.Commit(catalogue.Changes{Chunks: []catalogue.Held{{Key: a.Key(), Location: wrong}}}); err != nil {
			t.Fatal(err)
		}
		if got, err := s.Get(bg, a.Key()); got != nil || !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: %d bytes, %v", name, len(got), err)
		}
		s.pending.Clear() // the mark
	}
}

func TestHandlesAreBounded(t *testing.T) {
	dir := t.TempDir()
	for i := range 200 {
		if err := os.WriteFile(filepath.Join(dir, packfile.ID{byte(i)}.String()+packfile.SealedExt), []byte{byte(i)}, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	h := newHandles(dir)
	var held []*handle
	for i := range 200 {
		e, err := h.acquire(packfile.ID{byte(i)}, packfile.StateOpen)
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

// TestKeepsLimitsOfMemory puts more chunks than are held in memory.
func TestKeepsLimitsOfMemory(t *testing.T) {
	dir := create(t)
	s := openAt(t, dir, Options{})
	defer closeStore(t, s)
	s.mu.Lock()
	for i := range pendingMax - 3 {
		var id chunkstore.ID
		id[0], id[1], id[2], id[3] = 1, byte(i), byte(i>>8), byte(i>>16)
		s.pending.Put(chunkstore.Key{ID: id, Size: 1}, catalogue.Location{Pack: 0, Off: packfile.HeaderSize, Stored: 100})
	}
	s.packs[0] = &catalogue.PackInfo{ID: packfile.ID{9}, State: packfile.StateOpen, SavedTo: 1 << 20, Seen: s.generation}
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
	if n := s.pending.Len(); n > 10 {
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
		{fmt.Errorf("%w: %w", durable.ErrLost, unix.ENOSPC), true, true},
		{unix.EMFILE, false, false},
		{context.Canceled, false, false},
		{nil, false, false},
	} {
		err := durable.Door{}.Do("write", "/some/file", func() error { return tc.err })
		if errors.Is(err, chunkstore.ErrNoSpace) != tc.full || durable.IsFinal(err) != tc.final || !errors.Is(err, tc.err) {
			t.Errorf("%v became %v: full %v, final %v", tc.err, err, tc.full, tc.final)
		}
	}
}
