package catalogue

import "testing"

// Of two copies the sound one is believed, and then the later one.
func TestBeats(t *testing.T) {
	for _, c := range []struct {
		l, old Location
		want   bool
	}{
		{Location{Rank: 1}, Location{Rank: 0}, true},
		{Location{Rank: 0}, Location{Rank: 0}, false},
		{Location{Rank: 0}, Location{Rank: 1}, false},
		{Location{Rank: 0}, Location{Rank: 0, Flags: FlagBad}, true},
		{Location{Rank: 0}, Location{Rank: 3, Flags: FlagBad}, true},
		{Location{Rank: 3, Flags: FlagBad}, Location{Rank: 0}, false},
		{Location{Rank: 1, Flags: FlagBad}, Location{Rank: 0, Flags: FlagBad}, true},
	} {
		if got := c.l.Beats(c.old); got != c.want {
			t.Errorf("%+v beats %+v: %v", c.l, c.old, got)
		}
	}
}
