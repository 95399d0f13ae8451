package pack

import "testing"

// Of two copies the sound one is believed, and then the later one.
func TestBeats(t *testing.T) {
	for _, c := range []struct {
		l, old location
		want   bool
	}{
		{location{rank: 1}, location{rank: 0}, true},
		{location{rank: 0}, location{rank: 0}, false},
		{location{rank: 0}, location{rank: 1}, false},
		{location{rank: 0}, location{rank: 0, flags: flagBad}, true},
		{location{rank: 0}, location{rank: 3, flags: flagBad}, true},
		{location{rank: 3, flags: flagBad}, location{rank: 0}, false},
		{location{rank: 1, flags: flagBad}, location{rank: 0, flags: flagBad}, true},
	} {
		if got := c.l.beats(c.old); got != c.want {
			t.Errorf("%+v beats %+v: %v", c.l, c.old, got)
		}
	}
}
