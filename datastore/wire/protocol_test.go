package wire

import (
	"errors"
	"slices"
	"testing"

	"holdfast/chunkstore"
)

func TestChunkSizes(t *testing.T) {
	want := []ChunkSize{{chunkstore.ID{1}, 1}, {chunkstore.ID{2}, chunkstore.PlainSizeMax}}
	var raw []byte
	for _, c := range want {
		raw = c.Append(raw)
	}
	got, err := ParseChunkSizes(raw)
	if err != nil || !slices.Equal(got, want) || len(raw) != 2*ChunkSizeLen {
		t.Errorf("%v, %v", got, err)
	}
	bad := [][]byte{
		raw[:35], raw[:37],
		ChunkSize{chunkstore.ID{}, 1}.Append(nil), ChunkSize{chunkstore.ID{1}, 0}.Append(nil), ChunkSize{chunkstore.ID{1}, chunkstore.PlainSizeMax + 1}.Append(nil),
	}
	for _, b := range bad {
		if _, err := ParseChunkSizes(b); !errors.Is(err, chunkstore.ErrInvalid) {
			t.Errorf("%x: %v", b, err)
		}
	}
}

func FuzzParseChunkSizes(f *testing.F) {
	f.Add(ChunkSize{chunkstore.ID{1}, 7}.Append(nil))
	f.Fuzz(func(t *testing.T, b []byte) {
		list, err := ParseChunkSizes(b)
		if err != nil {
			return
		}
		var again []byte
		for _, c := range list {
			again = c.Append(again)
		}
		if !slices.Equal(again, b) {
			t.Fatalf("%x became %x", b, again)
		}
	})
}
