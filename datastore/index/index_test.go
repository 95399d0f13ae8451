package index_test

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/index"
	"holdfast/tests/vectors"
)

// memFile is a file in memory. Writes fail once it is broken.
type memFile struct {
	data   []byte
	broken error
	closed int
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	if f.broken != nil {
		return 0, f.broken
	}
	if end := int(off) + len(p); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	if f.broken != nil {
		return 0, f.broken
	}
	return bytes.NewReader(f.data).ReadAt(p, off)
}

func (f *memFile) Close() error { f.closed++; return nil }

func open(tb testing.TB, file []byte, kind index.Kind) *index.Reader {
	tb.Helper()
	r, err := index.Open(bytes.NewReader(file), int64(len(file)), kind)
	if err != nil {
		tb.Fatal(err)
	}
	return r
}

// write makes an index file of the entries.
func write(tb testing.TB, o index.Options, entries []index.Entry) ([]byte, index.Summary) {
	tb.Helper()
	var f memFile
	w, err := index.NewWriter(&f, o)
	if err != nil {
		tb.Fatal(err)
	}
	if err := w.Append(entries...); err != nil {
		tb.Fatal(err)
	}
	sum, err := w.Close()
	if err != nil {
		tb.Fatal(err)
	}
	return f.data, sum
}

// chunks returns contiguous entries of those sizes.
func chunks(sizes ...uint32) []index.Entry {
	var off uint64
	entries := make([]index.Entry, len(sizes))
	for i, size := range sizes {
		id := crypto.Sum(fmt.Appendf(nil, "chunk %d", i))
		entries[i] = index.Entry{Off: off, Size: size, ID: id}
		off += uint64(size)
	}
	return entries
}

// many returns n contiguous entries of various sizes.
func many(n int) []index.Entry {
	sizes := make([]uint32, n)
	for i := range sizes {
		sizes[i] = uint32(1 + i*7919%100_000)
	}
	return chunks(sizes...)
}

func collect(r *index.Reader, from int64) ([]index.Entry, error) {
	var out []index.Entry
	for e, err := range r.All(from) {
		if err != nil {
			return out, err
		}
		out = append(out, e)
	}
	return out, nil
}

type fixedVector struct {
	UUID      vectors.Hex
	Ctime     int64
	Size      uint64
	ChunkSize uint64 `json:"chunk_size"`
	Digests   []vectors.Hex
	Csum      vectors.Hex `json:"index_csum"`
	File      vectors.Hex
	FileSum   vectors.Hex `json:"file_sha256"`
	Ranges    [][2]uint64 `json:"chunk_ranges"`
}

type dynamicVector struct {
	UUID    vectors.Hex
	Ctime   int64
	Records []struct {
		End    uint64
		Digest vectors.Hex
	}
	Size    uint64      `json:"manifest_size"`
	Csum    vectors.Hex `json:"index_csum"`
	File    vectors.Hex
	FileSum vectors.Hex `json:"file_sha256"`
}

// vector is an index of either kind.
type vector struct {
	o       index.Options
	entries []index.Entry
	sum     index.Summary
	file    []byte
}

func loadVectors(tb testing.TB) []vector {
	tb.Helper()
	var out []vector
	var fixed []fixedVector
	vectors.Section(tb, "fixed_index", &fixed)
	for _, f := range fixed {
		v := vector{
			o:    index.Options{Kind: index.Fixed, Size: f.Size, ChunkSize: f.ChunkSize, UUID: [16]byte(f.UUID), Ctime: f.Ctime},
			sum:  index.Summary{Csum: [32]byte(f.Csum), Size: f.Size, Count: uint64(len(f.Digests))},
			file: f.File,
		}
		for i, d := range f.Digests {
			start, end := f.Ranges[i][0], f.Ranges[i][1]
			v.entries = append(v.entries, index.Entry{Off: start, Size: uint32(end - start), ID: chunkstore.ID(d)})
		}
		out = append(out, v)
	}
	var dynamic []dynamicVector
	vectors.Section(tb, "dynamic_index", &dynamic)
	for _, d := range dynamic {
		v := vector{
			o:    index.Options{Kind: index.Dynamic, UUID: [16]byte(d.UUID), Ctime: d.Ctime},
			sum:  index.Summary{Csum: [32]byte(d.Csum), Size: d.Size, Count: uint64(len(d.Records))},
			file: d.File,
		}
		var start uint64
		for _, r := range d.Records {
			v.entries = append(v.entries, index.Entry{Off: start, Size: uint32(r.End - start), ID: chunkstore.ID(r.Digest)})
			start = r.End
		}
		out = append(out, v)
	}
	if len(fixed) == 0 || len(dynamic) == 0 {
		tb.Fatal("no vectors")
	}
	return out
}

