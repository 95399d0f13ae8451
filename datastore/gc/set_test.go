package gc

import (
	"math/rand/v2"
	"testing"

	"holdfast/chunkstore"
)

func randomKey(r *rand.Rand) chunkstore.StandIn {
	return chunkstore.StandIn{Hi: r.Uint64(), Lo: r.Uint64()}
}

func TestSetIsAMap(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	var s set
	want := map[chunkstore.StandIn]bool{}
	if s.has(chunkstore.StandIn{Hi: 1}) || s.has(chunkstore.StandIn{}) {
		t.Error("an empty set has something")
	}
	for round := range 200 {
		var keys []chunkstore.StandIn
		for range r.IntN(400) {
			id := randomKey(r)
			switch r.IntN(8) {
			case 0:
				id.Hi = 0 // collides in the first slot
			case 1:
				id = chunkstore.StandIn{}
			}
			want[id] = true
			keys = append(keys, id, id)
		}
		s.add(keys)
		if round%20 != 0 {
			continue
		}
		for id := range want {
			if !s.has(id) {
				t.Fatalf("%v was added and is not there", id)
			}
		}
	}
	for range 10000 {
		if id := randomKey(r); s.has(id) != want[id] {
			t.Fatalf("%v is there and was not added", id)
		}
	}
}

func BenchmarkSetAdd(b *testing.B) {
	r := rand.New(rand.NewPCG(1, 2))
	keys := make([]chunkstore.StandIn, 1<<20)
	for i := range keys {
		keys[i] = chunkstore.StandIn{Hi: r.Uint64(), Lo: r.Uint64()}
	}
	var s set
	b.ResetTimer()
	for i := 0; i < b.N; i += 4096 {
		at := i & (len(keys) - 1)
		s.add(keys[at : at+4096])
	}
}
