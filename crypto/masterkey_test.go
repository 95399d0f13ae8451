package crypto_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/crypto"
)

const masterPassphrase = "a long passphrase"

// openssl runs the openssl command, which these tests need.
func openssl(t *testing.T, args ...string) []byte {
	t.Helper()
	var stderr bytes.Buffer
	cmd := exec.Command("openssl", args...)
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("openssl %s: %v: %s", strings.Join(args, " "), err, stderr.String())
	}
	return out
}

func writeFile(t *testing.T, name string, data []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// testMaster returns a master key that is quicker to make than a real one.
func testMaster(tb testing.TB) *rsa.PrivateKey {
	tb.Helper()
	priv, err := rsa.GenerateKey(rand.Reader, 2176)
	if err != nil {
		tb.Fatal(err)
	}
	return priv
}

func TestMasterKeyOurs(t *testing.T) {
	private, public, err := crypto.GenerateMasterKey([]byte(masterPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	pub, err := crypto.ParseMasterPublic(public)
	if err != nil {
		t.Fatal(err)
	}
	if pub.N.BitLen() != 4096 {
		t.Errorf("modulus of %d bits", pub.N.BitLen())
	}
	priv, err := crypto.ParseMasterPrivate(private, []byte(masterPassphrase))
	if err != nil {
		t.Fatal(err)
	}
	if !priv.PublicKey.Equal(pub) {
		t.Error("the halves do not belong together")
	}
	for _, wrong := range []string{"", masterPassphrase + "x"} {
		if _, err := crypto.ParseMasterPrivate(private, []byte(wrong)); !errors.Is(err, crypto.ErrWrongPassphrase) {
			t.Errorf("passphrase %q: %v", wrong, err)
		}
	}
	// What OpenSSL takes out of the private half is the public half.
	path := writeFile(t, "master-private.pem", private)
	if got := openssl(t, "pkey", "-in", path, "-passin", "pass:"+masterPassphrase, "-pubout"); !bytes.Equal(got, public) {
		t.Errorf("openssl says the public half is\n%s\nwant\n%s", got, public)
	}
	checkOpenSSLUnwraps(t, pub, path)
}

// checkOpenSSLUnwraps decrypts a wrapped key with OpenSSL.
func checkOpenSSLUnwraps(t *testing.T, pub *rsa.PublicKey, private string) {
	t.Helper()
	k := testKey(t)
	wrapped, err := crypto.WrapKey(pub, k, time.Unix(1593179765, 0).UTC(), time.Unix(1600000000, 0).UTC())
	if err != nil {
		t.Fatal(err)
	}
	if len(wrapped) != 512 {
		t.Errorf("wrapped key of %d bytes", len(wrapped))
	}
	msg := openssl(t, "pkeyutl", "-decrypt", "-inkey", private, "-passin", "pass:"+masterPassphrase,
		"-in", writeFile(t, "wrapped", wrapped), "-pkeyopt", "rsa_padding_mode:pkcs1")
	want := keyFileVectors(t)[0].Text
	want = strings.Replace(want, `"modified":"2020-06-26T13:56:05`, `"modified":"2020-09-13T12:26:40`, 1)
	if string(msg) != want {
		t.Errorf("message is\n%s\nwant\n%s", msg, want)
	}
	if len(msg) != 255 {
		t.Errorf("message of %d bytes, want 255", len(msg))
	}
}

func TestMasterKeyOpenSSL(t *testing.T) {
	plain := writeFile(t, "plain.pem", openssl(t, "genpkey", "-quiet", "-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2176"))
	public := openssl(t, "pkey", "-in", plain, "-pubout")
	pub, err := crypto.ParseMasterPublic(public)
	if err != nil {
		t.Fatal(err)
	}
	pass := "pass:" + masterPassphrase
	cases := map[string][]string{
		"open":        {"pkey", "-in", plain},
		"default":     {"pkcs8", "-topk8", "-in", plain, "-passout", pass},
		"pkey":        {"pkey", "-in", plain, "-aes-256-cbc", "-passout", pass},
		"aes-128":     {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-v2", "aes-128-cbc"},
		"aes-192":     {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-v2", "aes-192-cbc"},
		"sha1":        {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-v2prf", "hmacWithSHA1"},
		"sha512":      {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-v2prf", "hmacWithSHA512"},
		"many rounds": {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-iter", "100000"},
	}
	for name, args := range cases {
		file := openssl(t, args...)
		priv, err := crypto.ParseMasterPrivate(file, []byte(masterPassphrase))
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if !priv.PublicKey.Equal(pub) {
			t.Errorf("%s: another key", name)
		}
		if name == "open" {
			continue
		}
		if _, err := crypto.ParseMasterPrivate(file, []byte("another one")); !errors.Is(err, crypto.ErrWrongPassphrase) {
			t.Errorf("%s: wrong passphrase: %v", name, err)
		}
	}
	for name, args := range map[string][]string{
		"key derivation": {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-scrypt"},
		"cipher":         {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-v2", "des3"},
		"hash function":  {"pkcs8", "-topk8", "-in", plain, "-passout", pass, "-v2prf", "hmacWithSHA224"},
		"PEM block":      {"pkey", "-in", plain, "-traditional"},
	} {
		_, err := crypto.ParseMasterPrivate(openssl(t, args...), []byte(masterPassphrase))
		if !errors.Is(err, crypto.ErrFormat) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestWrapKey(t *testing.T) {
	k, priv := testKey(t), testMaster(t)
	created := time.Date(2020, 6, 26, 13, 56, 5, 0, time.UTC)
	wrapped, err := crypto.WrapKey(&priv.PublicKey, k, created, created.Add(time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	f, err := crypto.UnwrapKey(priv, wrapped)
	if err != nil {
		t.Fatal(err)
	}
	if f.NeedsPassphrase() || !f.Created.Equal(created) || !f.Modified.Equal(created.Add(time.Hour)) || f.Hint != "" {
		t.Error("the key file came back changed")
	}
	got, err := f.Unlock(nil)
	if err != nil || got.Fingerprint() != k.Fingerprint() {
		t.Errorf("unlock: %v", err)
	}

	if _, err := crypto.UnwrapKey(testMaster(t), wrapped); !errors.Is(err, crypto.ErrWrongKey) {
		t.Errorf("another master key: %v", err)
	}
	for _, bad := range [][]byte{nil, wrapped[1:], append(bytes.Clone(wrapped), 0), make([]byte, len(wrapped))} {
		if _, err := crypto.UnwrapKey(priv, bad); !errors.Is(err, crypto.ErrWrongKey) {
			t.Errorf("%d bytes: %v", len(bad), err)
		}
	}
	wrapped[20] ^= 1
	if _, err := crypto.UnwrapKey(priv, wrapped); !errors.Is(err, crypto.ErrWrongKey) {
		t.Errorf("a flipped bit: %v", err)
	}
	if _, err := crypto.WrapKey(&priv.PublicKey, nil, created, created); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("no key: %v", err)
	}
}

// TestUnwrapKeyChecksContent encrypts messages that are not the wrapped key of
// anybody.
func TestUnwrapKeyChecksContent(t *testing.T) {
	priv := testMaster(t)
	none := keyFileVectors(t)[0].Text
	for name, c := range map[string]struct {
		msg  string
		want error
	}{
		"random bytes":      {"\x93\x01garbage", crypto.ErrWrongKey},
		"other fingerprint": {strings.Replace(none, "0e:ab", "0e:ac", 1), crypto.ErrTampered},
		"with passphrase":   {`{"kdf":{"PBKDF2":{"iter":1,"salt":""}},"created":"2020-06-26T13:56:05Z","modified":"2020-06-26T13:56:05Z","data":"` + strings.Repeat("AAAA", 21) + `AA=="}`, crypto.ErrFormat},
	} {
		//lint:ignore SA1019 the format has this padding and no other
		wrapped, err := rsa.EncryptPKCS1v15(rand.Reader, &priv.PublicKey, []byte(c.msg))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := crypto.UnwrapKey(priv, wrapped); !errors.Is(err, c.want) {
			t.Errorf("%s: %v, want %v", name, err, c.want)
		}
	}
}

func TestMasterKeyRefuses(t *testing.T) {
	small, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	curve, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	public := func(key any) []byte {
		der, err := x509.MarshalPKIXPublicKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	}
	private := func(key any) []byte {
		der, err := x509.MarshalPKCS8PrivateKey(key)
		if err != nil {
			t.Fatal(err)
		}
		return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
	}
	for name, file := range map[string][]byte{
		"2048 bits":     public(&small.PublicKey),
		"not RSA":       public(&curve.PublicKey),
		"private half":  private(small),
		"empty":         nil,
		"no PEM":        []byte("text"),
		"not DER":       pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: []byte("x")}),
		"much too long": bytes.Repeat([]byte{'\n'}, 1<<20),
	} {
		if _, err := crypto.ParseMasterPublic(file); !errors.Is(err, crypto.ErrFormat) {
			t.Errorf("public, %s: %v", name, err)
		}
	}
	for name, file := range map[string][]byte{
		"2048 bits":   private(small),
		"not RSA":     private(curve),
		"public half": public(&small.PublicKey),
		"not DER":     pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: []byte("x")}),
		"not sealed":  pem.EncodeToMemory(&pem.Block{Type: "ENCRYPTED PRIVATE KEY", Bytes: []byte("x")}),
	} {
		if _, err := crypto.ParseMasterPrivate(file, []byte(masterPassphrase)); !errors.Is(err, crypto.ErrFormat) {
			t.Errorf("private, %s: %v", name, err)
		}
	}
	if _, err := crypto.WrapKey(&small.PublicKey, testKey(t), time.Now(), time.Now()); !errors.Is(err, crypto.ErrFormat) {
		t.Errorf("wrap for 2048 bits: %v", err)
	}
	if _, _, err := crypto.GenerateMasterKey([]byte("four")); err == nil {
		t.Error("a master key with a passphrase of four bytes")
	}
}

// sealedMaster is an encrypted private key of 2128 bits with a small iteration
// count, so that fuzzing is quick.
func sealedMaster(f *testing.F) []byte {
	f.Helper()
	out, err := exec.Command("sh", "-c", "openssl genpkey -quiet -algorithm RSA -pkeyopt rsa_keygen_bits:2128 |"+
		" openssl pkcs8 -topk8 -iter 1 -passout 'pass:"+masterPassphrase+"'").Output()
	if err != nil {
		f.Fatal(err)
	}
	return out
}

func FuzzParseMaster(f *testing.F) {
	priv := testMaster(f)
	open, err := x509.MarshalPKCS8PrivateKey(priv)
	if err != nil {
		f.Fatal(err)
	}
	public, err := x509.MarshalPKIXPublicKey(&priv.PublicKey)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: open}))
	f.Add(pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: public}))
	f.Add(sealedMaster(f))
	f.Fuzz(func(t *testing.T, file []byte) {
		if pub, err := crypto.ParseMasterPublic(file); err == nil {
			if pub.N.BitLen() < 2128 {
				t.Fatalf("a public key of %d bits", pub.N.BitLen())
			}
		} else if !errors.Is(err, crypto.ErrFormat) {
			t.Fatalf("public: %v", err)
		}
		_, err := crypto.ParseMasterPrivate(file, []byte(masterPassphrase))
		if err != nil && !errors.Is(err, crypto.ErrFormat) && !errors.Is(err, crypto.ErrWrongPassphrase) {
			t.Fatalf("private: %v", err)
		}
	})
}

func FuzzUnwrapKey(f *testing.F) {
	priv := testMaster(f)
	wrapped, err := crypto.WrapKey(&priv.PublicKey, testKey(f), time.Unix(1, 0), time.Unix(2, 0))
	if err != nil {
		f.Fatal(err)
	}
	f.Add(wrapped)
	want := testKey(f).Fingerprint()
	f.Fuzz(func(t *testing.T, ciphertext []byte) {
		got, err := crypto.UnwrapKey(priv, ciphertext)
		if err == nil && got.Fingerprint != want {
			t.Fatal("another key")
		}
	})
}
