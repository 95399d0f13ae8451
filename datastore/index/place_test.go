package index_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
)

const placeChunk = 4096

func placeWriter(t *testing.T, size uint64) (*index.Writer, *memFile) {
	t.Helper()
	f := &memFile{}
	w, err := index.NewWriter(f, index.Options{Kind: index.Fixed, Size: size, ChunkSize: placeChunk, Grow: size == 0})
	if err != nil {
		t.Fatal(err)
	}
	return w, f
}

// sized returns n entries of an image whose last chunk has last bytes.
func sized(n int, last uint32) []index.Entry {
	sizes := make([]uint32, n)
	for i := range sizes {
		sizes[i] = placeChunk
	}
	sizes[n-1] = last
	return chunks(sizes...)
}

func TestWriteAtGivesWhatAppendGives(t *testing.T) {
	entries := sized(5000, 17)
	size := uint64(4999*placeChunk + 17)
	want, wantSum := write(t, index.Options{Kind: index.Fixed, Size: size, ChunkSize: placeChunk}, entries)
	for name, known := range map[string]uint64{"known size": size, "growing": 0} {
		w, f := placeWriter(t, known)
		order := rand.New(rand.NewPCG(1, 2)).Perm(len(entries))
		wrong := entries[7]
		wrong.ID[0] ^= 1
		if err := w.WriteAt(wrong); err != nil {
			t.Fatal(err)
		}
		for _, i := range order {
			if err := w.WriteAt(entries[i]); err != nil {
				t.Fatalf("%s: entry %d: %v", name, i, err)
			}
		}
		sum, err := w.Close()
		if err != nil || sum != wantSum {
			t.Fatalf("%s: %+v %v, want %+v", name, sum, err, wantSum)
		}
		if !bytes.Equal(f.data, want) {
			t.Errorf("%s: the files differ", name)
		}
	}
}

func TestWriteAtReplacesWhatWasAppended(t *testing.T) {
	entries := sized(3, 1)
	w, f := placeWriter(t, 2*placeChunk+1)
	if err := w.Append(entries...); err != nil {
		t.Fatal(err)
	}
	changed := entries[1]
	changed.ID[3] ^= 0xff
	if err := w.WriteAt(changed); err != nil {
		t.Fatal(err)
	}
	if err := w.Append(entries[2]); err != nil { // the same as WriteAt now
		t.Fatal(err)
	}
	sum, err := w.Close()
	if err != nil || sum.Count != 3 {
		t.Fatalf("close: %+v %v", sum, err)
	}
	got, err := open(t, f.data, index.Fixed).At(1)
	if err != nil || got != changed {
		t.Errorf("entry 1 is %+v, %v", got, err)
	}
}

func TestWriteAtRefuses(t *testing.T) {
	id := chunkstore.ID{1}
	for name, c := range map[string]struct {
		size   uint64
		before []index.Entry
		e      index.Entry
	}{
		"not aligned":                {size: 3 * placeChunk, e: index.Entry{Off: 1, Size: placeChunk, ID: id}},
		"behind the end":             {size: 3 * placeChunk, e: index.Entry{Off: 3 * placeChunk, Size: placeChunk, ID: id}},
		"short in the middle":        {size: 3 * placeChunk, e: index.Entry{Off: placeChunk, Size: 5, ID: id}},
		"long at the end":            {size: placeChunk + 5, e: index.Entry{Off: placeChunk, Size: placeChunk, ID: id}},
		"no id":                      {size: 3 * placeChunk, e: index.Entry{Size: placeChunk}},
		"no size":                    {size: 3 * placeChunk, e: index.Entry{ID: id}},
		"offset out of range":        {size: 3 * placeChunk, e: index.Entry{Off: 1<<63 - placeChunk, Size: placeChunk, ID: id}},
		"growing: too long":          {e: index.Entry{Size: placeChunk + 1, ID: id}},
		"growing: short in between":  {before: sized(2, placeChunk), e: index.Entry{Size: 5, ID: id}},
		"growing: behind the short":  {before: sized(2, 5), e: index.Entry{Off: 2 * placeChunk, Size: placeChunk, ID: id}},
		"growing: a second short":    {before: sized(2, 5), e: index.Entry{Off: placeChunk, Size: 6, ID: id}},
		"growing: long at the short": {before: sized(2, 5), e: index.Entry{Off: placeChunk, Size: placeChunk, ID: id}},
	} {
		w, _ := placeWriter(t, c.size)
		if err := w.WriteAt(c.before...); err != nil {
			t.Fatalf("%s: before: %v", name, err)
		}
		if err := w.WriteAt(c.e); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWriteAtFindsWhatIsMissing(t *testing.T) {
	entries := sized(4, placeChunk)
	for name, c := range map[string]struct {
		size uint64
		put  []index.Entry
	}{
		"first":          {4 * placeChunk, entries[1:]},
		"middle":         {4 * placeChunk, []index.Entry{entries[3], entries[0], entries[1]}},
		"last":           {4 * placeChunk, entries[:3]},
		"far away":       {1 << 60, entries},
		"growing":        {0, entries[1:]},
		"growing, empty": {0, nil},
	} {
		w, f := placeWriter(t, c.size)
		if err := w.WriteAt(c.put...); err != nil {
			t.Fatal(err)
		}
		if _, err := w.Close(); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%s: closed: %v", name, err)
		}
		if _, err := index.Open(bytes.NewReader(f.data), int64(len(f.data)), index.Fixed); err == nil {
			t.Errorf("%s: it can be opened", name)
		}
	}
}

func TestWriteAtNeedsAFixedIndexAndAFileToReadBack(t *testing.T) {
	e := sized(1, placeChunk)[0]
	w, err := index.NewWriter(&memFile{}, index.Options{Kind: index.Dynamic})
	if err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(e); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("dynamic: %v", err)
	}
	only := struct{ io.WriterAt }{&memFile{}}
	if w, err = index.NewWriter(only, index.Options{Kind: index.Fixed, Size: placeChunk, ChunkSize: placeChunk}); err != nil {
		t.Fatal(err)
	}
	if err := w.WriteAt(e); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("write only: %v", err)
	}
	for _, o := range []index.Options{
		{Kind: index.Dynamic, Grow: true},
		{Kind: index.Fixed, Grow: true, Size: 5, ChunkSize: placeChunk},
		{Kind: index.Fixed, Grow: true, ChunkSize: 5},
	} {
		if _, err := index.NewWriter(&memFile{}, o); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%+v: %v", o, err)
		}
	}
}

func TestWriteAtBrokenFile(t *testing.T) {
	w, f := placeWriter(t, 2*placeChunk)
	entries := sized(2, placeChunk)
	if err := w.WriteAt(entries...); err != nil {
		t.Fatal(err)
	}
	f.broken = errors.New("broken")
	if _, err := w.Close(); !errors.Is(err, f.broken) {
		t.Errorf("close: %v", err)
	}
	if err := w.WriteAt(entries...); err == nil {
		t.Error("written after close")
	}
}
