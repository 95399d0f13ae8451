package storetest

import (
	"testing"

	"holdfast/chunkstore"
)

// named makes c another blob under the name and size of like.
func named(c, like chunkstore.Chunk) chunkstore.Chunk {
	c.ID, c.PlainSize = like.ID, like.PlainSize
	return c
}

// testClasses: no class stands in for the other, hides it or replaces it.
func testClasses(t *testing.T, s chunkstore.Store) {
	for i, encryptedFirst := range []bool{true, false} {
		se := begin(t, s)
		plain := Chunk(uint64(2*i), 500)
		sealed := named(Sealed(uint64(2*i+1), 600, "alice"), plain)
		first, second := plain, sealed
		if encryptedFirst {
			first, second = sealed, plain
		}
		put(t, se, first, true)
		Lacks(t, s, second.Key())
		put(t, se, second, true)
		Holds(t, s, first)
		Holds(t, s, second)
		put(t, se, first, false)
		put(t, se, second, false)
		end(t, se)
		Holds(t, s, first)
		Holds(t, s, second)
	}
}

// testOwners: whatever the others send, everybody reads his own copy, and is told the
// same as if he were alone.
func testOwners(t *testing.T, s chunkstore.Store) {
	a := Sealed(1, 500, "alice")
	for _, tc := range []struct {
		name  string
		other chunkstore.Chunk
	}{
		{"other bytes", named(Sealed(2, 500, "mallory"), a)},
		{"other length", named(Sealed(3, 700, "bob"), a)},
		{"the same bytes", named(Sealed(1, 500, "carol"), a)},
	} {
		t.Run(tc.name, func(t *testing.T) {
			se := begin(t, s)
			Lacks(t, s, tc.other.Key())
			put(t, se, tc.other, true)
			put(t, se, tc.other, false)
			Holds(t, s, tc.other)
			end(t, se)
			Holds(t, s, tc.other)
		})
	}
	se := begin(t, s)
	Lacks(t, s, a.Key())
	put(t, se, a, true)
	Holds(t, s, a)
	// A client that seals at random sends other bytes each time.
	put(t, se, named(Sealed(4, 500, "alice"), a), false)
	Holds(t, s, a)
	end(t, se)
	Holds(t, s, a)
}

// testSizes: a false size that was sent before does not stand in the way.
func testSizes(t *testing.T, s chunkstore.Store) {
	se := begin(t, s)
	c := Sealed(1, 500, "alice")
	wrong := c
	wrong.PlainSize++
	put(t, se, wrong, true)
	Lacks(t, s, c.Key())
	put(t, se, c, true)
	Holds(t, s, c)
	Holds(t, s, wrong)
	end(t, se)
}
