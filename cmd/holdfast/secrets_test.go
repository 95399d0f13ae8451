package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strings"
	"testing"

	"holdfast/command/term"
)

func TestSecretForms(t *testing.T) {
	b := newBench(t)
	file := b.write(t, "secret", "from file\r\nsecond line\n")
	for _, tc := range []struct {
		name, value, want string
	}{
		{"HOLDFAST_ENCRYPTION_PASSWORD", "direct\nsecond", "direct"},
		{"HOLDFAST_ENCRYPTION_PASSWORD", " spaces count ", " spaces count "},
		{"HOLDFAST_ENCRYPTION_PASSWORD_FILE", file, "from file"},
		{"HOLDFAST_ENCRYPTION_PASSWORD_CMD", "echo from command; echo more", "from command"},
		{"PBS_ENCRYPTION_PASSWORD", "theirs", "theirs"},
		{"PBS_ENCRYPTION_PASSWORD_FILE", file, "from file"},
		{"PBS_ENCRYPTION_PASSWORD_CMD", "printf %s bare", "bare"},
	} {
		b.env = map[string]string{tc.name: tc.value}
		p, ok, err := b.secretFromEnv(t.Context(), encryptionPassphrase())
		if err != nil || !ok || string(p) != tc.want {
			t.Errorf("%s=%q: %q, %v, %v; want %q", tc.name, tc.value, p, ok, err, tc.want)
		}
	}
}

// Two secrets may come through one descriptor, a line each.
func TestSecretFromDescriptor(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if _, err := w.WriteString("the first\nthe second"); err != nil {
		t.Fatal(err)
	}
	w.Close()
	b := newBench(t)
	fd := fmt.Sprint(r.Fd())
	for _, tc := range []struct{ variable, want string }{
		{"HOLDFAST_ENCRYPTION_PASSWORD_FD", "the first"},
		{"PBS_ENCRYPTION_PASSWORD_FD", "the second"},
	} {
		b.env = map[string]string{tc.variable: fd}
		p, ok, err := b.secretFromEnv(t.Context(), encryptionPassphrase())
		if err != nil || !ok || string(p) != tc.want {
			t.Errorf("%s: %q, %v, %v; want %q", tc.variable, p, ok, err, tc.want)
		}
	}
}

// The first defined source counts, in the order the manual gives.
func TestSecretOrder(t *testing.T) {
	b := newBench(t)
	creds := b.path("creds")
	if err := os.Mkdir(creds, 0o700); err != nil {
		t.Fatal(err)
	}
	b.write(t, "creds/holdfast.encryption-password", "our credential\n")
	b.write(t, "creds/proxmox-backup-client.encryption-password", "their credential\n")
	file := b.write(t, "file", "file")
	order := []struct{ variable, value, want string }{
		{"HOLDFAST_ENCRYPTION_PASSWORD", "value", "value"},
		{"HOLDFAST_ENCRYPTION_PASSWORD_FILE", file, "file"},
		{"HOLDFAST_ENCRYPTION_PASSWORD_CMD", "echo cmd", "cmd"},
		{"", "", "our credential"},
		{"PBS_ENCRYPTION_PASSWORD", "pbs", "pbs"},
		{"PBS_ENCRYPTION_PASSWORD_FILE", file, "file"},
		{"PBS_ENCRYPTION_PASSWORD_CMD", "echo pbs cmd", "pbs cmd"},
		{"", "", "their credential"},
	}
	for i, first := range order {
		b.env = map[string]string{"CREDENTIALS_DIRECTORY": creds}
		for _, later := range order[i:] {
			if later.variable != "" {
				b.env[later.variable] = later.value
			}
		}
		if i > 3 {
			os.Remove(b.path("creds/holdfast.encryption-password"))
		}
		p, ok, err := b.secretFromEnv(t.Context(), encryptionPassphrase())
		if err != nil || !ok || string(p) != first.want {
			t.Errorf("step %d: %q, %v, %v; want %q", i, p, ok, err, first.want)
		}
	}
	b.env = map[string]string{"CREDENTIALS_DIRECTORY": b.path("none")}
	if p, ok, err := b.secretFromEnv(t.Context(), encryptionPassphrase()); ok || err != nil {
		t.Errorf("nothing defined: %q, %v, %v", p, ok, err)
	}
}

