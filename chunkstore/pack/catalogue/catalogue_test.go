package catalogue

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
	"holdfast/crypto"
)

// fillBolt makes a catalogue of n chunks in dir, in several transactions with
// deletions, so that it has branches and free pages.
func fillBolt(t testing.TB, dir string, n int) map[chunkstore.Key]Location {
	t.Helper()
	want := make(map[chunkstore.Key]Location)
	fillOnce := func(c *File) error {
		for first := 0; first < n; first += 200 {
			chunks := NewTable()
			ch := Changes{Epoch: uint64(first), Packs: map[uint32]PackInfo{
				uint32(first): {ID: packfile.ID{byte(first)}, State: packfile.StateOpen, Length: int64(first + 64)},
			}}
			for i := first; i < min(first+200, n); i++ {
				l := Location{Pack: uint32(first), Off: int64(64 + i), Stored: 100}
				chunks.Put(numbered7(i), l)
			}
			for id, l := range want {
				if len(ch.Deletes) < 20 {
					ch.Deletes = append(ch.Deletes, id)
					delete(want, id)
				}
				_ = l
			}
			chunks.Each(func(h Held) { want[h.Key] = h.Location })
			ch.Chunks = chunks.Sorted()
			if _, err := c.Commit(ch); err != nil {
				return err
			}
		}
		return nil
	}
	if err := Create(durable.Door{}, dir, fillOnce); err != nil {
		t.Fatal(err)
	}
	return want
}

// numbered7 is a key for each number, of chunks of seven bytes.
func numbered7(n int) chunkstore.Key {
	return chunkstore.Key{ID: crypto.Sum(binary.LittleEndian.AppendUint32(nil, uint32(n))), Size: 7}
}

// boltBytes makes the bytes of a catalogue.
func boltBytes(t testing.TB, n int) []byte {
	t.Helper()
	dir := t.TempDir()
	fillBolt(t, dir, n)
	b, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// openBytes opens the bytes of a catalogue, or returns nil.
func openBytes(t testing.TB, b []byte) *File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := OpenFile(path, true, false)
	if err != nil {
		return nil
	}
	return c
}

func TestCatalogueValues(t *testing.T) {
	key, other := chunkstore.Key{ID: chunkstore.ID{5}}.Append(nil), chunkstore.Key{ID: chunkstore.ID{6}}.Append(nil)
	plain := Location{Pack: 3, Off: 1<<32 - 1, Stored: 4000, Rank: 2, Flags: FlagBad}
	sealed := plain
	sealed.Sum = [SumSize]byte{9, 8, 7}
	claimed := sealed
	claimed.ClaimPack, claimed.ClaimOff = 8, 1<<31
	var v []byte
	for _, l := range []Location{plain, sealed, claimed} {
		v = encodeLocation(key, l)
		got, err := decodeLocation(key, v)
		if err != nil || got != l {
			t.Fatalf("%+v, %v", got, err)
		}
		storetest.EveryFlip(t, v, func(v []byte) error { _, err := decodeLocation(key, v); return err })
		if _, err := decodeLocation(other, v); !errors.Is(err, ErrDoubt) {
			t.Errorf("the value of another chunk: %v", err)
		}
	}
	p := PackInfo{ID: packfile.ID{1}, State: packfile.StateSealed, Length: 5000, Totals: Totals{Records: 3, Stored: 300, Plain: 400}}
	v = encodePackInfo(7, p)
	no, q, err := decodePackInfo(packKey(7), v)
	if err != nil || no != 7 || q.ID != p.ID || q.Length != p.Length || q.Totals != p.Totals || q.SavedTo != p.Length {
		t.Fatalf("%d, %+v, %v", no, q, err)
	}
	storetest.EveryFlip(t, v, func(v []byte) error { _, _, err := decodePackInfo(packKey(7), v); return err })
}

