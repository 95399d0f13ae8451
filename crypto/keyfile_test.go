package crypto_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"holdfast/crypto"
	"holdfast/tests/vectors"
)

// keyFileVector is an entry of the section key_files.
type keyFileVector struct {
	Name     string
	Text     string      `json:"file_text"`
	Password string      `json:"password_text"`
	Key      vectors.Hex `json:"enc_key"`
	Created  int64       `json:"created_epoch"`
	Modified int64       `json:"modified_epoch"`
	IV       vectors.Hex `json:"iv"`
	Salt     vectors.Hex
}

func keyFileVectors(tb testing.TB) []keyFileVector {
	tb.Helper()
	var cases []keyFileVector
	vectors.Section(tb, "key_files", &cases)
	if len(cases) == 0 {
		tb.Fatal("no cases")
	}
	return cases
}

func TestVectorsKeyFiles(t *testing.T) {
	for _, c := range keyFileVectors(t) {
		t.Run(c.Name, func(t *testing.T) {
			f, err := crypto.DecodeKeyFile([]byte(c.Text))
			if err != nil {
				t.Fatal(err)
			}
			if f.NeedsPassphrase() != (c.Password != "") {
				t.Errorf("needs a passphrase: %v", f.NeedsPassphrase())
			}
			k, err := f.Unlock([]byte(c.Password))
			if c.Key == nil {
				if !errors.Is(err, crypto.ErrTampered) {
					t.Errorf("unlock: %v, want ErrTampered", err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if got, want := k.Fingerprint(), newKey(t, c.Key).Fingerprint(); got != want {
				t.Errorf("another key: %s, want %s", got.Short(), want.Short())
			}
			checkTimes(t, f, c)
			// A text that has "Z" times or no fingerprint is not written so.
			if out, err := f.Encode(); err != nil || !strings.Contains(c.Text, `Z"`) && string(out) != c.Text {
				t.Errorf("encode: %v\n got %s\nwant %s", err, out, c.Text)
			}
		})
	}
}

func checkTimes(t *testing.T, f *crypto.KeyFile, c keyFileVector) {
	t.Helper()
	if c.Created != 0 && f.Created.Unix() != c.Created {
		t.Errorf("created %d, want %d", f.Created.Unix(), c.Created)
	}
	if c.Modified != 0 && f.Modified.Unix() != c.Modified {
		t.Errorf("modified %d, want %d", f.Modified.Unix(), c.Modified)
	}
}

// TestVectorsKeyFilesEncode makes the vectors' files anew, with their salt and
// nonce.
func TestVectorsKeyFilesEncode(t *testing.T) {
	kdfs := map[string]crypto.KDF{"kdf_none": crypto.KDFNone, "kdf_scrypt": crypto.KDFScrypt, "kdf_pbkdf2": crypto.KDFPBKDF2}
	for _, c := range keyFileVectors(t) {
		kdf, ok := kdfs[c.Name]
		if !ok {
			continue
		}
		want, err := crypto.DecodeKeyFile([]byte(c.Text))
		if err != nil {
			t.Fatal(err)
		}
		f, err := crypto.NewKeyFile(newKey(t, c.Key), crypto.KeyFileOptions{
			KDF:        kdf,
			Passphrase: []byte(c.Password),
			Hint:       want.Hint,
			Now:        want.Modified,
			Created:    want.Created,
			Rand:       bytes.NewReader(append(bytes.Clone(c.Salt), c.IV...)),
		})
		if err != nil {
			t.Fatalf("%s: %v", c.Name, err)
		}
		if got, err := f.Encode(); err != nil || string(got) != c.Text {
			t.Errorf("%s: %v\n got %s\nwant %s", c.Name, err, got, c.Text)
		}
	}
}

func TestNewKeyFileRoundTrip(t *testing.T) {
	k := testKey(t)
	pass := []byte("fünf & <sechs>")
	zone := time.FixedZone("", -(5*3600 + 1800))
	now := time.Date(2026, 2, 3, 4, 5, 6, 789, zone)
	for _, kdf := range []crypto.KDF{crypto.KDFNone, crypto.KDFPBKDF2} {
		o := crypto.KeyFileOptions{KDF: kdf, Now: now}
		if kdf != crypto.KDFNone {
			o.Passphrase, o.Hint = pass, `<the "usual" & more>`
		}
		f, err := crypto.NewKeyFile(k, o)
		if err != nil {
			t.Fatalf("%v: %v", kdf, err)
		}
		raw, err := f.Encode()
		if err != nil {
			t.Fatalf("%v: %v", kdf, err)
		}
		if !bytes.Contains(raw, []byte(`"created":"2026-02-03T04:05:06-05:30"`)) || bytes.Contains(raw, []byte(`\u00`)) {
			t.Errorf("%v: file is %s", kdf, raw)
		}
		g, err := crypto.DecodeKeyFile(raw)
		if err != nil {
			t.Fatalf("%v: %v", kdf, err)
		}
		if g.KDF != kdf || g.Hint != o.Hint || !g.Created.Equal(now.Truncate(time.Second)) || g.Fingerprint != k.Fingerprint() {
			t.Errorf("%v: file came back changed", kdf)
		}
		got, err := g.Unlock(o.Passphrase)
		if err != nil || got.Fingerprint() != k.Fingerprint() {
			t.Errorf("%v: unlock: %v", kdf, err)
		}
		if kdf == crypto.KDFPBKDF2 {
			checkWrongPassphrases(t, g)
		}
	}
}

func checkWrongPassphrases(t *testing.T, f *crypto.KeyFile) {
	t.Helper()
	for _, s := range []string{"", "four", "wrong passphrase"} {
		if _, err := f.Unlock([]byte(s)); !errors.Is(err, crypto.ErrWrongPassphrase) {
			t.Errorf("passphrase %q: %v", s, err)
		}
	}
}

func TestNewKeyFileRefuses(t *testing.T) {
	k := testKey(t)
	cases := map[string]crypto.KeyFileOptions{
		"short passphrase":        {KDF: crypto.KDFScrypt, Passphrase: []byte("four")},
		"passphrase without kdf":  {Passphrase: []byte("long enough")},
		"hint without passphrase": {Hint: "h"},
		"hint of two lines":       {KDF: crypto.KDFScrypt, Passphrase: []byte("long enough"), Hint: "a\nb"},
		"long hint":               {KDF: crypto.KDFScrypt, Passphrase: []byte("long enough"), Hint: strings.Repeat("ü", 65)},
		"unknown kdf":             {KDF: 9, Passphrase: []byte("long enough")},
		"no random bytes":         {KDF: crypto.KDFScrypt, Passphrase: []byte("long enough"), Rand: strings.NewReader("x")},
	}
	for name, o := range cases {
		if _, err := crypto.NewKeyFile(k, o); err == nil {
			t.Errorf("%s: no error", name)
		} else if strings.Contains(err.Error(), "long enough") {
			t.Errorf("%s: the passphrase is in the error", name)
		}
	}
	if _, err := crypto.NewKeyFile(nil, crypto.KeyFileOptions{}); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
	f, err := crypto.NewKeyFile(k, crypto.KeyFileOptions{Now: time.Date(12026, 1, 1, 0, 0, 0, 0, time.UTC)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.Encode(); !errors.Is(err, crypto.ErrFormat) {
		t.Errorf("year 12026: %v", err)
	}
}

// TestDecodeKeyFileRefuses changes one thing of a sound file at a time.
func TestDecodeKeyFileRefuses(t *testing.T) {
	text := make(map[string]string)
	for _, c := range keyFileVectors(t) {
		text[c.Name] = c.Text
	}
	none, scrypt, pbkdf2 := text["kdf_none"], text["kdf_scrypt"], text["kdf_pbkdf2"]
	cases := []struct{ name, text, from, to, want string }{
		{"n not a power of two", scrypt, `"n":65536`, `"n":65535`, "kdf scrypt: n is 65535"},
		{"n of one", scrypt, `"n":65536`, `"n":1`, "kdf scrypt: n is 1"},
		{"too much memory", scrypt, `"n":65536`, `"n":2097152`, "n of 2097152 with r of 8 takes more than 1024 MiB"},
		{"n near overflow", scrypt, `"n":65536`, `"n":9223372036854775808`, "takes more than 1024 MiB"},
		{"r of zero", scrypt, `"r":8`, `"r":0`, "kdf scrypt: r is 0"},
		{"r near overflow", scrypt, `"r":8`, `"r":18446744073709551615`, "kdf scrypt: r is 18446744073709551615"},
		{"p too large", scrypt, `"p":1`, `"p":17`, "kdf scrypt: p is 17"},
		{"p negative", scrypt, `"p":1`, `"p":-1`, "Scrypt at byte 17: p at byte 38: -1 is not"},
		{"p missing", scrypt, `"p":1,`, ``, "Scrypt at byte 17: p is missing"},
		{"iter of zero", pbkdf2, `65535`, `0`, "kdf pbkdf2: iter is 0"},
		{"iter too large", pbkdf2, `65535`, `10000001`, "kdf pbkdf2: iter is 10000001"},
		{"iter no integer", pbkdf2, `65535`, `1e3`, "PBKDF2 at byte 17: iter at byte 25"},
		{"unknown kdf", pbkdf2, `PBKDF2`, `Argon2`, "Argon2 at byte 17: unknown function"},
		{"lower-case kdf", scrypt, `Scrypt`, `scrypt`, "scrypt at byte 17: unknown function"},
		{"two kdfs", pbkdf2, `{"PBKDF2":`, `{"Scrypt":{"n":2,"r":1,"p":1,"salt":""},"PBKDF2":`, "2 functions instead of one"},
		{"empty kdf", none, `null`, `{}`, "kdf at byte 7: 0 functions"},
		{"kdf no object", none, `null`, `1`, "kdf at byte 7: want a JSON object"},
		{"salt too long", pbkdf2, `QEFC`, strings.Repeat("QEFC", 400), "salt has 1229 bytes"},
		{"data not base64", none, `AAECAwQF`, `AAEC!wQF`, "data at byte 96: want base64"},
		{"data with a line break", none, `AAECAwQF`, `AAEC\nAwQF`, "data at byte 96: want base64"},
		{"data too short", none, `AAECAwQF`, ``, "data of 26 bytes, want 32"},
		{"open data with kdf", none, `null`, `{"PBKDF2":{"iter":1,"salt":""}}`, "data of 32 bytes, want 64"},
		{"data missing", none, `"data"`, `"Data"`, "data is missing"},
		{"data a number", none, `"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="`, `1`, "data at byte 96: want a string"},
		{"time with fraction", none, `"created":"2020-06-26T13:56:05+00:00"`, `"created":"2020-06-26T13:56:05.123456Z"`, "created at byte 22"},
		{"time without zone", none, `"created":"2020-06-26T13:56:05+00:00"`, `"created":"2020-06-26T13:56:05"`, "created at byte 22"},
		{"month 13", none, `"created":"2020-06`, `"created":"2020-13`, "created at byte 22"},
		{"short fingerprint", none, `0e:ab:`, ``, "fingerprint at byte"},
		{"long hint", scrypt, `"horse"`, `"` + strings.Repeat("h", 65) + `"`, "hint at byte"},
		{"hint with escape sequence", scrypt, `"horse"`, `"\u001b[2J"`, "hint at byte"},
		{"member twice", none, `"created"`, `"kdf":null,"created"`, "kdf at byte 18: second member"},
		{"more text", none, `}`, `} x`, "more text at byte"},
		{"no object", none, none, `[]`, "want a JSON object at byte 0"},
		{"empty", none, none, ``, "want a JSON object at byte 0"},
		{"cut off", none, none, none[:50], "at byte"},
		{"not UTF-8", scrypt, `horse`, "\xff", "UTF-8"},
		{"too large", none, `{`, `{` + strings.Repeat(" ", 64<<10), "at most 65536"},
	}
	for _, c := range cases {
		text := strings.Replace(c.text, c.from, c.to, 1)
		if text == c.text {
			t.Fatalf("%s: nothing was changed", c.name)
		}
		_, err := crypto.DecodeKeyFile([]byte(text))
		if !errors.Is(err, crypto.ErrFormat) || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v, want …%s…", c.name, err, c.want)
		}
		if err != nil && strings.Contains(err.Error(), "AwQF") {
			t.Errorf("%s: key data in the error: %v", c.name, err)
		}
	}
}

func TestDecodeKeyFileAccepts(t *testing.T) {
	text := keyFileVectors(t)[0].Text
	for name, r := range map[string][2]string{
		"unknown member":   {`"created"`, `"x":{"y":[1,"z",null]},"created"`},
		"null fingerprint": {`"fingerprint":"0e:ab:d4:46:0b:6e:b9:ca:34:50:23:de:e2:b7:78:c7:90:e5:4a:16:83:b9:65:9c:0a:57:ae:19:90:90:15:9b"`, `"fingerprint":null,"hint":null`},
		"white space":      {`{"kdf":null,`, " {\n\t\"kdf\" :\r\n null , "},
		"no kdf":           {`"kdf":null,`, ``},
	} {
		changed := strings.Replace(text, r[0], r[1], 1)
		if changed == text {
			t.Fatalf("%s: nothing was changed", name)
		}
		f, err := crypto.DecodeKeyFile([]byte(changed))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if _, err := f.Unlock(nil); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func FuzzDecodeKeyFile(f *testing.F) {
	for _, c := range keyFileVectors(f) {
		f.Add([]byte(c.Text))
	}
	f.Fuzz(func(t *testing.T, raw []byte) {
		k, err := crypto.DecodeKeyFile(raw)
		if err != nil {
			if !errors.Is(err, crypto.ErrFormat) {
				t.Fatalf("error without ErrFormat: %v", err)
			}
			return
		}
		out, err := k.Encode()
		if err != nil {
			t.Fatalf("encode what was decoded: %v", err)
		}
		again, err := crypto.DecodeKeyFile(out)
		if err != nil {
			t.Fatalf("decode what was encoded: %v\n%s", err, out)
		}
		if second, err := again.Encode(); err != nil || !bytes.Equal(out, second) {
			t.Fatalf("encoding is not stable: %v\n%s\n%s", err, out, second)
		}
	})
}
