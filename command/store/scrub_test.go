package store

import (
	"errors"
	"strings"
	"testing"

	"holdfast/chunkstore/pack"
	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/verify"
)

func TestScrubVerdict(t *testing.T) {
	for name, c := range map[string]struct {
		report verify.StoreReport
		kept   bool
		damage bool
		hint   string
	}{
		"healthy":        {verify.StoreReport{}, true, false, ""},
		"healed":         {verify.StoreReport{Scrub: pack.ScrubReport{PacksDamaged: 1, Damaged: 3}}, true, false, ""},
		"snapshot":       {verify.StoreReport{Damaged: 1, Snapshots: 2}, true, true, "next backup of the same data heals"},
		"only for show":  {verify.StoreReport{Damaged: 1, Snapshots: 2}, false, true, "once more when the repository is free"},
		"table":          {verify.StoreReport{Scrub: pack.ScrubReport{PacksDamaged: 1}}, true, true, "holdfast repair rebuilds"},
		"table and more": {verify.StoreReport{Scrub: pack.ScrubReport{PacksDamaged: 3, Damaged: 2}}, true, true, "holdfast gc removes"},
	} {
		err := scrubVerdict(c.report, c.kept)
		if errors.Is(err, repo.ErrDamage) != c.damage || (err != nil) != c.damage || c.hint != "" && !strings.Contains(term.NextStep(err), c.hint) {
			t.Errorf("%s: %v, %q", name, err, term.NextStep(err))
		}
	}
}

// What a server says comes to the same exit status.
func TestScrubOnAServer(t *testing.T) {
	found := scrubEnded(&client.TaskError{UPID: "UPID:x", Status: "verification failed - please check the log for details"})
	if !errors.Is(found, repo.ErrDamage) || !strings.Contains(term.NextStep(found), "heals") {
		t.Errorf("%v, %q", found, term.NextStep(found))
	}
	if other := scrubEnded(&client.TaskError{Status: "aborted by user"}); other == nil || errors.Is(other, repo.ErrDamage) {
		t.Errorf("%v", other)
	}
	unknown := repo.OnlyHoldfast(&client.StatusError{Code: 400, Text: "parameter verification failed - 'scrub': schema does not allow additional properties."}, scrubElsewhere)
	if !strings.Contains(term.NextStep(unknown), "without --store") {
		t.Errorf("%v, %q", unknown, term.NextStep(unknown))
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
