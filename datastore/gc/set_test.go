package gc

import (
	"math/rand/v2"
	"testing"

	"holdfast/chunkstore"
)

func randomID(r *rand.Rand) (id chunkstore.ID) {
	for i := range id {
		id[i] = byte(r.Uint32())
	}
	return id
}

func TestSetIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s set
	want := map[chunkstore.ID]bool{}
	if s.has(chunkstore.ID{1}) || s.has(chunkstore.ID{}) {
		t.Error("an empty set has something")
	}
	for round := range 200 {
		var keys []key
		for range r.IntN(400) {
			id := randomID(r)
			switch r.IntN(8) {
			case 0:
				clear(id[:8]) // collides in the first slot
			case 1:
				clear(id[:16])
			}
			want[id] = true
			keys = append(keys, keyOf(id), keyOf(id))
		}
		s.add(keys)
		if round%20 != 0 {
			continue
		}
		for id := range want {
			if !s.has(id) {
				t.Fatalf("%s was added and is not there", id)
			}
		}
	}
	for range 10000 {
		if id := randomID(r); s.has(id) != want[id] {
			t.Fatalf("%s is there and was not added", id)
		}
	}
}

func BenchmarkSetAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	keys := make([]key, 1<<20)
	for i := range keys {
		keys[i] = key{r.Uint64(), r.Uint64()}
	}
	var s set
	b.ResetTimer()
	for i := 0; i < b.N; i += 4096 {
		at := i & (len(keys) - 1)
		s.add(keys[at : at+4096])
	}
}
