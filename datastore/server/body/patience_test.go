package body

import (
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"holdfast/datastore/server/budget"
)

// On a slow line the frames of many uploads take turns: each of them may wait for
// as long as it takes while anything comes at all. A session that is silent for
// minutes goes on afterwards, and one that stays silent loses its uploads.
func TestSlowAndSuspendedClients(t *testing.T) {
	for _, tc := range []struct {
		name  string
		every time.Duration // between two signs of life, for ten of them
		lost  bool
	}{
		{"a frame every seven seconds", 7 * time.Second, false},
		{"suspended for 200 seconds", 200 * time.Second, false},
		{"silent for six minutes", 6 * time.Minute, true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				p := NewPatience(budget.Limits{}.WithDefaults().StallTimeout)
				w := &deadlineWriter{}
				v := p.watch(w)
				for range 10 {
					time.Sleep(tc.every)
					p.Heard()
				}
				v.end()
				if w.broken.Load() != tc.lost {
					t.Errorf("broken off: %v", w.broken.Load())
				}
			})
		})
	}
}

// deadlineWriter notes that the read of a body was broken off.
type deadlineWriter struct {
	http.ResponseWriter
	broken atomic.Bool
}

func (w *deadlineWriter) SetReadDeadline(time.Time) error {
	w.broken.Store(true)
	return nil
}