func TestVectors(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.o.Kind.String(), func(t *testing.T) {
			file, sum := write(t, v.o, v.entries)
			if !bytes.Equal(file, v.file) {
				t.Errorf("wrote\n%x\nwant\n%x", file, v.file)
			}
			if sum != v.sum {
				t.Errorf("wrote %+v, want %+v", sum, v.sum)
			}
			r := open(t, v.file, v.o.Kind)
			if r.Kind() != v.o.Kind || r.Size() != v.sum.Size || r.ChunkSize() != v.o.ChunkSize {
				t.Errorf("kind %v, size %d, chunk size %d", r.Kind(), r.Size(), r.ChunkSize())
			}
			if sum, err := r.Summary(); err != nil || sum != v.sum {
				t.Errorf("read %+v, %v, want %+v", sum, err, v.sum)
			}
			checkReads(t, r, v.entries)
		})
	}
}

func TestVectorsMagics(t *testing.T) {
	var magics map[string]struct{ Hex vectors.Hex }
	vectors.Section(t, "magics", &magics)
	for _, v := range loadVectors(t) {
		file, _ := write(t, v.o, v.entries)
		if want := magics[v.o.Kind.String()+"_index"].Hex; !bytes.Equal(file[:8], want) {
			t.Errorf("%v: magic %x, want %x", v.o.Kind, file[:8], want)
		}
	}
}

// checkReads reads the entries in every way there is.
func checkReads(t *testing.T, r *index.Reader, want []index.Entry) {
	t.Helper()
	if r.Count() != int64(len(want)) {
		t.Fatalf("%d entries, want %d", r.Count(), len(want))
	}
	for i, w := range want {
		if e, err := r.At(int64(i)); err != nil || e != w {
			t.Fatalf("entry %d is %+v, %v, want %+v", i, e, err, w)
		}
		for _, off := range []uint64{w.Off, w.Off + uint64(w.Size) - 1, w.Off + uint64(w.Size)/2} {
			if n, err := r.Find(off); err != nil || n != int64(i) {
				t.Fatalf("offset %d is in entry %d, %v, want %d", off, n, err, i)
			}
		}
	}
	for _, from := range []int{0, 1, len(want) / 2, len(want) - 1, len(want)} {
		got, err := collect(r, int64(from))
		if err != nil || len(got) != len(want)-from {
			t.Fatalf("all from %d: %d entries, %v", from, len(got), err)
		}
		for i, e := range got {
			if e != want[from+i] {
				t.Fatalf("all from %d: entry %d is %+v", from, from+i, e)
			}
		}
	}
	for _, bad := range []int64{-1, int64(len(want)), math.MinInt64, math.MaxInt64} {
		if _, err := r.At(bad); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("entry %d: %v", bad, err)
		}
	}
	for _, bad := range []int64{-1, int64(len(want)) + 1} {
		if _, err := collect(r, bad); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("all from %d: %v", bad, err)
		}
	}
	for _, bad := range []uint64{r.Size(), math.MaxUint64} {
		if _, err := r.Find(bad); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("find %d: %v", bad, err)
		}
	}
}

func TestRoundTripDynamic(t *testing.T) {
	// 1638 and 1639 records are one buffer and a little more.
	for _, n := range []int{1, 2, 1637, 1638, 1639, 5000} {
		entries := many(n)
		file, sum := write(t, index.Options{Kind: index.Dynamic}, entries)
		if len(file) != 4096+40*n {
			t.Errorf("%d entries: file of %d bytes", n, len(file))
		}
		r := open(t, file, index.Dynamic)
		checkReads(t, r, entries)
		if got, err := r.Summary(); err != nil || got != sum {
			t.Errorf("%d entries: summary %+v, %v", n, got, err)
		}
	}
}

