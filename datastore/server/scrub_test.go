package server

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"

	"holdfast/chunkstore/pack"
	"holdfast/datastore/task"
	"holdfast/datastore/verify"
	"holdfast/datastore/wire"
)

// flipAll changes a byte in the stored bytes of the last chunk of each pack.
func flipAll(t *testing.T, store string) {
	t.Helper()
	list, err := filepath.Glob(filepath.Join(store, ".chunks", "packs", "*"))
	if err != nil || len(list) == 0 {
		t.Fatalf("packs %v, %v", list, err)
	}
	for _, path := range list {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		st, err := f.Stat()
		if err == nil {
			b := make([]byte, 1)
			if _, err = f.ReadAt(b, st.Size()-1); err == nil {
				_, err = f.WriteAt([]byte{^b[0]}, st.Size()-1)
			}
		}
		f.Close()
		if err != nil {
			t.Fatal(err)
		}
	}
}

func TestScrub(t *testing.T) {
	l := newLab(t, Options{})
	st := l.filled()
	l.want(l.call(put, "POST", tank+"/verify", "scrub=1"), 403, "")
	l.want(l.call(owner, "POST", tank+"/verify", "scrub=1"), 403, "")
	l.want(l.call(admin, "POST", tank+"/verify", "scrub=1&ns=a"), 400, "whole datastore")
	l.want(l.call(admin, "POST", tank+"/verify", "scrub=1&"+first), 400, "whole datastore")
	l.want(l.call(admin, "POST", tank+"/verify", "older-than=3"), 400, "'scrub' only")
	l.want(l.call(admin, "POST", tank+"/verify", "scrub=1&older-than=-1"), 400, "older-than")
	l.want(l.call(admin, "POST", tank+"/verify", "scrub=1&rate=fast"), 400, "rate")

	upid := l.ok(admin, "POST", tank+"/verify", "scrub=1&older-than=30&rate=1000000000&read-threads=1").(string)
	if s := l.wait(upid); s != "OK" || !strings.Contains(upid, ":verify:tank:") {
		t.Errorf("%s ended: %s\n%s", upid, s, l.logOf(upid))
	}
	if text := l.logOf(upid); !strings.Contains(text, "with 2 chunks") || !strings.Contains(text, "references of 5 snapshots") || strings.Contains(text, scrubDamaged) {
		t.Errorf("log: %s", text)
	}

	flipAll(t, st.Path())
	upid = l.ok(admin, "POST", tank+"/verify", "scrub=1").(string)
	if s := l.wait(upid); s != errVerification.Error() {
		t.Errorf("damaged: %s\n%s", s, l.logOf(upid))
	}
	text := l.logOf(upid)
	for _, want := range []string{scrubDamaged + "vm/100/1970-01-01T00:16:40Z disk.img.didx: 1 chunk, the first ", scrubDamaged + "a/b:ct/1/", "1 pack is damaged", "heals"} {
		if !strings.Contains(text, want) {
			t.Errorf("the log lacks %q: %s", want, text)
		}
	}
	failed := map[string]any{"state": "failed", "upid": upid}
	if states := column(l.ok(admin, "GET", tank+"/snapshots", vm100), "verification"); !reflect.DeepEqual(states, []any{failed, failed}) {
		t.Errorf("states: %v", states)
	}

	// It was a passing fault: what is right again leaves the quarantine.
	flipAll(t, st.Path())
	if upid := l.ok(admin, "POST", tank+"/verify", "scrub=1"); l.wait(upid) != "OK" {
		t.Errorf("right again: %s", l.logOf(upid))
	}
}

// TestScrubVerdict tells damage that has to be dealt with from what is left of
// damage that a backup has healed.
func TestScrubVerdict(t *testing.T) {
	l := newLab(t, Options{})
	for name, c := range map[string]struct {
		damaged, packs int
		records        uint64
		want           error
	}{
		"healthy":         {0, 0, 0, nil},
		"healed":          {0, 1, 2, nil},
		"snapshot":        {1, 1, 1, errVerification},
		"missing chunks":  {1, 0, 0, errVerification},
		"table":           {0, 1, 0, errVerification},
		"table and stale": {0, 2, 1, errVerification},
	} {
		tk, err := l.tasks.Begin(t.Context(), task.Spec{Type: "verify", ID: "tank", Auth: admin})
		if err != nil {
			t.Fatal(err)
		}
		r := verify.StoreReport{Damaged: c.damaged, Scrub: pack.ScrubReport{PacksDamaged: c.packs, Damaged: c.records}}
		if err := scrubVerdict(tk, r); err != c.want {
			t.Errorf("%s: %v", name, err)
		}
		tk.End(nil)
	}
}

func TestDescribeAffected(t *testing.T) {
	a := verify.Affected{
		Snapshot: wire.Snapshot{Group: wire.Group{NS: "a", Type: "vm", ID: "1"}, Time: 10}, File: "x.didx", Deleted: true, Chunks: 2,
		Err: errVerification,
	}
	want := "a:vm/1/1970-01-01T00:00:10Z x.didx (in the trash): 2 chunks, the first " + a.First.String() + ": " + errVerification.Error()
	if got := describeAffected(a); got != want {
		t.Errorf("%s", got)
	}
}