func TestSecretErrors(t *testing.T) {
	b := newBench(t)
	empty := b.write(t, "empty", "\nsecond line")
	for _, tc := range []struct {
		form, value, text string
		code              int
	}{
		{"", "", "is empty", term.ExitKey},
		{"_FILE", empty, "is empty", term.ExitKey},
		{"_FILE", b.path("none"), "no such file", term.ExitNotFound},
		{"_FILE", b.dir, "is a directory", term.ExitError},
		{"_FD", "x", "not the number", term.ExitUsage},
		{"_FD", "-1", "not the number", term.ExitUsage},
		{"_FD", "1999999999", "file descriptor 1999999999", term.ExitError},
		{"_CMD", "", "no command", term.ExitUsage},
		{"_CMD", "exit 3", "exit status 3", term.ExitError},
		{"_CMD", "true", "is empty", term.ExitKey},
		{"_CMD", "head -c 100000 /dev/zero", "prints too much", term.ExitError},
		{"", strings.Repeat("s", secretSizeMax+1), "longer than", term.ExitUsage},
	} {
		name := "HOLDFAST_ENCRYPTION_PASSWORD" + tc.form
		b.env = map[string]string{name: tc.value}
		_, _, err := b.secretFromEnv(t.Context(), encryptionPassphrase())
		if err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), "$"+name) {
			t.Errorf("%s=%q: %v, want %q and the name", name, tc.value, err, tc.text)
			continue
		}
		if got := exitCode(err); got != tc.code {
			t.Errorf("%s=%q: %v: exit code %d, want %d", name, tc.value, err, got, tc.code)
		}
		if len(tc.value) > secretSizeMax && strings.Contains(err.Error(), "ssss") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestNoTerminal(t *testing.T) {
	b := newBench(t)
	_, err := b.passphrase(t.Context(), masterPassphrase())
	if !errors.Is(err, errPassphrase) || !strings.Contains(hint(err), "$HOLDFAST_MASTER_PASSWORD[_FILE|_FD|_CMD]") {
		t.Errorf("%v, hint %q", err, hint(err))
	}
	if _, err = b.newPassphrase(t.Context(), newEncryptionPassphrase()); !errors.Is(err, errPassphrase) {
		t.Errorf("new passphrase: %v", err)
	}
}

func TestNewPassphraseIsLongEnough(t *testing.T) {
	b := newBench(t, "HOLDFAST_NEW_ENCRYPTION_PASSWORD=1234")
	if p, err := b.newPassphrase(t.Context(), newEncryptionPassphrase()); exitCode(err) != term.ExitUsage {
		t.Errorf("4 bytes: %q, %v", p, err)
	}
	b.env["HOLDFAST_NEW_ENCRYPTION_PASSWORD"] = "12345"
	if p, err := b.newPassphrase(t.Context(), newEncryptionPassphrase()); err != nil || string(p) != "12345" {
		t.Errorf("5 bytes: %q, %v", p, err)
	}
}

func TestWriteNew(t *testing.T) {
	b := newBench(t)
	path := b.path("key")
	if err := writeNew(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := writeNew(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "one" {
		t.Errorf("content %q", got)
	}
	if err := writeNew(b.path("none/key"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestReadSmall(t *testing.T) {
	b := newBench(t)
	if got, err := readSmall(b.write(t, "fits", strings.Repeat("x", keyFileSizeMax))); err != nil || len(got) != keyFileSizeMax {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := readSmall(b.write(t, "large", strings.Repeat("x", keyFileSizeMax+1))); exitCode(err) != term.ExitIntegrity {
		t.Errorf("a large file: %v", err)
	}
}
