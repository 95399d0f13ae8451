package crypto_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"strings"
	"testing"

	"holdfast/crypto"
	"holdfast/tests/vectors"
)

// testKey returns the key 00 01 02 … 1f of the vectors.
func testKey(tb testing.TB) *crypto.Key {
	tb.Helper()
	enc := make([]byte, crypto.KeySize)
	for i := range enc {
		enc[i] = byte(i)
	}
	return newKey(tb, enc)
}

func newKey(tb testing.TB, enc []byte) *crypto.Key {
	tb.Helper()
	k, err := crypto.NewKey(enc)
	if err != nil {
		tb.Fatal(err)
	}
	return k
}

func TestVectorsCryptConfig(t *testing.T) {
	var cases []struct {
		Name            string
		EncKey          vectors.Hex `json:"enc_key"`
		Fingerprint     vectors.Hex
		FingerprintText string      `json:"fingerprint_text"`
		ShortText       string      `json:"short_key_id_text"`
		Tag             vectors.Hex `json:"hmac_auth_tag_of_hello_world"`
	}
	vectors.Section(t, "crypt_config", &cases)
	if len(cases) == 0 {
		t.Fatal("no cases")
	}
	msg := []byte("hello world")
	for _, c := range cases {
		k := newKey(t, c.EncKey)
		f := k.Fingerprint()
		if !bytes.Equal(f[:], c.Fingerprint) {
			t.Errorf("%s: fingerprint %x, want %x", c.Name, f[:], c.Fingerprint)
		}
		if f.String() != c.FingerprintText || f.Short() != c.ShortText {
			t.Errorf("%s: fingerprint %q, short %q", c.Name, f, f.Short())
		}
		if got, err := crypto.ParseFingerprint(c.FingerprintText); err != nil || got != f {
			t.Errorf("%s: parse: %v, %v", c.Name, got, err)
		}
		tag := k.Sign(msg)
		if !bytes.Equal(tag[:], c.Tag) {
			t.Errorf("%s: tag %x, want %x", c.Name, tag[:], c.Tag)
		}
		if !k.CheckSignature(msg, tag) {
			t.Errorf("%s: own tag refused", c.Name)
		}
		tag[31] ^= 1
		if k.CheckSignature(msg, tag) {
			t.Errorf("%s: wrong tag accepted", c.Name)
		}
	}
}

func TestVectorsFingerprintConstant(t *testing.T) {
	var c struct {
		Text string      `json:"input_text"`
		Sum  vectors.Hex `json:"sha256"`
	}
	vectors.Section(t, "fingerprint_constant", &c)
	if got := crypto.Sum([]byte(c.Text)); !bytes.Equal(got[:], c.Sum) {
		t.Errorf("got %x, want %x", got, c.Sum)
	}
}

func TestVectorsDigests(t *testing.T) {
	var cases []struct {
		Name  string
		Len   int
		Data  *vectors.Hex
		Plain vectors.Hex
		Keyed vectors.Hex `json:"keyed_key_00_to_1f"`
		Ones  vectors.Hex `json:"keyed_key_01_x32"`
	}
	vectors.Section(t, "digests", &cases)
	ones := newKey(t, bytes.Repeat([]byte{1}, 32))
	for _, c := range cases {
		data := make([]byte, c.Len)
		for i := range data {
			data[i] = byte(i % 255)
		}
		if c.Data != nil {
			data = *c.Data
		}
		for _, d := range []struct {
			key  *crypto.Key
			want []byte
		}{{nil, c.Plain}, {testKey(t), c.Keyed}, {ones, c.Ones}} {
			if got := d.key.Name(data); !bytes.Equal(got[:], d.want) {
				t.Errorf("%s: name %x, want %x", c.Name, got, d.want)
			}
		}
	}
}

