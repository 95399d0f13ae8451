package prune

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"holdfast/datastore/wire"
)

const (
	night = int64(1_715_000_000) // the first backup of the tables below
	day   = int64(24 * 60 * 60)
)

// nightly are n snapshots of one a day.
func nightly(n int, standing Standing) []Candidate {
	list := make([]Candidate, n)
	for i := range list {
		at := night + int64(i)*day
		list[i] = Candidate{Time: at, Arrived: at, Standing: standing}
	}
	return list
}

// kept are the times of what Select keeps.
func kept(list []Candidate, k Keep) (times []int64) {
	for _, d := range Select(list, k, time.UTC, math.MaxInt64) {
		if d.Keep {
			times = append(times, d.Time)
		}
	}
	return times
}

// TestNothingLessProvenTakesAPlace has somebody add snapshots to ten good ones: as
// many as he likes, by whatever times.
func TestNothingLessProvenTakesAPlace(t *testing.T) {
	end := night + 10*day
	for _, tc := range []struct {
		name string
		good Standing
		bad  Standing
		at   func(i int64) (claimed, arrived int64)
	}{
		{"empty ones of today", Unverified, Suspect, func(i int64) (int64, int64) { return end + i, end + i }},
		{"empty ones of the months to come", Unverified, Suspect, func(i int64) (int64, int64) { return end + 31*day*i, end }},
		{"full ones of the months to come", Unverified, Ahead, func(i int64) (int64, int64) { return end + 31*day*i + 600, end }},
		{"unverified ones of today", Verified, Unverified, func(i int64) (int64, int64) { return end + i, end + i }},
		{"unverified ones of every month before", Verified, Unverified, func(i int64) (int64, int64) { return end - 31*day*i + 1, end }},
		{"unverified ones, one each night", Verified, Unverified, func(i int64) (int64, int64) { return end + i*day, end + i*day }},
	} {
		t.Run(tc.name, func(t *testing.T) {
			good := nightly(10, tc.good)
			list := slices.Clone(good)
			for i := range int64(60) {
				claimed, arrived := tc.at(i)
				list = append(list, Candidate{Time: claimed, Arrived: arrived, Standing: tc.bad})
			}
			for _, k := range []Keep{{Last: 1}, {Last: 3}, {Daily: 7}, {Last: 3, Daily: 7, Weekly: 4, Monthly: 12}, {Yearly: 1}} {
				got := kept(list, k)
				for _, want := range kept(good, k) {
					if !slices.Contains(got, want) {
						t.Errorf("%+v: the good one at %d goes; kept are %v", k, want, got)
					}
				}
			}
		})
	}
}

// TestAddingTakesNothingAway is the rule of Select: whoever can only add snapshots of
// a lower standing, at whatever times, never makes one go that would have stayed.
func TestAddingTakesNothingAway(t *testing.T) {
	rnd := rand.New(rand.NewPCG(7, 11))
	loc := berlin(t)
	lost := 0
	for range 4000 {
		good, k := some(rnd), someKeep(rnd)
		least := Ahead + Standing(rnd.IntN(3))
		for i := range good {
			good[i].Standing = min(least+Standing(rnd.IntN(2)), Verified)
		}
		good = distinct(good)
		list := slices.Clone(good)
		for range 1 + rnd.IntN(40) {
			c := Candidate{Time: 1_700_000_000 + rnd.Int64N(90*day), Standing: Standing(rnd.IntN(int(least)))}
			c.Arrived = c.Time + rnd.Int64N(2*day) - day
			list = append(list, c)
		}
		list = distinct(list)
		now := map[int64]bool{}
		for _, d := range Select(list, k, loc, math.MaxInt64) {
			now[d.Time] = d.Keep
		}
		for _, d := range Select(good, k, loc, math.MaxInt64) {
			if d.Keep && !now[d.Time] {
				t.Fatalf("%+v keeps %d of %+v, and not of %+v", k, d.Time, good, list)
			}
		}
		for _, d := range choose(list, k, loc) { // what the test would find if all counted alike
			if !d.Keep && slices.ContainsFunc(good, func(c Candidate) bool { return c.Time == d.Time }) {
				lost++
			}
		}
	}
	if lost < 1000 {
		t.Errorf("only %d places were at stake", lost)
	}
}

// distinct leaves one snapshot of each name, the first.
func distinct(list []Candidate) (out []Candidate) {
	seen := map[int64]bool{}
	for _, c := range list {
		if !seen[c.Time] {
			out = append(out, c)
		}
		seen[c.Time] = true
	}
	return out
}

