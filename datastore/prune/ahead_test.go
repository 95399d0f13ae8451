package prune

import (
	"slices"
	"testing"
	"time"
)

// Snapshots that arrived while both clocks of the store were ahead do not make the
// verified ones look as if nobody verified the group any more.
func TestArrivedAheadLeavesTheVerified(t *testing.T) {
	const day = 24 * 60 * 60
	now := int64(1_700_000_000)
	list := []Candidate{{Time: now - 2*day, Arrived: now - 2*day, Standing: Verified}}
	for i := range int64(5) {
		at := now + (3000+i)*day
		list = append(list, Candidate{Time: at, Arrived: at, Standing: Unverified})
	}
	for _, tc := range []struct {
		name string
		now  int64
		keep bool
	}{
		{"before their time has come", now, true},
		{"when they have been for real", now + 4000*day, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got := Select(list, Keep{Last: 2}, time.UTC, tc.now)
			i := slices.IndexFunc(got, func(d Decision) bool { return d.Time == now-2*day })
			if got[i].Keep != tc.keep {
				t.Errorf("the verified one is kept: %v, want %v", got[i].Keep, tc.keep)
			}
		})
	}
}
