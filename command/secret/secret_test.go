package secret

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/command/term"
	"holdfast/crypto"
)

// bench is a source whose surroundings are the test's own.
type bench struct {
	Source
	dir string
	err bytes.Buffer
}

func newBench(t *testing.T, env ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	b.Streams = term.Streams{In: strings.NewReader(""), Out: io.Discard, Err: &b.err}
	b.Env = map[string]string{}
	for _, l := range env {
		name, value, _ := strings.Cut(l, "=")
		b.Env[name] = value
	}
	b.UI = term.New(b.Out, b.Err, time.Now, nil)
	return b
}

// path is a name in the test's directory.
func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return b.path(name)
}

// isUsage reports whether an error is one of the command line.
func isUsage(err error) bool {
	var usage term.UsageError
	return errors.As(err, &usage)
}

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
		b.Env = map[string]string{tc.name: tc.value}
		p, ok, err := b.fromEnv(t.Context(), EncryptionPassphrase())
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
		b.Env = map[string]string{tc.variable: fd}
		p, ok, err := b.fromEnv(t.Context(), EncryptionPassphrase())
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
		b.Env = map[string]string{"CREDENTIALS_DIRECTORY": creds}
		for _, later := range order[i:] {
			if later.variable != "" {
				b.Env[later.variable] = later.value
			}
		}
		if i > 3 {
			os.Remove(b.path("creds/holdfast.encryption-password"))
		}
		p, ok, err := b.fromEnv(t.Context(), EncryptionPassphrase())
		if err != nil || !ok || string(p) != first.want {
			t.Errorf("step %d: %q, %v, %v; want %q", i, p, ok, err, first.want)
		}
	}
	b.Env = map[string]string{"CREDENTIALS_DIRECTORY": b.path("none")}
	if p, ok, err := b.fromEnv(t.Context(), EncryptionPassphrase()); ok || err != nil {
		t.Errorf("nothing defined: %q, %v, %v", p, ok, err)
	}
}

func TestSecretErrors(t *testing.T) {
	b := newBench(t)
	empty := b.write(t, "empty", "\nsecond line")
	noPassphrase := func(err error) bool { return errors.Is(err, ErrPassphrase) }
	notThere := func(err error) bool { return errors.Is(err, fs.ErrNotExist) }
	anything := func(err error) bool { return !noPassphrase(err) && !notThere(err) && !isUsage(err) }
	for _, tc := range []struct {
		form, value, text string
		is                func(error) bool
	}{
		{"", "", "is empty", noPassphrase},
		{"_FILE", empty, "is empty", noPassphrase},
		{"_FILE", b.path("none"), "no such file", notThere},
		{"_FILE", b.dir, "is a directory", anything},
		{"_FD", "x", "not the number", isUsage},
		{"_FD", "-1", "not the number", isUsage},
		{"_FD", "1999999999", "file descriptor 1999999999", anything},
		{"_CMD", "", "no command", isUsage},
		{"_CMD", "exit 3", "exit status 3", anything},
		{"_CMD", "true", "is empty", noPassphrase},
		{"_CMD", "head -c 100000 /dev/zero", "prints too much", anything},
		{"", strings.Repeat("s", sizeMax+1), "longer than", isUsage},
	} {
		name := "HOLDFAST_ENCRYPTION_PASSWORD" + tc.form
		b.Env = map[string]string{name: tc.value}
		_, _, err := b.fromEnv(t.Context(), EncryptionPassphrase())
		if err == nil || !strings.Contains(err.Error(), tc.text) || !strings.Contains(err.Error(), "$"+name) {
			t.Errorf("%s=%q: %v, want %q and the name", name, tc.value, err, tc.text)
			continue
		}
		if !tc.is(err) {
			t.Errorf("%s=%q: %v: an error of another kind", name, tc.value, err)
		}
		if len(tc.value) > sizeMax && strings.Contains(err.Error(), "ssss") {
			t.Errorf("the error tells the secret: %v", err)
		}
	}
}

func TestNoTerminal(t *testing.T) {
	b := newBench(t)
	_, err := b.Get(t.Context(), MasterPassphrase())
	if !errors.Is(err, ErrPassphrase) || !strings.Contains(term.NextStep(err), "$HOLDFAST_MASTER_PASSWORD[_FILE|_FD|_CMD]") {
		t.Errorf("%v, hint %q", err, term.NextStep(err))
	}
	if _, err = b.Choose(t.Context(), NewEncryptionPassphrase()); !errors.Is(err, ErrPassphrase) {
		t.Errorf("new passphrase: %v", err)
	}
}

func TestNewPassphraseIsLongEnough(t *testing.T) {
	b := newBench(t, "HOLDFAST_NEW_ENCRYPTION_PASSWORD=1234")
	if p, err := b.Choose(t.Context(), NewEncryptionPassphrase()); !isUsage(err) {
		t.Errorf("4 bytes: %q, %v", p, err)
	}
	b.Env["HOLDFAST_NEW_ENCRYPTION_PASSWORD"] = "12345"
	if p, err := b.Choose(t.Context(), NewEncryptionPassphrase()); err != nil || string(p) != "12345" {
		t.Errorf("5 bytes: %q, %v", p, err)
	}
}

func TestWriteNew(t *testing.T) {
	b := newBench(t)
	path := b.path("key")
	if err := WriteNew(path, []byte("one"), 0o600); err != nil {
		t.Fatal(err)
	}
	st, err := os.Stat(path)
	if err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	if err := WriteNew(path, []byte("two"), 0o600); !errors.Is(err, fs.ErrExist) {
		t.Errorf("written over: %v", err)
	}
	if got, _ := os.ReadFile(path); string(got) != "one" {
		t.Errorf("content %q", got)
	}
	if err := WriteNew(b.path("none/key"), nil, 0o600); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("no directory: %v", err)
	}
}

func TestReadSmall(t *testing.T) {
	b := newBench(t)
	if got, err := ReadSmall(b.write(t, "fits", strings.Repeat("x", FileSizeMax))); err != nil || len(got) != FileSizeMax {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if _, err := ReadSmall(b.write(t, "large", strings.Repeat("x", FileSizeMax+1))); !errors.Is(err, crypto.ErrFormat) {
		t.Errorf("a large file: %v", err)
	}
}
