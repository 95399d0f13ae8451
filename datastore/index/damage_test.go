package index_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
)

func TestOpenRefuses(t *testing.T) {
	vs := loadVectors(t)
	fixed, dynamic := vs[0].file, vs[1].file
	put := func(file []byte, off int, v uint64) []byte {
		out := bytes.Clone(file)
		binary.LittleEndian.PutUint64(out[off:], v)
		return out
	}
	for _, c := range []struct {
		name string
		kind index.Kind
		file []byte
		want string
	}{
		{"empty file", index.Dynamic, nil, "0 bytes are too few"},
		{"header only", index.Dynamic, dynamic[:4096], "4096 bytes are too few"},
		{"header only, fixed", index.Fixed, fixed[:4096], "4096 bytes are too few"},
		{"magic", index.Dynamic, put(dynamic, 0, 7), "magic 0700000000000000 at byte 0"},
		{"other kind", index.Fixed, dynamic, "at byte 0"},
		{"other kind, fixed", index.Dynamic, fixed, "at byte 0"},
		{"half a record", index.Dynamic, dynamic[:len(dynamic)-1], "not a multiple of 40"},
		{"half a record, fixed", index.Fixed, fixed[:len(fixed)-1], "not a multiple of 32"},
		{"record missing", index.Fixed, fixed[:len(fixed)-32], "2 entries, an image of 8389608 bytes in chunks of 4194304 has 3"},
		{"record too many", index.Fixed, append(bytes.Clone(fixed), fixed[4096:4128]...), "4 entries"},
		{"size of zero", index.Fixed, put(fixed, 64, 0), "byte 64: image size 0"},
		{"absurd size", index.Fixed, put(fixed, 64, math.MaxUint64), "byte 64: image size"},
		{"chunk size of zero", index.Fixed, put(fixed, 72, 0), "chunk size 0"},
		{"odd chunk size", index.Fixed, put(fixed, 72, 4194303), "chunk size 4194303"},
		{"absurd chunk size", index.Fixed, put(fixed, 72, 1<<63), "chunk size"},
		{"absurd end", index.Dynamic, put(dynamic, 4096+80, math.MaxUint64), "of the last of 3 entries at byte 4176"},
		{"end beyond the largest chunks", index.Dynamic, put(dynamic, 4096+80, 3*16<<20+1), "out of range"},
		{"end below the count", index.Dynamic, put(dynamic, 4096+80, 2), "end offset 2"},
	} {
		_, err := index.Open(bytes.NewReader(c.file), int64(len(c.file)), c.kind)
		if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", c.name, err, c.want)
		}
	}
	if _, err := index.Open(bytes.NewReader(dynamic), int64(len(dynamic)), 0); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("no kind: %v", err)
	}
	// The file is shorter than it was said to be.
	if _, err := index.Open(bytes.NewReader(dynamic), int64(len(dynamic))+40, index.Dynamic); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("wrong size: %v", err)
	}
	if _, err := index.Open(&memFile{broken: io.ErrClosedPipe}, 5000*40, index.Dynamic); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("broken file: %v", err)
	}
}

