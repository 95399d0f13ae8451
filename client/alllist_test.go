package client

import (
	"fmt"
	"testing"

	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

func TestAllSnapshotsAreOneCall(t *testing.T) {
	f := newFake(t)
	c := dial(t, f.options())
	for i := range 20 {
		s := wire.Snapshot{Group: wire.Group{Type: "vm", ID: fmt.Sprint(i)}, Time: 1000}
		wiretest.Store(t, f.memory, wiretest.Content{Snapshot: s, Chunks: []string{"x"}})
	}
	n := 0
	for _, err := range c.AllSnapshots(t.Context(), "") {
		if err != nil {
			t.Fatal(err)
		}
		n++
	}
	if calls := len(f.requests); n != 20 || calls != 1 {
		t.Errorf("%d snapshots in %d calls: %v", n, calls, f.requests)
	}
}
