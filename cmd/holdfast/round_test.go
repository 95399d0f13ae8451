package main

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	"holdfast/command/term"
)

const firstNight = "vm/100/2026-11-22T02:00:00Z"

// newStore is a bench with a repository that holds one encrypted snapshot of
// an image with data, text and a hole. It returns the image.
func newStore(t *testing.T) (*bench, []byte) {
	t.Helper()
	b := newBench(t)
	b.env["HOLDFAST_REPOSITORY"] = b.path("store")
	image := make([]byte, 6<<20)
	rand.NewChaCha8([32]byte{7}).Read(image[:2<<20])
	copy(image[4<<20:], bytes.Repeat([]byte("text "), 100_000))
	b.write(t, "disk.raw", string(image))
	b.write(t, "machine.conf", "cores: 2\n")
	b.do(t, term.ExitOK, "init")
	b.wantOut(t, "made repository "+b.path("store"))
	b.do(t, term.ExitOK, "key", "create", "--kdf", "none")
	b.do(t, term.ExitOK, "backup", "--backup-type", "vm", "--backup-id", "100", "--notes", "first\nnight",
		"disk0.img:"+b.path("disk.raw"), "machine.conf:"+b.path("machine.conf"))
	b.wantOut(t, "6.00 MiB")
	b.wantOut(t, "snapshot "+firstNight+"\n")
	return b, image
}

func TestRoundTrip(t *testing.T) {
	b, image := newStore(t)
	b.do(t, term.ExitOK, "restore", "vm/100", "disk0.img", b.path("out.raw"))
	b.wantOut(t, "the manifest is signed by key")
	if got, err := os.ReadFile(b.path("out.raw")); err != nil || !bytes.Equal(got, image) {
		t.Errorf("restored %d bytes, %v", len(got), err)
	}
	b.do(t, term.ExitOK, "restore", "vm/100", "disk0.img", "-", "-q")
	if !bytes.Equal(b.out.Bytes(), image) || b.err.Len() > 0 {
		t.Errorf("restored %d bytes to standard output, messages %q", b.out.Len(), b.err.String())
	}
	b.do(t, term.ExitOK, "restore", firstNight, "disk0.img", b.path("out.raw"), "--differential", "-v")
	b.wantOut(t, "\n0 B written")
	b.wantErr(t, "using key ")
	b.do(t, term.ExitRefused, "restore", firstNight, "disk0.img", b.path("out.raw"))
	b.do(t, term.ExitKey, "restore", firstNight, "disk0.img", b.path("no.raw"), "--crypt-mode", "none")
	b.do(t, term.ExitUsage, "restore", firstNight, "disk0.img", b.path("no.raw"), "--crypt-mode", "some")
	b.do(t, term.ExitNotFound, "restore", firstNight, "disk1.img", b.path("no.raw"))
	b.do(t, term.ExitNotFound, "restore", "vm/101/latest", "disk0.img", b.path("no.raw"))
	b.do(t, term.ExitUsage, "restore", "vm/100/now/then", "disk0.img", b.path("no.raw"))
}

func TestSecondBackup(t *testing.T) {
	b, _ := newStore(t)
	b.now = func() time.Time { return time.Date(2026, 11, 23, 2, 0, 0, 0, time.UTC) }
	b.do(t, term.ExitOK, "--json", "--no-progress", "backup", "--backup-type", "vm", "--backup-id", "100", "disk0.img:"+b.path("disk.raw"))
	var r struct {
		MessageType string `json:"message_type"`
		Snapshot    string `json:"snapshot"`
		Previous    string `json:"previous"`
		Archives    []struct {
			Chunks    int64 `json:"chunks"`
			NewChunks int64 `json:"new_chunks"`
		} `json:"archives"`
		BytesTotal int64 `json:"bytes_total"`
		BytesNew   int64 `json:"bytes_new"`
	}
	if err := json.Unmarshal(b.out.Bytes(), &r); err != nil {
		t.Fatalf("%v in %q", err, b.out.String())
	}
	if r.MessageType != "summary" || r.Snapshot != "vm/100/2026-11-23T02:00:00Z" || r.Previous != firstNight {
		t.Errorf("summary %+v", r)
	}
	if r.BytesTotal != 6<<20 || r.BytesNew != 0 || len(r.Archives) != 1 || r.Archives[0].NewChunks != 0 || r.Archives[0].Chunks == 0 {
		t.Errorf("summary %+v", r)
	}
	b.do(t, term.ExitRefused, "backup", "--backup-type", "vm", "--backup-id", "100", "disk0.img:"+b.path("disk.raw"))
	b.do(t, term.ExitNotFound, "backup", "--backup-id", "other", "disk0.img:"+b.path("none.raw"))
	b.do(t, term.ExitOK, "list", "--recursive")
	b.wantOut(t, "vm/100  2          2026-11-23T02:00:00Z")
	if strings.Contains(b.out.String(), "other") {
		t.Errorf("a failed backup is listed: %s", b.out.String())
	}
}

