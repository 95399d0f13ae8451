package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"holdfast/command/secret"
	"holdfast/command/term"
)

// fingerprintOf shows a key and returns its fingerprint.
func fingerprintOf(t *testing.T, b *bench, path string) string {
	t.Helper()
	b.do(t, term.ExitOK, "key", "show", path, "--json")
	var r struct {
		MessageType string `json:"message_type"`
		Path        string `json:"path"`
		Fingerprint string `json:"fingerprint"`
	}
	if err := json.Unmarshal(b.out.Bytes(), &r); err != nil {
		t.Fatal(err)
	}
	if r.MessageType != "key" || len(r.Fingerprint) != 95 || r.Path != path {
		t.Fatalf("key show: %+v", r)
	}
	return r.Fingerprint
}

func TestKeyFiles(t *testing.T) {
	b := newBench(t, "HOLDFAST_ENCRYPTION_PASSWORD=first one", "HOLDFAST_NEW_ENCRYPTION_PASSWORD=second one")
	path := b.path("key.json")
	b.do(t, term.ExitOK, "key", "create", path, "--kdf", "pbkdf2", "--hint", "the first")
	b.wantOut(t, "2026-11-22T02:00:00Z")
	b.wantErr(t, "keep a copy elsewhere")
	if st, err := os.Stat(path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
	print := fingerprintOf(t, b, path)
	b.do(t, term.ExitRefused, "key", "create", path)
	b.wantErr(t, "is not overwritten")

	b.do(t, term.ExitOK, "key", "change-passphrase", path, "--kdf", "pbkdf2")
	if got := fingerprintOf(t, b, path); got != print {
		t.Errorf("fingerprint %s, was %s", got, print)
	}
	b.do(t, term.ExitKey, "key", "change-passphrase", path)
	b.wantErr(t, "wrong passphrase")
	b.env["HOLDFAST_ENCRYPTION_PASSWORD"] = "second one"
	b.do(t, term.ExitOK, "key", "change-passphrase", path, "--kdf", "none")
	if got := fingerprintOf(t, b, path); got != print {
		t.Errorf("fingerprint %s, was %s", got, print)
	}
	b.do(t, term.ExitUsage, "key", "change-passphrase", path, "--kdf", "none", "--hint", "x")
	b.do(t, term.ExitUsage, "key", "create", b.path("other"), "--kdf", "rot13")
}

func TestKeyDefaults(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitKey, "key", "show")
	b.wantErr(t, "holdfast key create FILE")
	b.do(t, term.ExitOK, "key", "create", "--kdf", "none", "--quiet")
	ours := b.path("config/holdfast/encryption-key.json")
	b.wantOut(t, ours)
	b.do(t, term.ExitOK, "key", "show")
	b.wantOut(t, ours)

	b.env["HOLDFAST_KEYFILE"] = b.path("other")
	b.do(t, term.ExitNotFound, "key", "show")
	b.env["HOLDFAST_KEYFILE"] = ""
	b.do(t, term.ExitUsage, "key", "show")
	b.wantErr(t, "$HOLDFAST_KEYFILE is set but empty")
	delete(b.env, "HOLDFAST_KEYFILE")

	theirs := b.path("config/proxmox-backup/encryption-key.json")
	if err := os.MkdirAll(filepath.Dir(theirs), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(ours, theirs); err != nil {
		t.Fatal(err)
	}
	b.do(t, term.ExitOK, "key", "show")
	b.wantOut(t, theirs)
	if err := os.Chmod(theirs, 0o644); err != nil {
		t.Fatal(err)
	}
	b.do(t, term.ExitOK, "key", "show")
	b.wantErr(t, "warning: every user of this machine may read the key file "+theirs+" (mode 0644), and it has no passphrase")
	if err := os.Chmod(theirs, 0o600); err != nil {
		t.Fatal(err)
	}
	b.do(t, term.ExitOK, "key", "show")
	if b.err.Len() > 0 {
		t.Errorf("a key for its user alone: %s", b.err.String())
	}
}

// A secret that everybody may read is told of, wherever it comes from.
func TestReadableSecretsAreToldOf(t *testing.T) {
	b := newBench(t)
	pass := b.write(t, "pass", "correct horse\n")
	b.env["HOLDFAST_ENCRYPTION_PASSWORD_FILE"] = pass
	key := b.path("key.json")
	b.do(t, term.ExitOK, "key", "create", key)
	if strings.Contains(b.err.String(), "warning") {
		t.Errorf("files for their user alone: %s", b.err.String())
	}
	for _, path := range []string{pass, key} {
		if err := os.Chmod(path, 0o604); err != nil {
			t.Fatal(err)
		}
	}
	b.do(t, term.ExitOK, "key", "change-passphrase", key, "--kdf", "none")
	b.wantErr(t, "may read the key file "+key+" (mode 0604), and whoever has it needs only guess the passphrase; take that away with: chmod o-rwx "+key)
	b.wantErr(t, "may read the file "+pass+" (mode 0604), and it holds the passphrase of the key")
	// The file is read before anything is asked of the server.
	b.run([]string{"user", "create", "anna@pbs", "--data", b.dir, "--password-file", pass})
	b.wantErr(t, "may read the password file "+pass+" (mode 0604), and it holds the new password of anna@pbs")
}

// The quick start of the README names a directory that a new user does not have.
func TestKeyCreateMakesItsDirectory(t *testing.T) {
	b := newBench(t, "HOLDFAST_ENCRYPTION_PASSWORD=correct horse", "HOLDFAST_MASTER_PASSWORD=correct horse")
	for name, args := range map[string][]string{
		"new/holdfast":        {"key", "create", b.path("new/holdfast/encryption-key.json")},
		"config/holdfast":     {"key", "create"},
		"usb/keys/of/masters": {"key", "create-master-key", "--output-dir", b.path("usb/keys/of/masters")},
	} {
		t.Run(name, func(t *testing.T) {
			b.do(t, term.ExitOK, args...)
			for dir := b.path(name); dir != b.dir; dir = filepath.Dir(dir) {
				if st, err := os.Stat(dir); err != nil || st.Mode().Perm() != 0o700 {
					t.Errorf("%s: %v, %v; want mode 0700", dir, st, err)
				}
			}
		})
	}
	b.do(t, term.ExitRefused, "key", "create", b.path("new/holdfast/encryption-key.json"))
	b.env["HOLDFAST_ENCRYPTION_PASSWORD"] = ""
	b.do(t, term.ExitKey, "key", "create", b.path("none/key.json"))
	if _, err := os.Stat(b.path("none")); err == nil {
		t.Error("a key that was not made has left a directory")
	}
}

func TestPaperKeyIsAKeyFile(t *testing.T) {
	b := newBench(t)
	path := b.path("key.json")
	b.do(t, term.ExitOK, "key", "create", path, "--kdf", "none")
	print := fingerprintOf(t, b, path)
	b.do(t, term.ExitOK, "key", "paperkey", path, "--subject", "host elsa")
	b.wantOut(t, "host elsa")
	paper := b.write(t, "paper.txt", b.out.String())
	if got := fingerprintOf(t, b, paper); got != print {
		t.Errorf("fingerprint from paper %s, want %s", got, print)
	}
	b.do(t, term.ExitOK, "key", "paperkey", path, "--output-format=html")
	b.wantOut(t, "<svg")
	b.do(t, term.ExitUsage, "key", "paperkey", path, "--output-format=pdf")
	b.do(t, term.ExitIntegrity, "key", "show", b.write(t, "bad.json", `{"kdf":`))
}

func TestMasterKeyArguments(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitNotFound, "key", "show-master-pubkey")
	b.wantErr(t, "import-master-pubkey FILE")
	b.do(t, term.ExitUsage, "key", "import-master-pubkey", b.write(t, "x.pem", "-----BEGIN ENCRYPTED PRIVATE KEY-----\n"))
	b.wantErr(t, "keep it offline")
	b.do(t, term.ExitIntegrity, "key", "import-master-pubkey", b.write(t, "y.pem", "nothing"))
	b.do(t, term.ExitUsage, "key", "import-with-master-key", b.path("out"))
	b.wantErr(t, "--encrypted-keyfile FILE is needed")
	b.do(t, term.ExitIntegrity, "key", "import-with-master-key", b.path("out"), "--encrypted-keyfile", b.write(t, "z.blob", "short"))
	b.write(t, "master-public.pem", "")
	b.env["HOLDFAST_MASTER_PASSWORD"] = "enough"
	b.do(t, term.ExitRefused, "key", "create-master-key", "--output-dir", b.dir)
	if _, err := os.Stat(b.path(secret.MasterKeyName)); err == nil {
		t.Error("a private key was written though the public one could not be")
	}
}

