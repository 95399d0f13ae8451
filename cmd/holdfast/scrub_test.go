package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"holdfast/command/term"
	"holdfast/datastore"
)

// A repository that others read is verified all the same; nothing is written.
func TestScrubBesideReaders(t *testing.T) {
	b, _ := newStore(t)
	reading, err := datastore.Open(t.Context(), b.path("store"), datastore.Options{ReadOnly: true})
	if err == nil {
		_, err = reading.Packs(t.Context())
	}
	if err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(b.path("store"), ".chunks", "catalogue.db"))
	if err != nil {
		t.Fatal(err)
	}
	b.do(t, term.ExitOK, "verify", "--store")
	b.wantErr(t, "neither marked nor dated")
	b.wantOut(t, "1 snapshot: 0 damaged")
	after, err := os.ReadFile(filepath.Join(b.path("store"), ".chunks", "catalogue.db"))
	if err := errors.Join(err, reading.Close()); err != nil || !bytes.Equal(before, after) {
		t.Errorf("the catalogue was changed, or %v", err)
	}
	b.do(t, term.ExitOK, "verify", "--store", "--json")
	b.wantOut(t, `"dates_kept":true`)
}
