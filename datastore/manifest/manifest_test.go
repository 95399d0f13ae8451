package manifest_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/manifest"
	"holdfast/tests/vectors"
)

func newKey(tb testing.TB, enc []byte) *crypto.Key {
	tb.Helper()
	k, err := crypto.NewKey(enc)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

type manifestVector struct {
	Name      string
	Key       vectors.Hex `json:"enc_key"`
	Canonical string      `json:"canonical_json_text"`
	Signature string
	Pretty    string      `json:"pretty_json_text"`
	Blob      vectors.Hex `json:"blob_uncompressed"`
	ZeroKey   string      `json:"signature_with_all_zero_key"`
}

func loadVectors(tb testing.TB) []manifestVector {
	tb.Helper()
	var vs []manifestVector
	vectors.Section(tb, "manifest", &vs)
	if len(vs) == 0 {
		tb.Fatal("no vectors")
	}
	return vs
}

func decode(tb testing.TB, text string) *manifest.Manifest {
	tb.Helper()
	m, err := manifest.Decode([]byte(text))
	if err != nil {
		tb.Fatal(err)
	}
	return m
}

func TestVectorsManifest(t *testing.T) {
	for _, v := range loadVectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			m := decode(t, v.Pretty)
			if out, err := m.Encode(); err != nil || string(out) != v.Pretty {
				t.Errorf("encode: %v\n got %s\nwant %s", err, out, v.Pretty)
			}
			if v.Blob != nil && string(v.Blob[12:]) != v.Pretty {
				t.Error("the blob of the vector does not hold its text")
			}
			if v.Key == nil {
				if err := m.Verify(newKey(t, make([]byte, 32))); !errors.Is(err, manifest.ErrUnsigned) {
					t.Errorf("verify: %v", err)
				}
				return
			}
			checkSigned(t, m, v)
		})
	}
}

// TestVectorsManifestBlob opens the blob of the vector and seals it again.
func TestVectorsManifestBlob(t *testing.T) {
	found := false
	for _, v := range loadVectors(t) {
		if v.Blob == nil {
			continue
		}
		found = true
		for _, raw := range []chunkstore.Blob{chunkstore.Blob(v.Blob), seal(t, decode(t, v.Pretty))} {
			m, err := manifest.Open(raw)
			if err != nil {
				t.Fatal(err)
			}
			if out, err := m.Encode(); err != nil || string(out) != v.Pretty {
				t.Errorf("encode: %v\n got %s\nwant %s", err, out, v.Pretty)
			}
		}
		v.Blob[20] ^= 1
		if _, err := manifest.Open(chunkstore.Blob(v.Blob)); !errors.Is(err, chunkstore.ErrCorrupt) {
			t.Errorf("damaged blob: %v", err)
		}
	}
	if !found {
		t.Error("no vector has a blob")
	}
	if _, err := (&manifest.Manifest{}).Blob(); !errors.Is(err, manifest.ErrFormat) {
		t.Errorf("seal an empty manifest: %v", err)
	}
}

