package pack

import (
	"math/rand/v2"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/chunkstore/pack/disk"
	"holdfast/chunkstore/pack/packfile"
)

// TestRunsAreMerged holds the merge of runs against one sort of everything.
func TestRunsAreMerged(t *testing.T) {
	r := rand.New(rand.NewPCG(5, 6))
	for range 50 {
		w := newRuns(disk.Door{}, t.TempDir())
		var all []held
		for range r.IntN(12) {
			var list []held
			for range r.IntN(40) {
				list = append(list, held{numbered7(r.IntN(60)), location{
					pack: uint32(r.IntN(3)), off: packfile.HeaderSize + r.Int64N(1000), stored: 9, rank: uint32(r.IntN(3)), flags: uint32(r.IntN(2)),
				}})
			}
			slices.SortFunc(list, held.compare)
			all = append(all, list...)
			if err := w.add(list); err != nil {
				t.Fatal(err)
			}
		}
		slices.SortFunc(all, held.compare)
		var got []held
		if err := w.merge(func(h held) error { got = append(got, h); return nil }); err != nil {
			t.Fatal(err)
		}
		if !slices.Equal(got, all) {
			t.Fatalf("%d chunks came back of %d, or in another order", len(got), len(all))
		}
		if err := w.close(); err != nil {
			t.Fatal(err)
		}
		if left, _ := filepath.Glob(filepath.Join(filepath.Dir(w.path), ".*")); len(left) > 0 {
			t.Fatalf("left behind: %v", left)
		}
	}
}