func TestVectorsZeroChunks(t *testing.T) {
	var cases []struct {
		Size  int `json:"zero_bytes"`
		Plain vectors.Hex
		Keyed vectors.Hex `json:"keyed_key_00_to_1f"`
	}
	vectors.Section(t, "zero_chunks", &cases)
	var none *crypto.Key
	for _, c := range cases {
		if got := none.Name(make([]byte, c.Size)); !bytes.Equal(got[:], c.Plain) {
			t.Errorf("%d zeros: %x, want %x", c.Size, got, c.Plain)
		}
		if got := testKey(t).Name(make([]byte, c.Size)); !bytes.Equal(got[:], c.Keyed) {
			t.Errorf("%d zeros, keyed: %x, want %x", c.Size, got, c.Keyed)
		}
	}
}

func TestVectorsMagics(t *testing.T) {
	var cases map[string]struct {
		Hex  vectors.Hex
		Text string `json:"is_first_8_bytes_of_sha256_of_text"`
	}
	vectors.Section(t, "magics", &cases)
	for name, c := range cases {
		if got := crypto.Sum([]byte(c.Text)); !bytes.Equal(got[:8], c.Hex) {
			t.Errorf("%s: %x, want %x", name, got[:8], c.Hex)
		}
	}
}

func TestNameAllocatesNothing(t *testing.T) {
	data := make([]byte, 1<<16)
	for name, k := range map[string]*crypto.Key{"plain": nil, "keyed": testKey(t)} {
		k.Name(data)
		// The race detector makes pools forget, so that a rare allocation
		// proves nothing.
		if n := testing.AllocsPerRun(100, func() { k.Name(data) }); n > 0.5 {
			if !raceEnabled {
				t.Errorf("%s: %v allocations per call", name, n)
			}
		}
	}
}

func TestHashEqualsSum(t *testing.T) {
	for _, n := range []int{0, 1, 55, 56, 63, 64, 65, 1000} {
		data := bytes.Repeat([]byte{'x'}, n)
		h := crypto.NewHash()
		h.Write(data[:n/2])
		h.Write(data[n/2:])
		if want := crypto.Sum(data); !bytes.Equal(h.Sum(nil), want[:]) {
			t.Errorf("%d bytes: the hash in parts differs", n)
		}
	}
}

func TestSealOpen(t *testing.T) {
	k := testKey(t)
	iv := bytes.Repeat([]byte{7}, crypto.IVSize)
	for _, n := range []int{0, 1, 15, 16, 17, 1000} {
		plain := bytes.Repeat([]byte{'p'}, n)
		head := []byte("head")
		sealed := k.Seal(head, iv, plain)
		body, tag := sealed[len(head):len(sealed)-crypto.TagSize], sealed[len(sealed)-crypto.TagSize:]

		inPlace := append(make([]byte, 0, n+crypto.TagSize), plain...)
		if got := k.Seal(inPlace[:0], iv, inPlace); !bytes.Equal(got, sealed[len(head):]) {
			t.Errorf("%d bytes: sealing in place differs", n)
		}
		got, err := k.Open([]byte("x"), iv, tag, body)
		if err != nil || !bytes.Equal(got[1:], plain) || got[0] != 'x' {
			t.Errorf("%d bytes: open: %q, %v", n, got, err)
		}
		tag[0] ^= 1
		if _, err := k.Open(nil, iv, tag, body); !errors.Is(err, crypto.ErrTampered) {
			t.Errorf("%d bytes: wrong tag: %v", n, err)
		}
	}
	if _, err := k.Open(nil, iv[:12], iv, nil); !errors.Is(err, crypto.ErrFormat) {
		t.Errorf("short nonce: %v", err)
	}
}

