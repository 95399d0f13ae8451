package front

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestCertificate(t *testing.T) {
	dir := t.TempDir()
	cert, key := filepath.Join(dir, "c"), filepath.Join(dir, "k")
	a, err := EnsureCertificate(cert, key, []string{"pbs.lan", "::1"})
	if err != nil {
		t.Fatal(err)
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key: %v %v", st, err)
	}
	if f := a.Fingerprint(); len(f) != 95 || strings.ToLower(f) != f || strings.Count(f, ":") != 31 {
		t.Errorf("fingerprint %q", f)
	}
	b, err := EnsureCertificate(cert, key, nil)
	if err != nil || a.Fingerprint() != b.Fingerprint() {
		t.Errorf("the second time: %v", err)
	}
	was := a.Fingerprint()
	if err := os.Remove(key); err != nil {
		t.Fatal(err)
	}
	if err := a.Reload(); err == nil || a.Fingerprint() != was {
		t.Errorf("without its key: %v", err)
	}
	if _, err := EnsureCertificate(cert, key, nil); err == nil {
		t.Error("a certificate without its key was replaced")
	}
}
