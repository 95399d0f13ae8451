package manifest_test

import (
	"strings"
	"testing"

	"holdfast/datastore/manifest"
)

const marked = `{"backup-type":"vm","backup-id":"100","backup-time":1,"files":[],"signature":null,` +
	`"unprotected":{"later":{"n":12345678901234567890},"notes":"n","verify_state":{"state":"ok","upid":"UPID:old"}}}`

func TestMarksKeepTheRestOfTheUnprotectedPart(t *testing.T) {
	m, err := manifest.Decode([]byte(marked))
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := m.Verification(); !ok || v != (manifest.Verification{State: "ok", UPID: "UPID:old"}) {
		t.Errorf("verification: %+v %v", v, ok)
	}
	want := manifest.Verification{State: "failed", UPID: "UPID:new"}
	if err := m.SetVerification(want); err != nil {
		t.Fatal(err)
	}
	if err := m.SetUploadStats(manifest.UploadStats{Count: 1, Size: 2, CompressedSize: 3, Duplicates: 4}); err != nil {
		t.Fatal(err)
	}
	raw, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	again, err := manifest.Decode(raw)
	if err != nil {
		t.Fatal(err)
	}
	if v, ok := again.Verification(); !ok || v != want {
		t.Errorf("verification: %+v %v", v, ok)
	}
	if again.Notes() != "n" || string(again.Unprotected["later"]) != `{"n":12345678901234567890}` {
		t.Errorf("unprotected: %s", again.Unprotected)
	}
	stats := string(again.Unprotected["chunk_upload_stats"])
	for _, s := range []string{`"count":1`, `"size":2`, `"compressed_size":3`, `"duplicates":4`} {
		if !strings.Contains(stats, s) {
			t.Errorf("statistics %s lack %s", stats, s)
		}
	}
}

func TestVerificationThatCannotBeReadIsNone(t *testing.T) {
	for _, state := range []string{`"text"`, `[]`, `{}`, `{"state":5}`, `null`} {
		m, err := manifest.Decode([]byte(strings.Replace(marked, `{"state":"ok","upid":"UPID:old"}`, state, 1)))
		if err != nil {
			t.Fatal(err)
		}
		if v, ok := m.Verification(); ok {
			t.Errorf("%s: %+v", state, v)
		}
	}
	if v, ok := (&manifest.Manifest{}).Verification(); ok {
		t.Errorf("none: %+v", v)
	}
}