// TestNextMorning is a group that is verified after each prune: the newest snapshot
// is not verified yet, and what it will take the place of stays for one day more. It
// does not add up.
func TestNextMorning(t *testing.T) {
	k := Keep{Last: 2, Daily: 7, Weekly: 4, Monthly: 6}
	var group, other []Candidate // other is pruned by the specification alone
	most := 0
	for i := range int64(400) {
		at := night + i*day
		group = append(group, Candidate{Time: at, Arrived: at, Standing: Unverified})
		other = append(other, Candidate{Time: at, Arrived: at})
		group, other = after(group, k), after(other, k)
		most = max(most, len(group)-len(other))
		for j := range group {
			group[j].Standing = Verified
		}
		// If it had been verified before, nothing more would be there.
		if again := after(group, k); !slices.EqualFunc(again, other, func(a, b Candidate) bool { return a.Time == b.Time }) {
			t.Fatalf("on day %d %v are left, want %v", i, again, other)
		}
	}
	if most < 1 || most > 3 {
		t.Errorf("up to %d more were kept than the specification has", most)
	}
}

// after is what is left of a list when it was pruned.
func after(list []Candidate, k Keep) []Candidate {
	stay := kept(list, k)
	return slices.DeleteFunc(slices.Clone(list), func(c Candidate) bool { return !slices.Contains(stay, c.Time) })
}

// TestVerifiedOnce is a group of which some snapshots were verified long ago and none
// since: those do not stay for ever.
func TestVerifiedOnce(t *testing.T) {
	list := nightly(200, Unverified)
	for i := range 10 {
		list[i].Standing = Verified
	}
	k := Keep{Daily: 7}
	for n, want := range map[int]int{17: 14, 110: 14, 111: 7, 200: 7} {
		if got := kept(list[:n], k); len(got) != want {
			t.Errorf("%d days later %v are kept, want %d", n-10, got, want)
		}
	}
	// Imported at once, they are of one time, whatever their names say.
	for i := range list {
		list[i].Arrived = night + 200*day
	}
	if got := kept(list, k); len(got) != 14 {
		t.Errorf("%v are kept", got)
	}
}

// TestSelectGoesByArrival prunes snapshots whose names lie in the future as of their
// arrival, and imported ones as of their names.
func TestSelectGoesByArrival(t *testing.T) {
	list := nightly(3, Unverified)
	list[0].Time += 1000 * day
	list[1].Arrived += 500 * day
	if got, want := kept(list, Keep{Last: 2}), []int64{list[1].Time, list[2].Time}; !slices.Equal(got, want) {
		t.Errorf("kept %v, want %v", got, want)
	}
	got := Select(list, Keep{Last: 1}, time.UTC, math.MaxInt64)
	if !slices.IsSortedFunc(got, func(a, b Decision) int { return int(a.Time - b.Time) }) {
		t.Errorf("not in the order of their names: %+v", got)
	}
}

func TestStanding(t *testing.T) {
	disk := []wire.FileInfo{{Name: "drive-scsi0.img.fidx", Size: 4 << 20}}
	ok, failed := &wire.VerifyState{State: wire.VerifyOK}, &wire.VerifyState{State: wire.VerifyFailed}
	for _, tc := range []struct {
		name string
		of   wire.SnapshotInfo
		want Standing
	}{
		{"a good one", wire.SnapshotInfo{Files: disk}, Unverified},
		{"a verified one", wire.SnapshotInfo{Files: disk, Verify: ok}, Verified},
		{"one found damaged", wire.SnapshotInfo{Files: disk, Verify: failed}, Suspect},
		{"an imported one", wire.SnapshotInfo{Files: disk, Arrived: night + 900*day}, Unverified},
		{"clocks that differ a little", wire.SnapshotInfo{Files: disk, Arrived: night - wire.SkewMax}, Unverified},
		{"one of the future", wire.SnapshotInfo{Files: disk, Arrived: night - wire.SkewMax - 1}, Ahead},
		{"a verified one of the future", wire.SnapshotInfo{Files: disk, Arrived: 1, Verify: ok}, Ahead},
		{"nothing in it", wire.SnapshotInfo{Verify: ok}, Suspect},
		{"only a blob", wire.SnapshotInfo{Verify: ok, Files: []wire.FileInfo{{Name: "qemu-server.conf.blob", Size: 300}}}, Suspect},
		{"only a catalogue", wire.SnapshotInfo{Verify: ok, Files: []wire.FileInfo{{Name: catalogName, Size: 300}}}, Suspect},
		{"an archive of nothing", wire.SnapshotInfo{Verify: ok, Files: []wire.FileInfo{{Name: "a.img.fidx"}}}, Suspect},
	} {
		t.Run(tc.name, func(t *testing.T) {
			tc.of.Snapshot = wire.Snapshot{Group: group, Time: night}
			if got := candidate(tc.of); got.Standing != tc.want || got.Time != night || got.Arrived != tc.of.Arrived {
				t.Errorf("got %+v, want standing %d", got, tc.want)
			}
		})
	}
}
