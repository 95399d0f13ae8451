package manifest

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"
)

// A manifest that would become too large when it is written again is refused when it
// comes, and one that has come can be added to and read.
func TestManifestDoesNotOutgrowItself(t *testing.T) {
	of := func(values string) *Manifest {
		return &Manifest{Type: "vm", ID: "100", Time: 1, Unprotected: map[string]json.RawMessage{"x": json.RawMessage(values)}}
	}
	deep := func(n, depth int) string {
		return strings.Repeat("[", depth) + strings.Repeat("1,", n-1) + "1" + strings.Repeat("]", depth)
	}
	for name, m := range map[string]*Manifest{"many values": of(deep(40_000, 1)), "deep values": of(deep(20_000, 40)), "a long text": of(`"` + strings.Repeat("x", 1<<20) + `"`)} {
		if err := m.CheckNew(); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := of(deep(jsonNodesMax, 1)).Encode(); !errors.Is(err, ErrFormat) {
		t.Errorf("what cannot be read again is written: %v", err)
	}
	m := of(deep(30_000, 10))
	if err := m.CheckNew(); err != nil {
		t.Fatal(err)
	}
	m.SetNotes(strings.Repeat("n", 64<<10))
	raw, err := m.Blob()
	if err != nil {
		t.Fatal(err)
	}
	if _, err := Open(raw); err != nil {
		t.Error(err)
	}
}
