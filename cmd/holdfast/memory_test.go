package main

import "testing"

func TestMemoryLimitFollowsWhatIsInUse(t *testing.T) {
	for _, tc := range []struct {
		live uint64
		want int64
	}{{0, 100 << 20}, {30 << 20, 100 << 20}, {100 << 20, 132 << 20}, {1 << 30, 3<<29 - 32<<20}} {
		if got := memoryLimit(tc.live); got != tc.want {
			t.Errorf("with %d bytes in use the limit is %d, want %d", tc.live, got, tc.want)
		}
	}
}
