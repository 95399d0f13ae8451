package main

import (
	"strings"
	"testing"
	"time"
)

// A variable that a script has not set must not choose something else.
func TestEmptyArgumentsAndFlagsAreRefused(t *testing.T) {
	b := newBench(t)
	b.do(t, exitOK, "init", b.path("store"))
	b.env[envRepository] = b.path("store")
	for _, args := range [][]string{
		{"init", ""}, {"key", "create", ""}, {"key", "show", ""}, {"restore", "vm/1/latest", "", "x"}, {"verify", ""}, {"snapshot", "list", ""},
		{"restore", "vm/1/latest", "a.img", ""}, {"snapshot", "forget", ""}, {"prune", ""}, {"change-owner", "vm/1", ""},
		{"backup", "--master-pubkey-file", "", "a.img:x"}, {"backup", "--keyfile", "", "a.img:x"}, {"backup", "--backup-id", "", "a.img:x"},
		{"restore", "--keyfile=", "vm/1/latest", "a.img", "x"}, {"restore", "--crypt-mode=", "vm/1/latest", "a.img", "x"}, {"serve", "--data="}, {"serve", "--config="},
	} {
		t.Run(strings.Join(args, " "), func(t *testing.T) {
			b.do(t, exitUsage, args...)
			b.wantErr(t, "empty")
		})
	}
}

func TestInitTakesAPath(t *testing.T) {
	b := newBench(t)
	t.Chdir(b.dir)
	b.do(t, exitOK, "init", "tank")
	for _, location := range []string{"sftp:backup@nas:/srv/repo", "https://root@pam!admin@127.0.0.1:8007/tank", "nas:tank", "root@pam!a@nas:tank", "~/x"} {
		b.do(t, exitUsage, "init", location)
	}
	b.do(t, exitOK, "init", "./nas:tank")
}

// The clock that is to be looked at is that of the snapshot from the future.
func TestSnapshotFromTheFutureIsBlamed(t *testing.T) {
	b := newBench(t)
	b.do(t, exitOK, "init", b.path("store"))
	b.env[envRepository] = b.path("store")
	disk := b.write(t, "disk.raw", "content of a disk")
	args := []string{"backup", "--crypt-mode", "none", "--backup-id", "a", "d.img:" + disk}
	b.do(t, exitOK, append(args, "--backup-time", "4102444800")...)
	b.wantErr(t, "warning: --backup-time 4102444800 is in the future (2100-01-01T00:00:00Z")
	b.do(t, exitRefused, args...)
	b.wantErr(t, "hint: host/a/2100-01-01T00:00:00Z is from the future")
	now := b.now()
	b.app.now = func() time.Time { return now.AddDate(100, 0, 0) }
	args[4] = "b"
	b.do(t, exitOK, args...)
	b.app.now = func() time.Time { return now.AddDate(100, 0, 0).Add(-time.Minute) }
	b.do(t, exitRefused, args...)
	b.wantErr(t, "hint: see that the clock of this machine is right")
}

func TestNotesAreMeasuredBeforeTheBackup(t *testing.T) {
	b := newBench(t)
	b.do(t, exitUsage, "backup", "-r", "./none", "--notes", strings.Repeat("x", 1<<16+1), "d.img:none")
	b.wantErr(t, "--notes: a text of 65537 bytes, want at most 65536")
}

func TestLostConfigurationIsForRepair(t *testing.T) {
	b := newBench(t)
	store := b.path("store")
	b.do(t, exitOK, "init", store)
	b.write(t, "disk.raw", "content of a disk")
	b.do(t, exitOK, "backup", "-r", store, "--crypt-mode", "none", "--backup-id", "a", "d.img:"+b.path("disk.raw"))
	for name, content := range map[string]string{"empty": "", "garbage": "{}"} {
		t.Run(name, func(t *testing.T) {
			b.write(t, "store/holdfast.json", content)
			b.do(t, exitIntegrity, "list", "-r", store)
			b.wantErr(t, "hint: holdfast repair makes it anew")
		})
	}
	b.do(t, exitOK, "repair", "-r", store)
	b.do(t, exitOK, "list", "-r", store)
}
