package manifest_test

import (
	"errors"
	"strings"
	"testing"

	"holdfast/datastore/manifest"
)

func TestOrigin(t *testing.T) {
	digest := strings.Repeat("ab", 32)
	tests := []struct {
		name string
		text string
		good bool
	}{
		{"root", `{"version":1,"namespace":""}`, true},
		{"namespace", `{"version":1,"namespace":"a/b"}`, true},
		{"previous", `{"version":1,"namespace":"a","previous":{"backup-time":1795312800,"manifest-sha256":"` + digest + `"}}`, true},
		{"empty", ``, false},
		{"no object", `[]`, false},
		{"no version", `{"namespace":"a"}`, false},
		{"newer", `{"version":2,"namespace":"a"}`, false},
		{"unknown member", `{"version":1,"namespace":"a","more":1}`, false},
		{"two values", `{"version":1,"namespace":"a"}{}`, false},
		{"short digest", `{"version":1,"namespace":"a","previous":{"backup-time":5,"manifest-sha256":"abcd"}}`, false},
		{"no time", `{"version":1,"namespace":"a","previous":{"manifest-sha256":"` + digest + `"}}`, false},
		{"time before all", `{"version":1,"namespace":"a","previous":{"backup-time":-5,"manifest-sha256":"` + digest + `"}}`, false},
		{"too long", `{"version":1,"namespace":"` + strings.Repeat("a", manifest.OriginSizeMax) + `"}`, false},
	}
	for _, c := range tests {
		t.Run(c.name, func(t *testing.T) {
			o, err := manifest.DecodeOrigin([]byte(c.text))
			if (err == nil) != c.good || err != nil && !errors.Is(err, manifest.ErrFormat) {
				t.Fatalf("decoded %+v: %v", o, err)
			}
			if err != nil {
				return
			}
			if again, err := o.Encode(); err != nil || string(again) != c.text {
				t.Errorf("encoded again: %s %v", again, err)
			}
		})
	}
}

func TestDigestIsOfWhatIsSigned(t *testing.T) {
	m := &manifest.Manifest{Type: "vm", ID: "100", Time: 5}
	before, err := m.Digest()
	if err != nil {
		t.Fatal(err)
	}
	m.SetNotes("kept for the auditor")
	if after, err := m.Digest(); err != nil || after != before {
		t.Errorf("notes change the digest (%v)", err)
	}
	m.Time++
	if after, err := m.Digest(); err != nil || after == before {
		t.Errorf("another time does not change the digest (%v)", err)
	}
}

func FuzzDecodeOrigin(f *testing.F) {
	f.Add([]byte(`{"version":1,"namespace":"a/b"}`))
	f.Add([]byte(`{"version":1,"namespace":"","previous":{"backup-time":5,"manifest-sha256":"` + strings.Repeat("0f", 32) + `"}}`))
	f.Fuzz(func(t *testing.T, raw []byte) {
		o, err := manifest.DecodeOrigin(raw)
		if err != nil {
			if !errors.Is(err, manifest.ErrFormat) {
				t.Fatalf("error of another kind: %v", err)
			}
			return
		}
		text, err := o.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if again, err := manifest.DecodeOrigin(text); err != nil || again != o {
			t.Fatalf("%+v came back as %+v: %v", o, again, err)
		}
	})
}