func TestRoundTripFixed(t *testing.T) {
	for _, c := range []struct {
		full int
		tail uint32
	}{{0, 1}, {1, 0}, {1, 5}, {3, 4095}, {2047, 0}, {2048, 0}, {2049, 17}} {
		sizes := make([]uint32, 0, c.full+1)
		for range c.full {
			sizes = append(sizes, 4096)
		}
		if c.tail > 0 {
			sizes = append(sizes, c.tail)
		}
		entries := chunks(sizes...)
		o := index.Options{Kind: index.Fixed, ChunkSize: 4096, Size: uint64(4096*c.full) + uint64(c.tail)}
		file, sum := write(t, o, entries)
		r := open(t, file, index.Fixed)
		checkReads(t, r, entries)
		if got, err := r.Summary(); err != nil || got != sum || got.Size != o.Size {
			t.Errorf("%+v: summary %+v, %v", c, got, err)
		}
	}
}

func TestCheckStated(t *testing.T) {
	for _, v := range loadVectors(t) {
		file, sum := write(t, v.o, v.entries)
		if err := open(t, file, v.o.Kind).CheckStated(sum.Csum); err != nil {
			t.Errorf("%v: %v", v.o.Kind, err)
		}
		for _, at := range []int{32, 63} {
			b := bytes.Clone(file)
			b[at] ^= 1
			r := open(t, b, v.o.Kind)
			if err := r.CheckStated(sum.Csum); !errors.Is(err, chunkstore.ErrCorrupt) {
				t.Errorf("%v, byte %d: %v", v.o.Kind, at, err)
			}
			checkReads(t, r, v.entries)
		}
	}
}

func TestSummer(t *testing.T) {
	for _, v := range loadVectors(t) {
		s := index.NewSummer(v.o.Kind)
		if got := s.Summary(); got.Csum != crypto.Sum(nil) || got.Count != 0 || got.Size != 0 {
			t.Errorf("%v: of nothing: %+v", v.o.Kind, got)
		}
		for _, e := range v.entries {
			s.Add(e)
			s.Summary() // may be asked at any time
		}
		if got := s.Summary(); got != v.sum {
			t.Errorf("%v: %+v, want %+v", v.o.Kind, got, v.sum)
		}
	}
}

func TestNewWriterRefuses(t *testing.T) {
	for name, o := range map[string]index.Options{
		"no kind":                 {},
		"dynamic with size":       {Kind: index.Dynamic, Size: 1},
		"dynamic with chunk size": {Kind: index.Dynamic, ChunkSize: 4096},
		"empty image":             {Kind: index.Fixed, ChunkSize: 4096},
		"no chunk size":           {Kind: index.Fixed, Size: 1},
		"odd chunk size":          {Kind: index.Fixed, Size: 1, ChunkSize: 4095},
		"large chunk size":        {Kind: index.Fixed, Size: 1, ChunkSize: 32 << 20},
		"huge image":              {Kind: index.Fixed, Size: math.MaxInt64 + 1, ChunkSize: 4096},
	} {
		if _, err := index.NewWriter(&memFile{}, o); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestAppendRefuses(t *testing.T) {
	id := chunkstore.ID{1}
	fixed := index.Options{Kind: index.Fixed, Size: 10, ChunkSize: 4}
	dynamic := index.Options{Kind: index.Dynamic}
	for _, c := range []struct {
		name string
		o    index.Options
		e    index.Entry
		want string
	}{
		{"gap", dynamic, index.Entry{Off: 1, Size: 1, ID: id}, "entry 0 at offset 1"},
		{"empty chunk", dynamic, index.Entry{ID: id}, "chunk size 0"},
		{"large chunk", dynamic, index.Entry{Size: 16<<20 + 1, ID: id}, "chunk size 16777217"},
		{"zero id", dynamic, index.Entry{Size: 1}, "chunk id is zero"},
		{"far away", dynamic, index.Entry{Off: math.MaxUint64, Size: 1, ID: id}, "too large"},
		{"short chunk", fixed, index.Entry{Size: 2, ID: id}, "chunk of 2 bytes, want 4"},
		{"long chunk", fixed, index.Entry{Size: 5, ID: id}, "chunk of 5 bytes, want 4"},
	} {
		var f memFile
		w, err := index.NewWriter(&f, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(c.e); !errors.Is(err, chunkstore.ErrInvalid) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
		if _, err := w.Close(); !errors.Is(err, chunkstore.ErrInvalid) || len(f.data) > 0 {
			t.Errorf("%s: close: %v, file of %d bytes", c.name, err, len(f.data))
		}
	}
}

// TestAppendAfterRefusal goes on after an entry that did not fit.
func TestAppendAfterRefusal(t *testing.T) {
	var f memFile
	w, err := index.NewWriter(&f, index.Options{Kind: index.Fixed, Size: 10, ChunkSize: 4})
	if err != nil {
		t.Fatal(err)
	}
	all := chunks(4, 4, 2)
	if err := w.Append(all[0], all[2]); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Fatalf("gap: %v", err)
	}
	if err := w.Append(all[1:]...); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(index.Entry{Off: 10, Size: 4, ID: all[0].ID}); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("behind the end: %v", err)
	}
	if _, err := w.Close(); err != nil {
		t.Fatal(err)
	}
	checkReads(t, open(t, f.data, index.Fixed), all)
	if err := w.Append(all[0]); err == nil {
		t.Error("append to a closed writer")
	}
	if _, err := w.Close(); err == nil {
		t.Error("close a closed writer")
	}
}

func TestCloseRefusesIncomplete(t *testing.T) {
	for name, c := range map[string]struct {
		o       index.Options
		entries []index.Entry
	}{
		"empty":        {index.Options{Kind: index.Dynamic}, nil},
		"empty, fixed": {index.Options{Kind: index.Fixed, Size: 10, ChunkSize: 4}, nil},
		"without end":  {index.Options{Kind: index.Fixed, Size: 10, ChunkSize: 4}, chunks(4, 4)},
	} {
		var f memFile
		w, err := index.NewWriter(&f, c.o)
		if err != nil {
			t.Fatal(err)
		}
		if err := w.Append(c.entries...); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
		if _, err := index.Open(&f, int64(len(f.data)), c.o.Kind); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: open: %v", name, err)
		}
	}
}