func TestBackupArguments(t *testing.T) {
	b := newBench(t, "HOLDFAST_REPOSITORY=/nowhere/at/all")
	spec := "disk.img:" + b.write(t, "disk", "x")
	b.do(t, term.ExitKey, "backup", spec)
	b.wantErr(t, "holdfast key create FILE")
	b.wantErr(t, "--crypt-mode none")
	b.do(t, term.ExitNoRepository, "backup", spec, "--crypt-mode", "none")
	for _, args := range []string{
		"--crypt-mode no", "--crypt-mode none --keyfile k", "--crypt-mode none --master-pubkey-file k",
		"--chunking sideways", "--backup-type qm", "--backup-id a/b", "--backup-id=", "--backup-time 0",
		"--backup-time x", "--ns a//b", "--keyfile=", "x.img", "x.exe:y", "-r tank:",
	} {
		b.do(t, term.ExitUsage, append([]string{"backup", spec}, strings.Fields(args)...)...)
	}
	b.do(t, term.ExitNotFound, "backup", spec, "--keyfile", b.path("none"))
	b.do(t, term.ExitOK, "key", "create", "--kdf", "none")
	b.do(t, term.ExitNoRepository, "backup", spec)
	b.do(t, term.ExitNoRepository, "backup", spec, "--crypt-mode", "none")
}

func TestRestoreArguments(t *testing.T) {
	b := newBench(t, "HOLDFAST_REPOSITORY=/nowhere/at/all")
	b.do(t, term.ExitUsage, "restore", "vm/100/latest", "disk.img")
	b.wantErr(t, "holdfast restore wants SNAPSHOT ARCHIVE TARGET, got 2")
	b.wantErr(t, "hint: holdfast restore --help")
	b.do(t, term.ExitUsage, "restore", "vm/100/latest", "disk.img", "")
	b.do(t, term.ExitUsage, "restore", "vm/100/latest", "disk.img", "x", "--overwrite", "--differential")
	b.do(t, term.ExitNoRepository, "restore", "vm/100/latest", "disk.img", "-", "--json")
	if b.out.Len() > 0 {
		t.Errorf("standard output is for data only: %q", b.out.String())
	}
}