func TestCheckBoltAcceptsWhatBoltWrites(t *testing.T) {
	for _, n := range []int{0, 1, 30, 300, 5000} {
		b := boltBytes(t, n)
		if err := checkBolt(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Errorf("%d chunks: %v", n, err)
		}
	}
}

// TestCheckBoltFindsDamage changes one byte at a time: either the damage is
// found, or everything can be read as it was.
func TestCheckBoltFindsDamage(t *testing.T) {
	dir := t.TempDir()
	want := fillBolt(t, dir, 500)
	whole, err := os.ReadFile(filepath.Join(dir, FileName))
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(1, 2))
	found := 0
	const rounds = 300
	for range rounds {
		b := slices.Clone(whole)
		// One meta page may be bad: the other one is what bbolt falls back to
		// after a power cut, and what it lacks is learned from the packs.
		at := 2*os.Getpagesize() + r.IntN(len(b)-2*os.Getpagesize())
		b[at] ^= 1 << r.IntN(8)
		if checkBolt(bytes.NewReader(b), int64(len(b))) != nil {
			found++
			continue
		}
		c := openBytes(t, b)
		if c == nil {
			t.Fatalf("byte %d: accepted, but bbolt cannot open it", at)
		}
		got := make(map[chunkstore.Key]Location)
		if _, _, err := c.Scan(chunkstore.Key{}, 10_000, func(id chunkstore.Key, l Location) { got[id] = l }); err != nil {
			t.Fatalf("byte %d: accepted, but %v", at, err)
		}
		for id, l := range want {
			if g, ok, err := c.Get(id); err != nil || !ok || g != l || got[id] != l {
				t.Fatalf("byte %d: accepted, but chunk %s is %+v, %v, %v", at, id.ID.Short(), g, ok, err)
			}
		}
		if len(got) != len(want) {
			t.Fatalf("byte %d: accepted with %d chunks of %d", at, len(got), len(want))
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Most of the file is free pages and the space behind the last one.
	if found < rounds/20 {
		t.Errorf("damage was found in %d of %d rounds", found, rounds)
	}
}

// TestCheckBoltRefusesCycles points a branch to a page above itself, which
// makes bbolt recurse without an end.
func TestCheckBoltRefusesCycles(t *testing.T) {
	b := boltBytes(t, 5000)
	pageSize := os.Getpagesize()
	changed := 0
	for off := 2 * pageSize; off < len(b); off += pageSize {
		if binary.LittleEndian.Uint16(b[off+8:]) != boltBranch || binary.LittleEndian.Uint16(b[off+10:]) == 0 {
			continue
		}
		no := binary.LittleEndian.Uint64(b[off:])
		binary.LittleEndian.PutUint64(b[off+boltPageHeader+8:], no)
		changed++
	}
	if changed == 0 {
		t.Fatal("no branch page in the file")
	}
	if err := checkBolt(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrDoubt) {
		t.Errorf("got %v", err)
	}
}

// TestCheckBoltRefusesUsedFreePages puts a page in use onto the list of free
// ones: bbolt would write over it.
func TestCheckBoltRefusesUsedFreePages(t *testing.T) {
	b := boltBytes(t, 2000)
	pageSize := os.Getpagesize()
	m, err := readBoltMeta(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	list := b[int(m.freelist)*pageSize:]
	n := int(binary.LittleEndian.Uint16(list[10:]))
	if n == 0 {
		t.Fatal("no free pages")
	}
	binary.LittleEndian.PutUint64(list[boltPageHeader:], m.root)
	if err := checkBolt(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrDoubt) {
		t.Errorf("got %v", err)
	}
}

// TestCheckBoltRefusesBranchKeys changes a key in a branch so little that the order
// stays: bbolt would read everything, and write the page below it twice.
func TestCheckBoltRefusesBranchKeys(t *testing.T) {
	whole := boltBytes(t, 5000)
	pageSize := os.Getpagesize()
	m, err := readBoltMeta(bytes.NewReader(whole), int64(len(whole)))
	if err != nil {
		t.Fatal(err)
	}
	c := &boltChecker{r: bytes.NewReader(whole), pageSize: int64(pageSize), pages: m.next, seen: make([]bool, m.next)}
	if err := c.page(boltSpan{no: m.root}, c.bucket); err != nil {
		t.Fatal(err)
	}
	changed := 0
	for no, used := range c.seen {
		off := no * pageSize
		if !used || binary.LittleEndian.Uint16(whole[off+8:]) != boltBranch {
			continue
		}
		for i := 1; i < int(binary.LittleEndian.Uint16(whole[off+10:])); i++ {
			b := slices.Clone(whole)
			el := off + boltPageHeader + i*boltElement
			key := el + int(binary.LittleEndian.Uint32(b[el:]))
			for at := key + int(binary.LittleEndian.Uint32(b[el+4:])) - 1; ; at-- {
				if b[at]--; b[at] != 0xff {
					break // one less, as a number
				}
			}
			if err := checkBolt(bytes.NewReader(b), int64(len(b))); !errors.Is(err, ErrDoubt) {
				t.Fatalf("page at %d, key %d: %v", off, i, err)
			}
			changed++
		}
	}
	if changed == 0 {
		t.Fatal("no branch page in the file")
	}
}

// TestCheckBoltAcceptsEveryHistory puts and deletes in all sizes and orders.
func TestCheckBoltAcceptsEveryHistory(t *testing.T) {
	dir := t.TempDir()
	fillBolt(t, dir, 300)
	path := filepath.Join(dir, FileName)
	c, err := OpenFile(path, false, true)
	if err != nil {
		t.Fatal(err)
	}
	r := rand.New(rand.NewPCG(3, 4))
	for round := range 150 {
		chunks := NewTable()
		for range r.IntN(1 << r.IntN(10)) {
			chunks.Put(numbered7(r.IntN(6000)), Location{Pack: 1, Off: int64(64 + round), Stored: 100})
		}
		ch := Changes{Epoch: uint64(round), Chunks: chunks.Sorted()}
		if _, err := c.Commit(ch); err != nil {
			t.Fatal(err)
		}
		// Runs of keys, so that pages become empty, the first and the last among them.
		ch = Changes{Epoch: uint64(round)}
		from := chunkstore.Key{}
		if r.IntN(3) > 0 {
			from = numbered7(r.IntN(6000))
		}
		n := r.IntN(1 << r.IntN(12))
		if _, _, err := c.Scan(from, max(n, 1), func(k chunkstore.Key, _ Location) { ch.Deletes = append(ch.Deletes, k) }); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Commit(ch); err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		if err := checkBolt(bytes.NewReader(b), int64(len(b))); err != nil {
			t.Fatalf("round %d: %v", round, err)
		}
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}

// TestPanicInBolt damages a catalogue under an open store: what bbolt panics
// on comes back as an error, also for a file cut short, which is a fault of
// the memory mapping.
func TestPanicInBolt(t *testing.T) {
	for name, damage := range map[string]func(t *testing.T, path string, size int64){
		"pages zeroed": func(t *testing.T, path string, size int64) {
			f, err := os.OpenFile(path, os.O_WRONLY, 0)
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			if _, err := f.WriteAt(make([]byte, size-8192), 8192); err != nil {
				t.Fatal(err)
			}
		},
		"file cut short": func(t *testing.T, path string, _ int64) {
			if err := os.Truncate(path, 8192); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			want := fillBolt(t, dir, 5000)
			path := filepath.Join(dir, FileName)
			c, err := OpenFile(path, false, false)
			if err != nil {
				t.Fatal(err)
			}
			st, err := os.Stat(path)
			if err != nil {
				t.Fatal(err)
			}
			damage(t, path, st.Size())
			for id := range want {
				if _, _, err := c.Get(id); !errors.Is(err, ErrDoubt) {
					t.Fatalf("got %v", err)
				}
			}
			if _, err := c.Commit(Changes{}); !errors.Is(err, ErrDoubt) {
				t.Errorf("commit: %v", err)
			}
			if err := c.Close(); err != nil {
				t.Errorf("close: %v", err)
			}
			// The next one is not kept out by the lock of this one.
			_ = os.Remove(path)
			fillBolt(t, dir, 3)
		})
	}
}

func TestCommitMerge(t *testing.T) {
	dir := t.TempDir()
	fillBolt(t, dir, 0)
	c, err := OpenFile(filepath.Join(dir, FileName), false, false)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	id := chunkstore.Key{ID: chunkstore.ID{1}}
	for _, tc := range []struct {
		rank     uint32
		off      int64
		merge    bool
		want     int64
		repeated uint64
	}{
		{0, 100, true, 100, 0},
		{0, 200, true, 100, 1},
		{1, 300, true, 300, 1},
		{0, 400, true, 300, 1},
		{0, 500, false, 500, 0},
	} {
		n, err := c.Commit(Changes{Merge: tc.merge, Chunks: []Held{{id, Location{Off: tc.off, Rank: tc.rank, Stored: 20}}}})
		if err != nil || n != tc.repeated {
			t.Fatalf("%d, %v", n, err)
		}
		if l, ok, err := c.Get(id); err != nil || !ok || l.Off != tc.want {
			t.Errorf("after %+v the chunk is at %d", tc, l.Off)
		}
	}
}

// TestIndexAgainstModel is bug museum M20: many operations on the index beside
// a map, with small batches, reopenings and rebuilds in between.
func TestIndexAgainstModel(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	dir := t.TempDir()
	fillBolt(t, dir, 0)
	path := filepath.Join(dir, FileName)
	c, err := OpenFile(path, false, true)
	if err != nil {
		t.Fatal(err)
	}
	want := make(map[chunkstore.Key]Location)
	id := func() chunkstore.Key {
		return chunkstore.Key{ID: crypto.Sum([]byte(fmt.Sprint(r.IntN(20_000)))), Owner: chunkstore.Owner{byte(r.IntN(2))}}
	}
	for round := range 40 {
		chunks := NewTable()
		ch := Changes{}
		for range r.IntN(1500) {
			chunks.Put(id(), Location{Pack: r.Uint32(), Off: packfile.HeaderSize + r.Int64N(1<<30), Stored: uint32(r.IntN(1 << 20)), Rank: r.Uint32()})
		}
		for range r.IntN(300) {
			x := id()
			ch.Deletes = append(ch.Deletes, x)
			delete(want, x)
		}
		chunks.Each(func(h Held) { want[h.Key] = h.Location })
		ch.Chunks = chunks.Sorted()
		if _, err := c.Commit(ch); err != nil {
			t.Fatal(err)
		}
		for range 500 {
			x := id()
			l, ok, err := c.Get(x)
			if w, there := want[x]; err != nil || ok != there || l != w {
				t.Fatalf("round %d: %+v, %v, %v; want %+v, %v", round, l, ok, err, w, there)
			}
		}
		if round%20 == 10 {
			if err := c.Close(); err != nil {
				t.Fatal(err)
			}
			if err := checkCatalogue(dir); err != nil {
				t.Fatal(err)
			}
			if c, err = OpenFile(path, false, true); err != nil {
				t.Fatal(err)
			}
		}
	}
	n := 0
	if _, done, err := c.Scan(chunkstore.Key{}, 1<<20, func(x chunkstore.Key, l Location) {
		n++
		if want[x] != l {
			t.Errorf("chunk %s differs", x.ID.Short())
		}
	}); err != nil || !done || n != len(want) {
		t.Errorf("%d of %d chunks, %v", n, len(want), err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
}
