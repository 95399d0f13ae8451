package catalogue

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/chunkstore/durable"
	"holdfast/chunkstore/pack/packfile"
)

// TestRunsAreMerged holds the merge of runs against one sort of everything.
func TestRunsAreMerged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		w := NewRuns(durable.Door{}, t.TempDir())
		var all []Held
		for range r.IntN(12) {
			var list []Held
			for range r.IntN(40) {
				list = append(list, Held{numbered7(r.IntN(60)), Location{
					Pack: uint32(r.IntN(3)), Off: packfile.HeaderSize + r.Int64N(1000), Stored: 9, Rank: uint32(r.IntN(3)), Flags: uint32(r.IntN(2)),
				}})
			}
			slices.SortFunc(list, Held.Compare)
			all = append(all, list...)
			if err := w.Add(list); err != nil {
				t.Fatal(err)
			}
		}
		slices.SortFunc(all, Held.Compare)
		var got []Held
		if err := w.Merge(func(h Held) error { got = append(got, h); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, all) {
			t.Fatalf("%d chunks came back of %d, or in another order", len(got), len(all))
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(w.path), ".*")); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	}
}
