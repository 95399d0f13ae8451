package main

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/chunkstore/pack"
	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/verify"
)

func TestScrubVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		report verify.StoreReport
		kept   bool
		code   int
		hint   string
	}{
		"healthy":        {verify.StoreReport{}, true, term.ExitOK, ""},
		"healed":         {verify.StoreReport{Scrub: pack.ScrubReport{PacksDamaged: 1, Damaged: 3}}, true, term.ExitOK, ""},
		"snapshot":       {verify.StoreReport{Damaged: 1, Snapshots: 2}, true, term.ExitIntegrity, "next backup of the same data heals"},
		"only for show":  {verify.StoreReport{Damaged: 1, Snapshots: 2}, false, term.ExitIntegrity, "once more when the repository is free"},
		"table":          {verify.StoreReport{Scrub: pack.ScrubReport{PacksDamaged: 1}}, true, term.ExitIntegrity, "holdfast repair rebuilds"},
		"table and more": {verify.StoreReport{Scrub: pack.ScrubReport{PacksDamaged: 3, Damaged: 2}}, true, term.ExitIntegrity, "holdfast gc removes"},
	} {
		err := scrubVerdict(c.report, c.kept)
		if exitCode(err) != c.code || c.hint != "" && !strings.Contains(hint(err), c.hint) {
			t.Errorf("%s: %v, %q", name, err, hint(err))
		}
	}
}

// What a server says comes to the same exit status.
func TestScrubOnAServer(t *testing.T) {
	found := scrubEnded(&client.TaskError{UPID: "UPID:x", Status: "verification failed - please check the log for details"})
	if exitCode(found) != term.ExitIntegrity || !strings.Contains(hint(found), "heals") {
		t.Errorf("%v, %q", found, hint(found))
	}
	if other := scrubEnded(&client.TaskError{Status: "aborted by user"}); exitCode(other) != term.ExitError {
		t.Errorf("%v", other)
	}
	unknown := repo.OnlyHoldfast(&client.StatusError{Code: 400, Text: "parameter verification failed - 'scrub': schema does not allow additional properties."}, scrubElsewhere)
	if !strings.Contains(hint(unknown), "without --store") {
		t.Errorf("%v, %q", unknown, hint(unknown))
	}
}

func TestScrubState(t *testing.T) {
	r := verify.StoreReport{Scrub: pack.ScrubReport{Packs: 2, Bytes: 1 << 20, BytesTotal: 4 << 20, PacksDamaged: 1}}
	want := "2 packs and 1.00 MiB of 4.00 MiB were read, 1 of the packs are damaged; that is kept, and the next run with --older-than 1 goes on there"
	if got := scrubState(r, true); got != want {
		t.Errorf("%s", got)
	}
	if got := scrubState(r, false); !strings.HasSuffix(got, "begins anew") {
		t.Errorf("%s", got)
	}
}

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
