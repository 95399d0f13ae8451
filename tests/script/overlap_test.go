package script

import (
	"os"
	"strings"
	"testing"
)

// The command of the backup unit, met by the next run of it while it still runs,
// waits as long as it was told to and then fails with 11 and words, so that the
// unit fails and OnFailure= tells somebody. It is so on a path and on a server.
func TestRunThatMeetsTheLastOne(t *testing.T) {
	unit, err := os.ReadFile("../../packaging/systemd/holdfast-backup@.service")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(unit), "\nExecStart=/usr/bin/holdfast backup --no-progress --lock-wait 6h $BACKUP\n") {
		t.Error("this is not the command that the unit runs")
	}
	served, _ := newServed(t)
	for name, h := range map[string]house{"path": newHouse(t), "server": served} {
		t.Run(name, func(t *testing.T) {
			first := startBackup(t, h)
			code, out := h.do("backup", "--no-progress", "--lock-wait", "1s", "--crypt-mode", "none", "--backup-id", "web", "hosts.conf:/etc/hosts")
			if code != 11 || !strings.Contains(out, "holdfast: error: backup of host/web/") && !strings.Contains(out, "locked by pid") || !strings.Contains(out, "--lock-wait") {
				t.Errorf("the next run: exit code %d\n%s", code, out)
			}
			first.input.Close()
			if code, messages := first.end(t); code != 0 {
				t.Errorf("the first run: exit code %d, %s", code, messages)
			}
		})
	}
}