func seal(t *testing.T, m *manifest.Manifest) chunkstore.Blob {
	t.Helper()
	s, err := m.Blob()
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func checkSigned(t *testing.T, m *manifest.Manifest, v manifestVector) {
	t.Helper()
	if got, err := m.Canonical(); err != nil || string(got) != v.Canonical {
		t.Errorf("canonical: %v\n got %s\nwant %s", err, got, v.Canonical)
	}
	k := newKey(t, v.Key)
	if err := m.Verify(k); err != nil {
		t.Errorf("verify: %v", err)
	}
	if m.Signature != v.Signature {
		t.Errorf("signature %s, want %s", m.Signature, v.Signature)
	}
	m.Signature = ""
	if err := m.Sign(k); err != nil || m.Signature != v.Signature {
		t.Errorf("sign: %v, %s, want %s", err, m.Signature, v.Signature)
	}
	if f, ok, err := m.KeyFingerprint(); err != nil || !ok || f != k.Fingerprint() {
		t.Errorf("fingerprint %s, %v, %v", f, ok, err)
	}
	if v.ZeroKey != "" {
		if err := m.Sign(newKey(t, make([]byte, 32))); err != nil || m.Signature != v.ZeroKey {
			t.Errorf("sign with the zero key: %v, %s, want %s", err, m.Signature, v.ZeroKey)
		}
	}
}

// text is a sound manifest for tests that change it.
const text = `{
  "backup-id": "100",
  "backup-time": 1717597476,
  "backup-type": "vm",
  "files": [
    {
      "crypt-mode": "encrypt",
      "csum": "bd05492987720e1156731a7eb3c9dfc4ff0ba3a609056949f07f3fb1e5fd10e0",
      "filename": "disk0.img.fidx",
      "size": 34359738368
    },
    {
      "crypt-mode": "none",
      "csum": "3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
      "filename": "qemu-server.conf.blob",
      "size": 524
    }
  ],
  "signature": null,
  "unprotected": {}
}`

func TestDecodeRefuses(t *testing.T) {
	for _, c := range []struct{ name, from, to, want string }{
		{"no object", text, `[]`, "an array at byte 0 instead of an object"},
		{"type", `"vm"`, `"lxc"`, `backup-type at byte 70: "lxc"`},
		{"type missing", `"backup-type"`, `"type"`, "backup-type at byte 0: missing"},
		{"id with slash", `"100"`, `"a/b"`, `backup-id at byte 17: name "a/b"`},
		{"id of dots", `"100"`, `".."`, "backup-id at byte 17"},
		{"id empty", `"100"`, `""`, "backup-id at byte 17"},
		{"id too long", `"100"`, `"` + strings.Repeat("x", 300) + `"`, "300 bytes, want 1..200"},
		{"id a number", `"100"`, `100`, "backup-id at byte 17: a number instead of a string"},
		{"time of zero", `1717597476`, `0`, "backup-time at byte 41: 0 is not"},
		{"time negative", `1717597476`, `-5`, "backup-time at byte 41"},
		{"time far away", `1717597476`, `253402300800`, "backup-time at byte 41"},
		{"time a fraction", `1717597476`, `1.5`, "backup-time at byte 41"},
		{"time a string", `1717597476`, `"1"`, "backup-time at byte 41: a string instead of a number"},
		{"files missing", `"files"`, `"fils"`, "files at byte 0: missing"},
		{"files null", text[strings.Index(text, "[") : strings.Index(text, "]")+1], `null`, "files at byte 0: missing"},
		{"file no object", `"files": [`, `"files": [7,`, "files[0] at byte 88: a number instead of an object"},
		{"crypt mode", `"encrypt"`, `"rot13"`, `files[0].crypt-mode at byte 115: crypt mode "rot13"`},
		{"csum short", `bd05`, ``, "files[0].csum at byte 140: 60 characters"},
		{"csum no hex", `bd05`, `zz05`, "files[0].csum at byte 140: not hex"},
		{"name with path", `disk0.img.fidx`, `../disk0.img.fidx`, "files[0].filename at byte 226"},
		{"name hidden", `disk0.img.fidx`, `.fidx`, "files[0].filename"},
		{"name without extension", `disk0.img.fidx`, `disk0.img`, "does not end in"},
		{"name with NUL", `disk0.img.fidx`, `disk0\u0000.fidx`, "files[0].filename"},
		{"name of the manifest", `disk0.img.fidx`, `index.json.blob`, "is the manifest itself"},
		{"name twice", `qemu-server.conf.blob`, `disk0.img.fidx`, `files[1].filename at byte 411: "disk0.img.fidx" is listed twice`},
		{"size negative", `34359738368`, `-1`, "files[0].size at byte 258"},
		{"size absurd", `34359738368`, `9223372036854775808`, "files[0].size at byte 258"},
		{"size missing", `"size": 34359738368`, `"x": 1`, "files[0].size at byte 93: missing"},
		{"signature short", `null`, `"ab"`, "signature at byte 480: 2 characters"},
		{"signature empty", `null`, `""`, "signature at byte 480: 0 characters"},
		{"signature no hex", `null`, `"` + strings.Repeat("zz", 32) + `"`, "signature at byte 480: not hex"},
		{"signature a number", `null`, `5`, "signature at byte 480: a number"},
		{"unprotected no object", `{}`, `[]`, "unprotected at byte 503: an array"},
		{"member twice", `"backup-id"`, `"backup-id": "5", "backup-id"`, `second member "backup-id"`},
		{"cut off", text[100:], ``, "JSON at byte"},
		{"too large", text, strings.Repeat(" ", 16<<20+1), "at most 2097152"},
	} {
		changed := strings.Replace(text, c.from, c.to, 1)
		if changed == text {
			t.Fatalf("%s: nothing was changed", c.name)
		}
		_, err := manifest.Decode([]byte(changed))
		if !errors.Is(err, manifest.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", c.name, err, c.want)
		}
	}
}

func TestDecodeAccepts(t *testing.T) {
	want, err := decode(t, text).Canonical()
	if err != nil {
		t.Fatal(err)
	}
	var compact bytes.Buffer
	if err := json.Compact(&compact, []byte(text)); err != nil {
		t.Fatal(err)
	}
	for name, changed := range map[string]string{
		"compact":              compact.String(),
		"missing crypt mode":   strings.Replace(text, `"crypt-mode": "none",`, ``, 1),
		"null crypt mode":      strings.Replace(text, `"crypt-mode": "none"`, `"crypt-mode": null`, 1),
		"missing signature":    strings.Replace(text, `"signature": null,`, ``, 1),
		"missing unprotected":  strings.Replace(text, ",\n  \"unprotected\": {}", ``, 1),
		"null unprotected":     strings.Replace(text, `{}`, `null`, 1),
		"unknown members":      strings.Replace(strings.Replace(text, `"files"`, `"x": [null], "files"`, 1), `"csum"`, `"y": 1.5, "csum"`, 1),
		"upper-case checksums": strings.Replace(text, "bd05492987720e1156731a", "BD05492987720E1156731A", 1),
	} {
		m := decode(t, changed)
		if got, err := m.Canonical(); err != nil || !bytes.Equal(got, want) {
			t.Errorf("%s: %v\n got %s\nwant %s", name, err, got, want)
		}
		if out, err := m.Encode(); err != nil || string(out) != text {
			t.Errorf("%s: encode: %v\n%s", name, err, out)
		}
	}
}

func TestUnprotectedSurvives(t *testing.T) {
	in := `{"z":[1.50,{"b":null,"a":[]}],"chunk_upload_stats":{"size":1,"count":18446744073709551615},"notes":"a\n<b> & \"c\" ä"}`
	want := strings.Replace(text, `"unprotected": {}`, `"unprotected": {
    "chunk_upload_stats": {
      "count": 18446744073709551615,
      "size": 1
    },
    "notes": "a\n<b> & \"c\" ä",
    "z": [
      1.50,
      {
        "a": [],
        "b": null
      }
    ]
  }`, 1)
	m := decode(t, strings.Replace(text, `{}`, in, 1))
	if out, err := m.Encode(); err != nil || string(out) != want {
		t.Errorf("encode: %v\n got %s\nwant %s", err, out, want)
	}
	if got := m.Notes(); got != "a\n<b> & \"c\" ä" {
		t.Errorf("notes %q", got)
	}
	m.Unprotected["bad"] = json.RawMessage(`{`)
	if _, err := m.Encode(); !errors.Is(err, manifest.ErrFormat) || !strings.Contains(err.Error(), "unprotected.bad") {
		t.Errorf("encode of broken JSON: %v", err)
	}
}

func TestNotes(t *testing.T) {
	m := decode(t, text)
	if got := m.Notes(); got != "" {
		t.Errorf("notes %q before any", got)
	}
	m.SetNotes("")
	for _, s := range []string{"line\nline", "<&>\u2028", "\x00\x1f", `"\`} {
		m.SetNotes(s)
		out, err := m.Encode()
		if err != nil {
			t.Fatal(err)
		}
		if got := decode(t, string(out)).Notes(); got != s {
			t.Errorf("notes %q came back as %q", s, got)
		}
	}
	m.SetNotes("not \xff UTF-8")
	if got := m.Notes(); got != "not \uFFFD UTF-8" {
		t.Errorf("notes %q", got)
	}
	m.SetNotes("")
	if _, ok := m.Unprotected["notes"]; ok {
		t.Error("empty notes are kept")
	}
	m.Unprotected = map[string]json.RawMessage{"notes": json.RawMessage(`5`)}
	if got := m.Notes(); got != "" {
		t.Errorf("notes %q from a number", got)
	}
	(&manifest.Manifest{}).SetNotes("on nothing")
}

// signed returns a signed manifest that has been written and read.
func signed(t *testing.T, k *crypto.Key) *manifest.Manifest {
	t.Helper()
	m := decode(t, text)
	if err := m.Sign(k); err != nil {
		t.Fatal(err)
	}
	out, err := m.Encode()
	if err != nil {
		t.Fatal(err)
	}
	return decode(t, string(out))
}

func TestVerifyOtherKey(t *testing.T) {
	key := newKey(t, bytes.Repeat([]byte{1}, 32))
	other := newKey(t, bytes.Repeat([]byte{2}, 32))
	m := signed(t, key)
	if err := m.Verify(key); err != nil {
		t.Fatal(err)
	}
	err := m.Verify(other)
	if !errors.Is(err, crypto.ErrWrongKey) ||
		!strings.Contains(err.Error(), key.Fingerprint().Short()) || !strings.Contains(err.Error(), other.Fingerprint().Short()) {
		t.Errorf("another key: %v", err)
	}
	delete(m.Unprotected, "key-fingerprint")
	if err := m.Verify(other); !errors.Is(err, crypto.ErrTampered) {
		t.Errorf("another key without key id: %v", err)
	}
	if err := m.Verify(nil); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("verify without key: %v", err)
	}
	if err := m.Sign(nil); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("sign without key: %v", err)
	}
}

func TestVerifyFindsChanges(t *testing.T) {
	key := newKey(t, bytes.Repeat([]byte{1}, 32))
	for name, c := range map[string]struct {
		change func(m *manifest.Manifest)
		want   error
	}{
		"no signature":      {func(m *manifest.Manifest) { m.Signature = "" }, manifest.ErrUnsigned},
		"other signature":   {func(m *manifest.Manifest) { m.Signature = strings.Repeat("00", 32) }, crypto.ErrTampered},
		"broken signature":  {func(m *manifest.Manifest) { m.Signature = "zz" }, manifest.ErrFormat},
		"other id":          {func(m *manifest.Manifest) { m.ID = "101" }, crypto.ErrTampered},
		"other type":        {func(m *manifest.Manifest) { m.Type = "ct" }, crypto.ErrTampered},
		"other time":        {func(m *manifest.Manifest) { m.Time++ }, crypto.ErrTampered},
		"other file name":   {func(m *manifest.Manifest) { m.Files[0].Name = "disk1.img.fidx" }, crypto.ErrTampered},
		"other crypt mode":  {func(m *manifest.Manifest) { m.Files[0].CryptMode = crypto.ModeNone }, crypto.ErrTampered},
		"other size":        {func(m *manifest.Manifest) { m.Files[0].Size++ }, crypto.ErrTampered},
		"other checksum":    {func(m *manifest.Manifest) { m.Files[0].Csum[0] ^= 1 }, crypto.ErrTampered},
		"file missing":      {func(m *manifest.Manifest) { m.Files = m.Files[:1] }, crypto.ErrTampered},
		"files swapped":     {func(m *manifest.Manifest) { m.Files[0], m.Files[1] = m.Files[1], m.Files[0] }, crypto.ErrTampered},
		"broken id":         {func(m *manifest.Manifest) { m.ID = "" }, manifest.ErrFormat},
		"broken key id":     {func(m *manifest.Manifest) { m.Unprotected["key-fingerprint"] = json.RawMessage(`"ab"`) }, manifest.ErrFormat},
		"key id a number":   {func(m *manifest.Manifest) { m.Unprotected["key-fingerprint"] = json.RawMessage(`1`) }, manifest.ErrFormat},
		"no key id":         {func(m *manifest.Manifest) { delete(m.Unprotected, "key-fingerprint") }, nil},
		"null key id":       {func(m *manifest.Manifest) { m.Unprotected["key-fingerprint"] = json.RawMessage(`null`) }, nil},
		"other notes":       {func(m *manifest.Manifest) { m.SetNotes("changed") }, nil},
		"upper-case digits": {func(m *manifest.Manifest) { m.Signature = strings.ToUpper(m.Signature) }, nil},
	} {
		m := signed(t, key)
		c.change(m)
		if err := m.Verify(key); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestEncodeRefuses(t *testing.T) {
	for want, change := range map[string]func(m *manifest.Manifest){
		"backup-type":         func(m *manifest.Manifest) { m.Type = "" },
		"backup-id":           func(m *manifest.Manifest) { m.ID = "a b" },
		"backup-time":         func(m *manifest.Manifest) { m.Time = 0 },
		"files[1].filename":   func(m *manifest.Manifest) { m.Files[1].Name = m.Files[0].Name },
		"files[0].filename":   func(m *manifest.Manifest) { m.Files[0].Name = "x" },
		"files[0].crypt-mode": func(m *manifest.Manifest) { m.Files[0].CryptMode = "" },
		"files[0].size":       func(m *manifest.Manifest) { m.Files[0].Size = 1 << 63 },
		"signature":           func(m *manifest.Manifest) { m.Signature = "x" },
	} {
		m := decode(t, text)
		change(m)
		if _, err := m.Encode(); !errors.Is(err, manifest.ErrFormat) || !strings.Contains(err.Error(), want+":") {
			t.Errorf("%s: encode: %v", want, err)
		}
		if err := m.Sign(newKey(t, make([]byte, 32))); !errors.Is(err, manifest.ErrFormat) {
			t.Errorf("%s: sign: %v", want, err)
		}
	}
}

func TestLookup(t *testing.T) {
	m := &manifest.Manifest{Files: []manifest.File{
		{Name: "a.img.didx"}, {Name: "a.img.fidx"}, {Name: "b.img.didx"}, {Name: "root.pxar.didx"},
		{Name: "s.mpxar.didx"}, {Name: "s.ppxar.didx"}, {Name: "catalog.pcat1.didx"},
		{Name: "c.conf.blob"}, {Name: "l.log.blob"}, {Name: "j.json.blob"}, {Name: "rsa-encrypted.key.blob"},
	}}
	for name, want := range map[string]string{
		"a.img.didx": "a.img.didx", "a.img": "a.img.fidx", "b.img": "b.img.didx", "root.pxar": "root.pxar.didx",
		"s.mpxar": "s.mpxar.didx", "s.ppxar": "s.ppxar.didx", "catalog.pcat1": "catalog.pcat1.didx",
		"c.conf": "c.conf.blob", "l.log": "l.log.blob", "j.json": "j.json.blob", "rsa-encrypted.key": "rsa-encrypted.key.blob",
	} {
		if f, err := m.Lookup(name); err != nil || f.Name != want {
			t.Errorf("%s: %q, %v, want %s", name, f.Name, err, want)
		}
	}
	for _, name := range []string{"", "a", "x.img", "root", "c", ".img", "a.img.blob"} {
		_, err := m.Lookup(name)
		if !errors.Is(err, manifest.ErrNotFound) || !strings.Contains(err.Error(), "b.img.didx, root.pxar.didx") {
			t.Errorf("%q: %v", name, err)
		}
	}
	if _, err := (&manifest.Manifest{}).Lookup("x"); !errors.Is(err, manifest.ErrNotFound) || !strings.Contains(err.Error(), "nothing") {
		t.Errorf("empty manifest: %v", err)
	}
	for i := range 100 {
		m.Files = append(m.Files, manifest.File{Name: fmt.Sprintf("%d.blob", i)})
	}
	if _, err := m.Lookup("x"); !strings.Contains(err.Error(), "and 91 more") {
		t.Errorf("many files: %v", err)
	}
}

func FuzzDecode(f *testing.F) {
	for _, v := range loadVectors(f) {
		f.Add([]byte(v.Pretty))
		f.Add([]byte(v.Canonical))
	}
	f.Add([]byte(text))
	key := newKey(f, bytes.Repeat([]byte{3}, 32))
	f.Fuzz(func(t *testing.T, raw []byte) {
		m, err := manifest.Decode(raw)
		if err != nil {
			if !errors.Is(err, manifest.ErrFormat) {
				t.Fatalf("error without ErrFormat: %v", err)
			}
			return
		}
		out, err := m.Encode()
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		again, err := manifest.Decode(out)
		if err != nil {
			t.Fatalf("decode what was encoded: %v\n%s", err, out)
		}
		if second, err := again.Encode(); err != nil || !bytes.Equal(out, second) {
			t.Fatalf("encoding is not stable: %v\n%s\n%s", err, out, second)
		}
		if err := again.Sign(key); err != nil {
			t.Fatalf("sign: %v", err)
		}
		if err := again.Verify(key); err != nil {
			t.Fatalf("verify what was signed: %v", err)
		}
		_ = m.Notes()
		_, _ = m.Lookup("x.img")
	})
}

// Which archives are metadata is told by their names alone.
func TestMetadataByName(t *testing.T) {
	for name, want := range map[string]bool{
		"root.mpxar.didx": true, "ROOT.MPXAR.didx": true, "a.b.mpxar.didx": true,
		"root.ppxar.didx": false, "root.pxar.didx": false, "root.mpxar.fidx": false, "root.mpxar.blob": false, "root.mpxar": false,
		"mpxar.didx": false, ".mpxar.didx": false, "": false, "root.mpxar.didx.didx": false, "rootmpxar.didx": false,
	} {
		if got := manifest.IsMeta(name); got != want {
			t.Errorf("%q: %v", name, got)
		}
		m := manifest.Manifest{Files: []manifest.File{{Name: name, CryptMode: crypto.ModeEncrypt}}}
		for class, of := range map[chunkstore.Class]string{m.ClassOf(name): name, m.ClassOf("x" + name): "x" + name} {
			if !manifest.ClassesIn(of).Has(class) || class.Encrypted() != (of == name) || class.Meta() != manifest.IsMeta(of) {
				t.Errorf("%q is of class %d", of, class)
			}
		}
	}
}
