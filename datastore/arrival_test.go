package datastore

import (
	"bytes"
	"testing"

	"holdfast/datastore/wire"
)

func TestArrivalFile(t *testing.T) {
	a := arrival{claimed: 1_700_000_000, wall: 1_700_000_060, counted: 1_700_000_061}
	raw := a.encode()
	if got, ok := decodeArrival(raw); !ok || got != a {
		t.Fatalf("read back %+v, %v", got, ok)
	}
	if n := len((arrival{-1 << 63, -1 << 63, -1 << 63}).encode()); n > arrivedMax {
		t.Errorf("an arrival may have %d bytes, %d are read", n, arrivedMax)
	}
	for i := range raw {
		for bit := range 8 {
			flipped := bytes.Clone(raw)
			flipped[i] ^= 1 << bit
			if got, ok := decodeArrival(flipped); ok {
				t.Errorf("with bit %d of byte %d flipped: %+v", bit, i, got)
			}
		}
		if got, ok := decodeArrival(raw[:i]); ok {
			t.Errorf("of %d bytes: %+v", i, got)
		}
	}
}

func FuzzArrival(f *testing.F) {
	f.Add(arrival{claimed: 1_700_000_000, wall: 1_700_000_060, counted: 1_700_000_061}.encode())
	f.Add([]byte("holdfast arrived 1\n"))
	f.Fuzz(func(t *testing.T, raw []byte) {
		a, ok := decodeArrival(raw)
		if !ok {
			return
		}
		if !bytes.Equal(a.encode(), raw) {
			t.Errorf("%q is not what %+v is written as", raw, a)
		}
		if at := a.at(1 << 40); at < 1 {
			t.Errorf("%+v arrived at %d", a, at)
		}
	})
}

// TestArrivalByTwoClocks is about a machine of which one clock is wrong.
func TestArrivalByTwoClocks(t *testing.T) {
	const now, years = int64(1_800_000_000), int64(400_000_000)
	for _, tc := range []struct {
		name          string
		claimed       int64
		wall, counted int64
		want          int64
	}{
		{"both are right", now - 60, now, now, now},
		{"a time of the future", now + years, now, now, now},
		{"a time of the past", now - years, now, now, now},
		{"the wall clock was set back", now - 60, now - years, now, now - 60},
		{"it was, and the name is of the future", now + years, now - years, now, now},
		{"the wall clock was set forward", now - 60, now + years, now, now},
		{"it was, and the name is of the future", now + 2*years, now + years, now, now},
		{"the machine was started with a clock that was fast", now - 60, now, now + years, now},
		{"no clock knew anything", now - 60, -years, 0, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := (arrival{tc.claimed, tc.wall, tc.counted}).at(now); got != tc.want {
				t.Errorf("arrived at %d, want %d", got, tc.want)
			}
		})
	}
}

// TestEffectiveOrder is what counts as older, and what is flagged.
func TestEffectiveOrder(t *testing.T) {
	for _, tc := range []struct {
		name       string
		a, b       wire.Dated
		older      bool
		ahead, off bool // of b
	}{
		{"as their names are", wire.Dated{Claimed: 10, Arrived: 10}, wire.Dated{Claimed: 20, Arrived: 20}, true, false, false},
		{"of a store that does not tell", wire.Dated{Claimed: 10}, wire.Dated{Claimed: 2000}, true, false, false},
		{"imported", wire.Dated{Claimed: 10, Arrived: 5000}, wire.Dated{Claimed: 20, Arrived: 4000}, true, false, true},
		{"of the future", wire.Dated{Claimed: 30, Arrived: 30}, wire.Dated{Claimed: 9000, Arrived: 20}, false, true, true},
		{"of one time", wire.Dated{Claimed: 20, Arrived: 20}, wire.Dated{Claimed: 9000, Arrived: 20}, false, true, true},
		{"of one time, and it is not known when the other arrived", wire.Dated{Claimed: 20}, wire.Dated{Claimed: 9000, Arrived: 20}, false, true, true},
		{"of one time, both of the future", wire.Dated{Claimed: 8000, Arrived: 20}, wire.Dated{Claimed: 9000, Arrived: 20}, true, true, true},
		{"hardly apart", wire.Dated{Claimed: 10, Arrived: 10}, wire.Dated{Claimed: 320, Arrived: 20}, true, false, false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if got := tc.a.Compare(tc.b) < 0; got != tc.older {
				t.Errorf("older: %v", got)
			}
			if tc.b.Ahead() != tc.ahead || tc.b.Misdated() != tc.off {
				t.Errorf("ahead %v, misdated %v", tc.b.Ahead(), tc.b.Misdated())
			}
		})
	}
}
