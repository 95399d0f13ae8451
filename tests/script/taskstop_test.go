package script

import (
	"encoding/json"
	"strings"
	"testing"
)

// runningTask names the only task of a type that runs.
func runningTask(t *testing.T, h house, kind string) string {
	t.Helper()
	out, err := h.command("task", "list", "--running", "--json").Output()
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(out)) {
		var r struct{ UPID, Type string }
		if err := json.Unmarshal([]byte(line), &r); err != nil {
			t.Fatal(err)
		}
		if r.Type == kind {
			return r.UPID
		}
	}
	t.Fatalf("no %s runs:\n%s", kind, out)
	return ""
}

// Whose backup is stopped by an administrator is told so, by whom, and not that
// the server had gone away; also when it asks for something only later.
func TestTaskStopTellsTheBackup(t *testing.T) {
	h, s := newServed(t)
	r := startBackup(t, h)
	code, out := h.do("task", "stop", runningTask(t, h, "backup"))
	if code != 0 || !strings.Contains(out, "asked the task to end") {
		t.Errorf("task stop: exit code %d, %q", code, out)
	}
	if code, out := h.do("backup", "--crypt-mode", "none", "--backup-id", "web", "--lock-wait", "1m", "hosts.conf:/etc/hosts"); code != 0 {
		t.Errorf("the next backup of the group: exit code %d, %q", code, out)
	}
	r.input.Close()
	code, messages := r.end(t)
	if code != 77 || !strings.Contains(messages, "the session was stopped by "+s.AuthID) || strings.Contains(messages, "EOF") {
		t.Errorf("the backup: exit code %d, %q", code, messages)
	}
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
}