// TestWriteError breaks the file at each of its writes; no header may appear.
func TestWriteError(t *testing.T) {
	broken := errors.New("broken disk")
	var f memFile
	w, err := index.NewWriter(&f, index.Options{Kind: index.Dynamic})
	if err != nil {
		t.Fatal(err)
	}
	entries := many(4000)
	if err := w.Append(entries[:2000]...); err != nil {
		t.Fatal(err)
	}
	f.broken = broken
	if err := w.Append(entries[2000:]...); !errors.Is(err, broken) {
		t.Errorf("append: %v", err)
	}
	f.broken = nil
	if err := w.Append(entries[2000]); !errors.Is(err, broken) {
		t.Errorf("append after an error: %v", err)
	}
	if _, err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("close after an error: %v", err)
	}
	if _, err := index.Open(&f, int64(len(f.data)), index.Dynamic); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("open: %v", err)
	}

	f = memFile{}
	if w, err = index.NewWriter(&f, index.Options{Kind: index.Dynamic}); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(entries[0]); err != nil {
		t.Fatal(err)
	}
	f.broken = broken
	if _, err := w.Close(); !errors.Is(err, broken) {
		t.Errorf("close: %v", err)
	}
}

func TestAllStops(t *testing.T) {
	file, _ := write(t, index.Options{Kind: index.Dynamic}, many(4000))
	n := 0
	for range open(t, file, index.Dynamic).All(10) {
		if n++; n == 5 {
			break
		}
	}
	if n != 5 {
		t.Errorf("%d entries after a break at 5", n)
	}
}

func TestConcurrentReads(t *testing.T) {
	entries := many(3000)
	file, _ := write(t, index.Options{Kind: index.Dynamic}, entries)
	r := open(t, file, index.Dynamic)
	var wg sync.WaitGroup
	for g := range 4 {
		wg.Go(func() {
			for i := g; i < len(entries); i += 17 {
				if n, err := r.Find(entries[i].Off); err != nil || n != int64(i) {
					t.Errorf("find: %d, %v", n, err)
				}
			}
			if got, err := collect(r, int64(g)); err != nil || len(got) != len(entries)-g {
				t.Errorf("all: %d entries, %v", len(got), err)
			}
		})
	}
	wg.Wait()
}