func TestSnapshotCommands(t *testing.T) {
	b, _ := newStore(t)
	b.do(t, term.ExitOK, "snapshot", "list")
	b.wantOut(t, firstNight)
	b.wantOut(t, "  first\n")
	b.do(t, term.ExitOK, "snapshot", "files", "vm/100/latest")
	b.wantOut(t, "machine.conf.blob")
	b.do(t, term.ExitOK, "snapshot", "notes", "show", "vm/100")
	b.wantOut(t, "first\nnight\n")
	b.stdin = strings.NewReader("from a pipe")
	b.do(t, term.ExitOK, "snapshot", "notes", "update", firstNight, "-")
	b.do(t, term.ExitOK, "snapshot", "notes", "show", firstNight)
	b.wantOut(t, "from a pipe\n")
	b.stdin = strings.NewReader(strings.Repeat("x", 64<<10+1))
	b.do(t, term.ExitUsage, "snapshot", "notes", "update", firstNight, "-")
	b.do(t, term.ExitOK, "snapshot", "protect", firstNight)
	b.wantOut(t, "protected "+firstNight)
	b.do(t, term.ExitOK, "snapshot", "list", "vm/100")
	b.wantOut(t, "protected")
	b.do(t, term.ExitOK, "snapshot", "protected", "show", firstNight)
	b.wantOut(t, "true\n")
	b.do(t, term.ExitRefused, "snapshot", "forget", firstNight)
	b.wantErr(t, "hint: lift the protection first")
	b.do(t, term.ExitOK, "snapshot", "protected", "update", firstNight, "false")
	b.wantOut(t, "released "+firstNight)
	b.do(t, term.ExitOK, "snapshot", "forget", firstNight)
	b.wantOut(t, "forgot "+firstNight)
	b.do(t, term.ExitNotFound, "snapshot", "forget", firstNight)
	b.do(t, term.ExitNotFound, "snapshot", "files", firstNight)
	b.do(t, term.ExitNotFound, "snapshot", "protect", firstNight)
	b.do(t, term.ExitOK, "list")
	b.wantErr(t, "no groups")
}

func TestCheckingCommands(t *testing.T) {
	b, _ := newStore(t)
	b.do(t, term.ExitOK, "verify")
	b.wantOut(t, "checked without a key")
	b.wantOut(t, "verified 1 snapshot: 0 damaged, 0 not verified")
	key := b.path("config/holdfast/encryption-key.json")
	b.do(t, term.ExitOK, "verify", "vm/100", "--keyfile", key, "--json")
	b.wantOut(t, `"ok":true,"archives":2`)
	b.wantOut(t, `"signed":true,"decrypted":true`)
	b.do(t, term.ExitUsage, "verify", "vm")
	b.do(t, term.ExitNotFound, "verify", "vm/101")
	b.do(t, term.ExitOK, "key", "create", b.path("other.json"), "--kdf", "none")
	b.do(t, term.ExitKey, "verify", firstNight, "--keyfile", b.path("other.json"))
	b.do(t, term.ExitOK, "status")
	b.wantOut(t, "1 in 1 group, 6.00 MiB")
	b.do(t, term.ExitOK, "reindex")
	b.wantOut(t, "and 0 further copies of them")
	b.do(t, term.ExitRefused, "init")
}
