package budget

import (
	"testing"

	"holdfast/datastore/server/ledger"
)

// However many sessions somebody has, what may arrive for them is bounded, each
// of them can be begun, and others get theirs.
func TestWindows(t *testing.T) {
	a := NewAccounts(Limits{}.WithDefaults())
	night := ledger.Payer{Account: "u!night", Holder: "u"}
	var all []*ledger.Hold
	before := int64(windowMax)
	const sessions = 256
	for i := range sessions {
		w, err := a.Window(night)
		if err != nil {
			t.Fatalf("number %d: %v", i, err)
		}
		if size := w.Size(); size > before || size < windowMin {
			t.Errorf("number %d gets %d after %d", i, size, before)
		} else {
			before = size
		}
		all = append(all, w)
	}
	if n := a.windows.Used(); n > windowShare {
		t.Errorf("all have %d", n)
	}
	for i := range 10 {
		if w, err := a.Window(ledger.Payer{Account: "other"}); err != nil || w.Size() < windowMin {
			t.Errorf("another one, number %d: %v", i, err)
		}
	}
	first := all[0].Size()
	for _, w := range all {
		w.Free()
	}
	if w, err := a.Window(night); err != nil || w.Size() != first {
		t.Errorf("after all have gone: %v", err)
	}
}