func TestStream(t *testing.T) {
	read := func(k *crypto.Key, label string) []byte {
		r, err := k.Stream(label)
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	k := testKey(t)
	if !bytes.Equal(read(k, "a"), read(k, "a")) {
		t.Error("the stream is not deterministic")
	}
	if bytes.Equal(read(k, "a"), read(k, "b")) {
		t.Error("two labels give one stream")
	}
	if bytes.Equal(read(k, "a"), read(newKey(t, make([]byte, 32)), "a")) {
		t.Error("two keys give one stream")
	}
	// Where an image is cut hangs on it: with another stream nothing would be shared with
	// the snapshots there are.
	all := read(k, "a")
	if sum := fmt.Sprintf("%x", crypto.Sum(all)); len(all) != 8160 || sum != "57963f4ca61082aa7df76ff38970e3ea42a08dbd67febb2d3ce4a010520753ca" {
		t.Errorf("the stream is another one: %d bytes, SHA-256 %s", len(all), sum)
	}
}

func TestNewKey(t *testing.T) {
	for _, n := range []int{0, 31, 33} {
		if _, err := crypto.NewKey(make([]byte, n)); !errors.Is(err, crypto.ErrFormat) {
			t.Errorf("%d bytes: %v", n, err)
		}
	}
	a, err := crypto.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	b, err := crypto.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	if a.Fingerprint() == b.Fingerprint() {
		t.Error("two random keys are equal")
	}
	if _, err := crypto.GenerateKey(strings.NewReader("short")); err == nil {
		t.Error("a key from five bytes")
	}
}

// TestSecretsStayHidden prints keys in every way there is and looks for the
// bytes in decimal, hex and base64.
func TestSecretsStayHidden(t *testing.T) {
	enc := bytes.Repeat([]byte{0xd7}, 32)
	k := newKey(t, enc)
	f, err := crypto.NewKeyFile(k, crypto.KeyFileOptions{})
	if err != nil {
		t.Fatal(err)
	}
	type holder struct {
		K *crypto.Key
		F *crypto.KeyFile
		k *crypto.Key
	}
	h := &holder{K: k, F: f, k: k}
	var out bytes.Buffer
	for _, verb := range []string{"%v", "%+v", "%#v", "%s", "%q", "%x", "%X", "%d"} {
		fmt.Fprintf(&out, verb+verb+verb+verb, k, f, h, *h)
	}
	slog.New(slog.NewJSONHandler(&out, nil)).Info("m", "k", k, "h", h, "f", f)
	slog.New(slog.NewTextHandler(&out, nil)).Info("m", "k", k, "h", h, "f", f)
	j, err := json.Marshal([]any{k, map[string]any{"k": k}})
	if err != nil {
		t.Fatal(err)
	}
	out.Write(j)
	fmt.Fprint(&out, k.String(), k.GoString(), f.String(), f.GoString())
	for _, secret := range []string{"215 215", "d7d7", "D7D7", "0xd7", "19fX", "\xd7\xd7", `\xd7`} {
		if i := strings.Index(out.String(), secret); i >= 0 {
			t.Errorf("%q is in the output: …%s…", secret, out.String()[max(0, i-40):i+10])
		}
	}
}

func TestParseFingerprint(t *testing.T) {
	full := testKey(t).Fingerprint()
	bare := strings.ReplaceAll(full.String(), ":", "")
	if got, err := crypto.ParseFingerprint(bare); err != nil || got != full {
		t.Errorf("without colons: %v", err)
	}
	for _, s := range []string{"", "ab", bare + "00", strings.Repeat("zz", 32), strings.Repeat(":", 300)} {
		if _, err := crypto.ParseFingerprint(s); !errors.Is(err, crypto.ErrFormat) {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

func TestParseMode(t *testing.T) {
	for _, m := range []crypto.Mode{crypto.ModeNone, crypto.ModeEncrypt, crypto.ModeSignOnly} {
		if got, err := crypto.ParseMode(string(m)); err != nil || got != m {
			t.Errorf("%s: %s, %v", m, got, err)
		}
	}
	for _, s := range []string{"", "Encrypt", "sign", strings.Repeat("x", 1000)} {
		_, err := crypto.ParseMode(s)
		if !errors.Is(err, crypto.ErrFormat) || len(err.Error()) > 200 {
			t.Errorf("%.20q: %v", s, err)
		}
	}
}

func BenchmarkName(b *testing.B) {
	data := make([]byte, 1<<20)
	for name, k := range map[string]*crypto.Key{"plain": nil, "keyed": testKey(b)} {
		b.Run(name, func(b *testing.B) {
			b.SetBytes(int64(len(data)))
			b.ReportAllocs()
			for b.Loop() {
				k.Name(data)
			}
		})
	}
}
