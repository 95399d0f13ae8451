package pack

import (
	"os"
	"slices"
	"testing"

	"holdfast/chunkstore"
)

func keysOf(cs []chunkstore.Chunk) (keys []chunkstore.Key) {
	for _, c := range cs {
		keys = append(keys, c.Key())
	}
	return keys
}

func keepAll(t *testing.T, se chunkstore.Session, keys []chunkstore.Key) []int {
	t.Helper()
	rest, err := se.(chunkstore.Keeper).KeepAll(bg, keys)
	if err != nil {
		t.Fatal(err)
	}
	return rest
}

// TestKeepAllHolds: what a session was told of at once stays as what it was told of one
// by one does, wherever its entries are at that moment.
func TestKeepAllHolds(t *testing.T) {
	for name, sync := range map[string]bool{"in the catalogue": true, "not committed yet": false} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, create(t), smallPacks)
			cs := chunks(0, 40)
			other := begin(t, s)
			put(t, other, cs)
			if sync {
				if err := other.Sync(bg); err != nil {
					t.Fatal(err)
				}
			}
			se := begin(t, s)
			told := []chunkstore.Chunk{cs[30], cs[3], cs[7]}
			if rest := keepAll(t, se, keysOf(told)); len(rest) != 0 {
				t.Fatalf("not told of %v", rest)
			}
			if err := other.Close(); err != nil {
				t.Fatal(err)
			}
			for range 2 {
				s.sealDone.Wait()
				sweep(t, s, nothing, SweepOptions{Waste: 0.01})
				holdsAll(t, s, told)
			}
			absent(t, s, cs[10:20])
			if err := se.Close(); err != nil {
				t.Fatal(err)
			}
			s.sealDone.Wait()
			sweep(t, s, nothing, SweepOptions{Waste: 0.01})
			absent(t, s, cs)
			closeStore(t, s)
		})
	}
}

// TestKeepAllOfMany: places are those of all keys, however many are held at a time.
func TestKeepAllOfMany(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 2*holdsAtOnce+10)
	fill(t, s, cs)
	s.sealDone.Wait()
	keys := keysOf(cs)
	keys[holdsAtOnce-1], keys[holdsAtOnce], keys[len(keys)-1] = chunks(9000, 1)[0].Key(), chunks(9001, 1)[0].Key(), chunks(9002, 1)[0].Key()
	se := begin(t, s)
	if rest := keepAll(t, se, keys); !slices.Equal(rest, []int{holdsAtOnce - 1, holdsAtOnce, len(keys) - 1}) {
		t.Errorf("left were %v", rest)
	}
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
}

// TestKeepAllLeavesDoubts: of what is not there, is damaged, is somebody else's or lies in
// a pack that is gone, it says nothing.
func TestKeepAllLeavesDoubts(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 40)
	fill(t, s, cs)
	s.sealDone.Wait()
	se := begin(t, s)
	keys := keysOf(cs[:6])
	keys = append(keys, chunks(900, 1)[0].Key())
	foreign := cs[7].Key()
	foreign.Owner[0] ^= 1
	larger := cs[8].Key()
	larger.Size++
	keys = append(keys, foreign, larger)
	if rest := keepAll(t, se, keys); !slices.Equal(rest, []int{6, 7, 8}) {
		t.Errorf("left were %v", rest)
	}
	p, _ := where(t, s, cs[0])
	if err := os.Remove(packPath(s.dir, p)); err != nil {
		t.Fatal(err)
	}
	put(t, se, chunks(800, 1))
	if err := se.Sync(bg); err != nil { // what was seen of packs before counts no longer
		t.Fatal(err)
	}
	var gone []int
	for i, c := range cs {
		if at, _ := where(t, s, c); at == p {
			gone = append(gone, i)
		}
	}
	if rest := keepAll(t, se, keysOf(cs)); !slices.Equal(rest, gone) {
		t.Errorf("left were %v, gone are %v", rest, gone)
	}
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := se.(chunkstore.Keeper).KeepAll(bg, keys); err == nil {
		t.Error("a closed session keeps")
	}
}

// TestKeepAllSeesMoves: what was looked up is held only if nothing has changed where
// chunks lie since then.
func TestKeepAllSeesMoves(t *testing.T) {
	for name, change := range map[string]func(t *testing.T, s *Store, c chunkstore.Chunk){
		"put again": func(t *testing.T, s *Store, c chunkstore.Chunk) {
			se := begin(t, s)
			if err := replace(se, c); err != nil {
				t.Fatal(err)
			}
			se.Close()
		},
		"swept": func(t *testing.T, s *Store, c chunkstore.Chunk) {
			sweep(t, s, usedSet([]chunkstore.Chunk{c}), SweepOptions{Waste: 0.01})
		},
		"removed": func(t *testing.T, s *Store, _ chunkstore.Chunk) {
			sweep(t, s, nothing, SweepOptions{})
		},
		"built anew": func(t *testing.T, s *Store, _ chunkstore.Chunk) {
			if _, err := s.Reindex(bg, nil); err != nil {
				t.Fatal(err)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, create(t), smallPacks)
			cs := chunks(0, 40)
			fill(t, s, cs)
			s.sealDone.Wait()
			se := begin(t, s).(*session)
			found, moves := s.lookupAll(keysOf(cs[5:6]))
			change(t, s, cs[5])
			s.lookAtPacks(found)
			if rest := se.holdAll(found, moves); len(rest) != 1 {
				t.Error("held where it was")
			}
			closeStore(t, s)
		})
	}
}
