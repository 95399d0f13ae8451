package storetest

import (
	"slices"
	"testing"
)

// EveryFlip wants an error for every byte of b that is changed, and for every
// length that is not right.
func EveryFlip(t *testing.T, b []byte, decode func([]byte) error) {
	t.Helper()
	for i := range b {
		c := slices.Clone(b)
		c[i] ^= 1 << (i % 8)
		if decode(c) == nil {
			t.Errorf("byte %d changed: accepted", i)
		}
	}
	for n := range len(b) {
		if decode(b[:n]) == nil {
			t.Errorf("%d of %d bytes: accepted", n, len(b))
		}
	}
	if decode(append(slices.Clone(b), 0)) == nil {
		t.Error("a byte too many: accepted")
	}
}
