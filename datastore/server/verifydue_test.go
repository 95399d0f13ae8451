package server

import (
	"testing"
	"time"

	"holdfast/datastore/wire"
)

// A verification under a clock that was ahead does not count until its time has
// come: nobody would look at the snapshot again for years.
func TestVerifiedAheadIsDue(t *testing.T) {
	now := time.Unix(1_700_000_000, 0)
	const day = 24 * time.Hour
	for _, tc := range []struct {
		name string
		at   time.Duration // after now
		days int64
		due  bool
	}{
		{"today", -time.Hour, 30, false},
		{"long ago", -31 * day, 30, true},
		{"long ago, which does not matter", -31 * day, -1, false},
		{"by a clock that differs a little", wire.SkewMax * time.Second, 30, false},
		{"by a clock that was an hour ahead", time.Hour, 30, true},
		{"by a clock that was forty years ahead", 40 * 365 * day, 30, true},
		{"by a clock that was forty years ahead, however old", 40 * 365 * day, -1, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			u := wire.UPID{Node: "lab", PID: 1, PStart: 1, Start: now.Add(tc.at).Unix(), Type: "verify", ID: "tank", Auth: "root@pam"}
			s := &Server{}
			s.o.Now = func() time.Time { return now }
			v := verification{server: s, ignore: true, days: tc.days}
			info := wire.SnapshotInfo{Verify: &wire.VerifyState{State: wire.VerifyOK, UPID: u.String()}}
			if got := v.due(info); got != tc.due {
				t.Errorf("due is %v, want %v", got, tc.due)
			}
		})
	}
}
