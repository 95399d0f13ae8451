package pack

import (
	"math/rand/v2"
	"slices"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
)

// put puts chunks into a session that stays open.
func put(t testing.TB, se chunkstore.Session, cs []chunkstore.Chunk) {
	t.Helper()
	for _, c := range cs {
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
}

func begin(t testing.TB, s *Store) chunkstore.Session {
	t.Helper()
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	return se
}

// TestIdleSessionHoldsOnlyItsOwn has a session that is open all the time, in whatever
// pack its chunks lie. What others have left goes, and what is the session's stays
// through several sweeps, after its end too if that has been seen.
func TestIdleSessionHoldsOnlyItsOwn(t *testing.T) {
	for name, tc := range map[string]struct {
		options Options
		before  bool // others have stored something when the session begins
		mine    int  // chunks that it puts
		shared  int  // of the others' chunks that it sends too
	}{
		"it has sent nothing":                        {smallPacks, true, 0, 0},
		"it goes on with a pack of others":           {Options{}, true, 5, 0},
		"it has a pack of its own":                   {smallPacks, false, 30, 0},
		"it has sent what was there already":         {smallPacks, true, 0, 7},
		"it has sent something of everything":        {Options{}, true, 5, 7},
		"others go on with the pack it has begun":    {Options{}, false, 5, 0},
		"there are several packs with parts of each": {smallPacks, true, 31, 11},
	} {
		t.Run(name, func(t *testing.T) {
			s := openAt(t, create(t), tc.options)
			others, mine := chunks(0, 60), chunks(500, tc.mine)
			if tc.before {
				fill(t, s, others)
			}
			se := begin(t, s)
			mine = append(mine, others[:tc.shared]...)
			put(t, se, mine)
			if !tc.before {
				fill(t, s, others)
			}
			for range 3 {
				s.sealDone.Wait()
				sweep(t, s, nothing, SweepOptions{Waste: 0.01})
				absent(t, s, others[tc.shared:])
				holdsAll(t, s, mine)
			}
			more := chunks(700, 3)
			put(t, se, more) // it goes on, be it with another pack
			if err := se.Sync(bg); err != nil {
				t.Fatal(err)
			}
			mine = append(mine, more...)
			sweep(t, s, nothing, SweepOptions{Waste: 0.01})
			holdsAll(t, s, mine)
			if err := se.Close(); err != nil {
				t.Fatal(err)
			}
			sweep(t, s, usedSet(mine), SweepOptions{Waste: 0.01})
			holdsAll(t, s, mine)
			s.sealDone.Wait() // a pack that is being sealed is for the next sweep
			sweep(t, s, nothing, SweepOptions{Waste: 0.01})
			absent(t, s, mine)
			if left := s.heldNow(); len(left) != 0 || len(s.filling) != 0 {
				t.Errorf("still held: %v, being filled: %v", left, s.filling)
			}
			closeStore(t, s)
		})
	}
}

// TestKeepFollowsAMove has a session that was told of a chunk before a sweep moved it:
// the sweep after does not remove it from where it is then.
func TestKeepFollowsAMove(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 40)
	fill(t, s, cs)
	se := begin(t, s)
	told := cs[3]
	if _, err := se.(chunkstore.Keeper).Keep(bg, told.Key()); err != nil {
		t.Fatal(err)
	}
	from, _ := where(t, s, told)
	for range 3 {
		sweep(t, s, nothing, SweepOptions{Waste: 0.01})
		holdsAll(t, s, []chunkstore.Chunk{told})
		to, _ := where(t, s, told)
		fill(t, s, chunks(1000, 20)) // garbage beside it, so that it moves again
		if to == from {
			t.Error("it was not moved")
		}
		from = to
	}
	if err := se.Close(); err != nil {
		t.Fatal(err)
	}
	sweep(t, s, nothing, SweepOptions{})
	absent(t, s, cs)
	closeStore(t, s)
}

// TestNothingIsSweptAfterARebuild: the catalogue may point to other copies than those
// that open sessions hold. Sessions that begin later do not count.
func TestNothingIsSweptAfterARebuild(t *testing.T) {
	s := openAt(t, create(t), smallPacks)
	cs := chunks(0, 40)
	fill(t, s, cs)
	early := begin(t, s)
	put(t, early, cs[:1])
	sw, err := s.BeginSweep(bg)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := s.Reindex(bg, nil); err != nil {
		t.Fatal(err)
	}
	late := begin(t, s)
	put(t, late, cs[1:2])
	if r, err := sw.Run(bg, nothing, SweepOptions{}); err != nil || r.ChunksRemoved != 0 {
		t.Errorf("in a sweep that had begun: %+v, %v", r, err)
	}
	sw.Close()
	if r := sweep(t, s, nothing, SweepOptions{}); r.ChunksRemoved != 0 {
		t.Errorf("in one that began after: %+v", r)
	}
	if err := early.Close(); err != nil {
		t.Fatal(err)
	}
	sweep(t, s, nothing, SweepOptions{Waste: 0.01})
	absent(t, s, cs[2:])
	holdsAll(t, s, cs[1:2])
	if err := late.Close(); err != nil {
		t.Fatal(err)
	}
	closeStore(t, s)
}

// TestExtents compares with a plain set of what was added.
func TestExtents(t *testing.T) {
	const records, size = 200, packfile.RecordSize + 10
	at := func(i int) catalogue.Location {
		return catalogue.Location{Pack: 1, Off: packfile.HeaderSize + int64(i)*size, Stored: 10}
	}
	for seed := range uint64(50) {
		random := rand.New(rand.NewPCG(seed, 1))
		var parts [2]extents
		added := make(map[int]bool)
		for i := range parts {
			parts[i] = make(extents)
			for range random.IntN(records) {
				n := random.IntN(records)
				parts[i].add(at(n))
				added[n] = true
			}
		}
		all := make(extents)
		all.merge(parts[0])
		all.merge(parts[1])
		for i := range records {
			if all.has(at(i).Spot()) != added[i] {
				t.Fatalf("seed %d: record %d is there: %v", seed, i, !added[i])
			}
		}
		list := all[1]
		if !slices.IsSortedFunc(list, func(a, b extent) int { return int(a.to) - int(b.from) }) {
			t.Fatalf("seed %d: %v touch or are not in order", seed, list)
		}
	}
}
