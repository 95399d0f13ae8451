package crypto

import (
	"crypto/x509/pkix"
	"encoding/asn1"
	"errors"
	"strings"
	"testing"
)

// TestPBKDF2Limits asks for costs that OpenSSL would take long to produce.
func TestPBKDF2Limits(t *testing.T) {
	prf := pkix.AlgorithmIdentifier{Algorithm: oidHMACSHA256, Parameters: asn1.NullRawValue}
	salt := make([]byte, saltSizeMax)
	for _, c := range []struct {
		name string
		kdf  pbkdf2Params
		want string
	}{
		{"no iteration", pbkdf2Params{Salt: salt, Iter: 0, PRF: prf}, "iteration count is 0"},
		{"negative", pbkdf2Params{Salt: salt, Iter: -1, PRF: prf}, "iteration count is -1"},
		{"too many", pbkdf2Params{Salt: salt, Iter: pbkdf2IterMax + 1, PRF: prf}, "iteration count is 10000001"},
		{"long salt", pbkdf2Params{Salt: append(salt, 0), Iter: 1, PRF: prf}, "salt has 1025 bytes"},
		{"key length", pbkdf2Params{Salt: salt, Iter: 1, KeyLength: 16, PRF: prf}, "key length is 16"},
		{"hash function", pbkdf2Params{Salt: salt, Iter: 1, PRF: pkix.AlgorithmIdentifier{Algorithm: oidPBES2}}, "hash function"},
		{"largest", pbkdf2Params{Salt: salt, Iter: pbkdf2IterMax, KeyLength: 32, PRF: prf}, ""},
		{"no hash function", pbkdf2Params{Salt: salt, Iter: 1}, ""},
	} {
		p := pbes2{keySize: KeySize}
		err := p.setKDF(c.kdf)
		switch {
		case c.want == "" && (err != nil || p.prf == nil || p.iter != c.kdf.Iter):
			t.Errorf("%s: %v", c.name, err)
		case c.want != "" && (!errors.Is(err, ErrFormat) || !strings.Contains(err.Error(), c.want)):
			t.Errorf("%s: %v, want …%s…", c.name, err, c.want)
		}
	}
}

func TestTrimPadding(t *testing.T) {
	block := strings.Repeat("x", 16)
	for in, want := range map[string]string{
		block[:15] + "\x01":                block[:15],
		block[:13] + "\x03\x03\x03":        block[:13],
		strings.Repeat("\x10", 16):         "",
		block + strings.Repeat("\x10", 16): block,
	} {
		if got, err := trimPadding([]byte(in)); err != nil || string(got) != want {
			t.Errorf("%q: %q, %v", in, got, err)
		}
	}
	for _, in := range []string{block[:15] + "\x00", block[:15] + "\x11", block[:13] + "\x02\x03\x03"} {
		if _, err := trimPadding([]byte(in)); !errors.Is(err, errPadding) {
			t.Errorf("%q: %v", in, err)
		}
	}
}
