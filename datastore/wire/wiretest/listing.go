package wiretest

import (
	"slices"
	"testing"

	"holdfast/datastore/wire"
)

func allSnapshots(t *testing.T, p Ports) {
	var want []wire.Snapshot
	for _, id := range []string{"9", "100", "web"} { // in the order of groups
		for _, at := range []int64{1000, 2000} {
			want = append(want, snapshot(id, at))
			store(t, p, snapshot(id, at), "content of "+id)
		}
	}
	other := snapshot("9", 1500)
	other.Group.NS = "a"
	store(t, p, other, "elsewhere")
	for ns, want := range map[wire.Namespace][]wire.Snapshot{"": want, "a": {other}} {
		var got []wire.Snapshot
		for info, err := range p.AllSnapshots(t.Context(), ns) {
			if err != nil {
				t.Fatal(err)
			}
			if len(info.Files) == 0 || info.Damage != "" {
				t.Errorf("snapshot %s is listed as %+v", info.Snapshot, info)
			}
			got = append(got, info.Snapshot)
		}
		if !slices.Equal(got, want) {
			t.Errorf("namespace %q: %v, want %v", ns, got, want)
		}
	}
	for _, err := range p.AllSnapshots(t.Context(), "../x") {
		if err == nil {
			t.Error("a namespace outside the grammar has a snapshot")
		}
	}
	for range p.AllSnapshots(t.Context(), "") {
		break // who stops early is heeded
	}
}
