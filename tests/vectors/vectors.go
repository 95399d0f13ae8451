// Package vectors carries the test vectors of the formats specification
// (section 14) for the tests of every room that reads or writes those formats.
// It decodes nothing by itself: each test names a section and brings the shape
// it expects. Only tests import it; it imports the standard library only.
package vectors

import (
	_ "embed"
	"encoding/hex"
	"encoding/json"
	"testing"
)

//go:embed vectors.json
var file []byte

// Section decodes the section called name into the value that into points to,
// and ends the test if there is none.
func Section(tb testing.TB, name string, into any) {
	tb.Helper()
	var all map[string]json.RawMessage
	if err := json.Unmarshal(file, &all); err != nil {
		tb.Fatalf("decode vectors.json: %v", err)
	}
	raw, ok := all[name]
	if !ok {
		tb.Fatalf("vectors.json has no section %q", name)
	}
	if err := json.Unmarshal(raw, into); err != nil {
		tb.Fatalf("decode section %q of vectors.json: %v", name, err)
	}
}

// Hex is a byte string that the vectors write in hex digits.
type Hex []byte

// UnmarshalText reads hex digits.
func (h *Hex) UnmarshalText(text []byte) error {
	b, err := hex.DecodeString(string(text))
	*h = b
	return err
}
