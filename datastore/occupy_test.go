package datastore

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/datastore/wire"
)

// A session that is ending is waited for, one that works only for a moment.
func TestSessionWaitsForOneThatEnds(t *testing.T) {
	g := wire.Group{Type: "vm", ID: "100"}
	const patience = 2 * time.Second
	for name, tc := range map[string]struct {
		leaves, frees, gives time.Duration // 0: never
		free                 bool
		after                time.Duration
	}{
		"it works on":                  {after: patience},
		"it ends within the patience":  {frees: time.Second, free: true, after: time.Second},
		"it leaves at once":            {leaves: time.Nanosecond, frees: 40 * time.Second, free: true, after: 40 * time.Second},
		"it leaves within a moment":    {leaves: time.Second, frees: 20 * time.Second, free: true, after: 20 * time.Second},
		"it leaves too late":           {leaves: 3 * time.Second, frees: 4 * time.Second, after: patience},
		"it leaves and never comes to": {leaves: time.Second, after: leavingMost},
		"the caller gives up":          {leaves: time.Second, frees: 30 * time.Second, gives: 10 * time.Second, after: 10 * time.Second},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := newLocks()
				if err := l.occupy(g); err != nil {
					t.Fatal(err)
				}
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				for d, do := range map[time.Duration]func(){
					tc.leaves: func() { l.leave(g) }, tc.frees: func() { l.vacate(g) }, tc.gives: cancel,
				} {
					if d > 0 {
						defer time.AfterFunc(d, do).Stop()
					}
				}
				began := time.Now()
				err := l.occupySoon(ctx, g, patience)
				if (err == nil) != tc.free || err != nil && !errors.Is(err, wire.ErrBusy) {
					t.Errorf("%v", err)
				}
				if took := time.Since(began); took != tc.after {
					t.Errorf("after %v, want %v", took, tc.after)
				}
				if err == nil && l.occupy(g) == nil {
					t.Error("two have the group")
				}
			})
		})
	}
}
