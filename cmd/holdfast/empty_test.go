package main

import (
	"strings"
	"testing"
	"time"

	"holdfast/command/secret"
	"holdfast/command/term"
)

// A variable that a script has not set must not choose something else.
func TestEmptyArgumentsAndFlagsAreRefused(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitOK, "init", b.path("store"))
	b.env[secret.EnvRepository] = b.path("store")
	for _, args := range [][]string{
		{"init", ""}, {"key", "create", ""}, {"key", "show", ""}, {"restore", "vm/1/latest", "", "x"}, {"verify", ""}, {"snapshot", "list", ""},
		{"restore", "vm/1/latest", "a.img", ""}, {"snapshot", "forget", ""}, {"prune", ""}, {"change-owner", "vm/1", ""},
		{"backup", "--master-pubkey-file", "", "a.img:x"}, {"backup", "--keyfile", "", "a.img:x"}, {"backup", "--backup-id", "", "a.img:x"},
		{"restore", "--keyfile=", "vm/1/latest", "a.img", "x"}, {"restore", "--crypt-mode=", "vm/1/latest", "a.img", "x"}, {"serve", "--data="}, {"serve", "--config="},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			b.do(t, term.ExitUsage, args...)
			b.wantErr(t, "empty")
		})
	}
}

func TestInitTakesAPath(t *testing.T) {
	b := newBench(t)
	t.Chdir(b.dir)
	b.do(t, term.ExitOK, "init", "tank")
	for _, location := range []string{"sftp:backup@nas:/srv/repo", "https://root@pam!admin@127.0.0.1:8007/tank", "nas:tank", "root@pam!a@nas:tank", "~/x"} {
		b.do(t, term.ExitUsage, "init", location)
	}
	b.do(t, term.ExitOK, "init", "./nas:tank")
}

// A snapshot of a time that had not come when it arrived stands in nobody's way, and
// is flagged.
func TestSnapshotFromTheFutureIsFlagged(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitOK, "init", b.path("store"))
	b.env[secret.EnvRepository] = b.path("store")
	disk := b.write(t, "disk.raw", "content of a disk")
	args := []string{"backup", "--crypt-mode", "none", "--backup-id", "a", "d.img:" + disk}
	b.do(t, term.ExitOK, append(args, "--backup-time", "4102444800")...)
	b.wantErr(t, "warning: --backup-time 4102444800 is in the future (2100-01-01T00:00:00Z")
	b.app.now = time.Now // as that of the repository
	b.do(t, term.ExitOK, args...)
	b.do(t, term.ExitOK, "snapshot", "list", "host/a")
	b.wantOut(t, "host/a/2100-01-01T00:00:00Z  17 B  -    ahead-of-time")
	b.do(t, term.ExitOK, "--json", "snapshot", "list", "host/a")
	b.wantOut(t, `"misdated":true`)
	b.do(t, term.ExitOK, "snapshot", "files", "host/a/latest")
	if strings.Contains(b.out.String(), "2100") {
		t.Errorf("the latest one is of the future: %s", &b.out)
	}
}

// Of two clocks that differ the one is to be looked at that is ahead.
func TestSnapshotFromTheFutureIsBlamed(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitOK, "init", b.path("store"))
	b.env[secret.EnvRepository] = b.path("store")
	disk := b.write(t, "disk.raw", "content of a disk")
	args := []string{"backup", "--crypt-mode", "none", "--backup-id", "a", "d.img:" + disk}
	begin := time.Now()
	b.app.now = func() time.Time { return begin }
	b.do(t, term.ExitOK, args...)
	name := begin.UTC().Format(time.RFC3339)
	b.app.now = func() time.Time { return begin.Add(-time.Hour) }
	b.do(t, term.ExitRefused, args...)
	b.wantErr(t, "hint: host/a/"+name+" is from the future")
	b.app.now = func() time.Time { return begin.Add(-time.Minute) }
	b.do(t, term.ExitRefused, args...)
	b.wantErr(t, "hint: see that the clock of this machine is right")
}

func TestNotesAreMeasuredBeforeTheBackup(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitUsage, "backup", "-r", "./none", "--notes", strings.Repeat("x", 1<<16+1), "d.img:none")
	b.wantErr(t, "--notes: a text of 65537 bytes, want at most 65536")
}

func TestLostConfigurationIsForRepair(t *testing.T) {
	b := newBench(t)
	store := b.path("store")
	b.do(t, term.ExitOK, "init", store)
	b.write(t, "disk.raw", "content of a disk")
	b.do(t, term.ExitOK, "backup", "-r", store, "--crypt-mode", "none", "--backup-id", "a", "d.img:"+b.path("disk.raw"))
	for name, content := range map[string]string{"empty": "", "garbage": "{}"} {
		t.Run(name, func(t *testing.T) {
			b.write(t, "store/holdfast.json", content)
			b.do(t, term.ExitIntegrity, "list", "-r", store)
			b.wantErr(t, "hint: holdfast repair makes it anew")
		})
	}
	b.do(t, term.ExitOK, "repair", "-r", store)
	b.do(t, term.ExitOK, "list", "-r", store)
}