func TestReaderFindsDamage(t *testing.T) {
	entries := many(4000)
	good, _ := write(t, index.Options{Kind: index.Dynamic}, entries)
	rec := func(i int) int { return 4096 + 40*i }
	for name, c := range map[string]struct {
		damage func(file []byte)
		entry  int
	}{
		"end not increasing": {func(f []byte) { copy(f[rec(3000):rec(3000)+8], f[rec(2999):]) }, 3000},
		"end beyond all":     {func(f []byte) { binary.LittleEndian.PutUint64(f[rec(3000):], 1<<62) }, 3000},
		"end of zero":        {func(f []byte) { binary.LittleEndian.PutUint64(f[rec(3000):], 0) }, 3000},
		"first end of zero":  {func(f []byte) { binary.LittleEndian.PutUint64(f[rec(0):], 0) }, 0},
		"chunk too large":    {func(f []byte) { binary.LittleEndian.PutUint64(f[rec(1):], entries[1].Off+17<<20) }, 1},
		"zero id":            {func(f []byte) { clear(f[rec(3999)+8 : rec(4000)]) }, 3999},
	} {
		file := bytes.Clone(good)
		c.damage(file)
		r := open(t, file, index.Dynamic)
		want := fmt.Sprintf("index entry %d at byte %d", c.entry, rec(c.entry))
		if _, err := r.At(int64(c.entry)); !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: at: %v", name, err)
		}
		got, err := collect(r, 0)
		if !errors.Is(err, chunkstore.ErrCorrupt) || !strings.Contains(err.Error(), want) || len(got) != c.entry {
			t.Errorf("%s: all: %d entries, %v", name, len(got), err)
		}
		if _, err := r.Summary(); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: summary: %v", name, err)
		}
		if n, err := r.Find(entries[c.entry].Off); err == nil {
			// Where damage misleads the search, it must not answer wrongly.
			if e, err := r.At(n); err != nil || entries[c.entry].Off < e.Off || entries[c.entry].Off >= e.Off+uint64(e.Size) {
				t.Errorf("%s: find: entry %d, %v", name, n, err)
			}
		} else if !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("%s: find: %v", name, err)
		}
	}
}

// TestReaderFileEnds cuts the file after it was opened.
func TestReaderFileEnds(t *testing.T) {
	file, _ := write(t, index.Options{Kind: index.Dynamic}, many(4000))
	f := &memFile{data: file}
	r, err := index.Open(f, int64(len(file)), index.Dynamic)
	if err != nil {
		t.Fatal(err)
	}
	f.data = file[:4096+40*3000+7]
	if _, err := r.At(3000); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("at: %v", err)
	}
	if got, err := collect(r, 0); !errors.Is(err, chunkstore.ErrCorrupt) || len(got) > 3000 {
		t.Errorf("all: %d entries, %v", len(got), err)
	}
	f.broken = io.ErrClosedPipe
	if _, err := r.Find(5); !errors.Is(err, io.ErrClosedPipe) || errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("find in a broken file: %v", err)
	}
	if _, err := collect(r, 5); !errors.Is(err, io.ErrClosedPipe) {
		t.Errorf("all of a broken file: %v", err)
	}
	if err := r.Close(); err != nil || f.closed != 1 {
		t.Errorf("close: %v, %d times", err, f.closed)
	}
	if err := open(t, file, index.Dynamic).Close(); err != nil {
		t.Errorf("close what cannot be closed: %v", err)
	}
}

func fuzz(f *testing.F, kind index.Kind) {
	for _, v := range loadVectors(f) {
		if v.o.Kind == kind {
			f.Add(v.file)
		}
	}
	file, _ := write(f, index.Options{Kind: index.Dynamic}, many(20))
	f.Add(file)
	f.Fuzz(func(t *testing.T, file []byte) {
		r, err := index.Open(bytes.NewReader(file), int64(len(file)), kind)
		if err != nil {
			if !errors.Is(err, chunkstore.ErrCorrupt) {
				t.Fatalf("open: error without ErrCorrupt: %v", err)
			}
			return
		}
		entries, err := collect(r, 0)
		if err != nil {
			if !errors.Is(err, chunkstore.ErrCorrupt) {
				t.Fatalf("all: error without ErrCorrupt: %v", err)
			}
			return
		}
		checkReads(t, r, entries)
		// What can be read can be written again.
		o := index.Options{Kind: kind, UUID: [16]byte(file[8:]), Ctime: int64(binary.LittleEndian.Uint64(file[24:]))}
		if kind == index.Fixed {
			o.Size, o.ChunkSize = r.Size(), r.ChunkSize()
		}
		again, sum := write(t, o, entries)
		if !bytes.Equal(again[4096:], file[4096:]) {
			t.Fatal("records are not written as they were read")
		}
		if got, err := r.Summary(); err != nil || got != sum {
			t.Fatalf("summary: %+v, %v, want %+v", got, err, sum)
		}
	})
}

func FuzzOpenDynamic(f *testing.F) { fuzz(f, index.Dynamic) }

func FuzzOpenFixed(f *testing.F) { fuzz(f, index.Fixed) }
