package script

import (
	"net"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// newServed is a house whose repository is a datastore of a server.
func newServed(t *testing.T, env ...string) (house, *harness.Server) {
	t.Helper()
	h := house{bin: filepath.Join(binary(t), "holdfast"), dir: t.TempDir()}
	s, err := startServer(h.bin, "", filepath.Join(h.dir, "data"), env)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = s.Kill() })
	h.env = []string{
		"HOLDFAST_REPOSITORY=" + s.AuthID + "@" + s.Address + ":tank",
		"HOLDFAST_FINGERPRINT=" + s.Fingerprint, "HOLDFAST_PASSWORD=" + s.Secret,
	}
	if code, out := h.do("init"); code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, out)
	}
	return h, s
}

// logs waits until a server has logged a text.
func logs(t *testing.T, s *harness.Server, text string) {
	t.Helper()
	harness.Eventually(t, text+" in the log", func() bool { return strings.Contains(s.Log.String(), text) })
}

// A server that is told to stop lets a backup come to its end and takes nobody
// in meanwhile.
func TestStopWaitsForSessions(t *testing.T) {
	h, s := newServed(t)
	r := startBackup(t, h)
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	logs(t, s, `"msg":"stopping"`)
	if code, out := h.do("list"); code != 75 || !strings.Contains(out, "hint: see that a server listens there") {
		t.Errorf("a newcomer: exit code %d, %q", code, out)
	}
	r.input.Close()
	if code, messages := r.end(t); code != 0 {
		t.Errorf("the backup: exit code %d, %q", code, messages)
	}
	if r, err := s.Wait(); err != nil || r.Code != 0 {
		t.Errorf("the server: %v, %s", err, r)
	}
	h.env = []string{"HOLDFAST_REPOSITORY=./data/datastores/tank"}
	if code, out := h.do("verify"); code != 0 || !strings.Contains(out, "verified 1 snapshot: 0 damaged") {
		t.Errorf("verify: exit code %d, %q", code, out)
	}
}

// The second signal ends the server at once. The datastore needs no repair.
func TestSecondSignalStopsAtOnce(t *testing.T) {
	h, s := newServed(t)
	r := startBackup(t, h)
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	logs(t, s, `"msg":"stopping"`)
	if err := s.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if r, err := s.Wait(); err != nil || !strings.Contains(r.How, "terminated") {
		t.Errorf("the server ended with %v, %s", err, r.How)
	}
	r.input.Close()
	if code, messages := r.end(t); code == 0 {
		t.Errorf("the backup: exit code 0, %q", messages)
	}
	h.env = []string{"HOLDFAST_REPOSITORY=./data/datastores/tank"}
	if code, out := h.do("list"); code != 0 || strings.Contains(out, "host/web") {
		t.Errorf("list: exit code %d, %q", code, out)
	}
	if code, out := h.do("backup", "--crypt-mode", "none", "--backup-id", "web", "hosts.conf:/etc/hosts"); code != 0 {
		t.Errorf("the next backup: exit code %d, %q", code, out)
	}
}

// The service manager is told when the server is up, reloads and stops.
func TestServiceManagerIsTold(t *testing.T) {
	path := filepath.Join(t.TempDir(), "notify")
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.SetReadDeadline(time.Now().Add(time.Minute))
	want := func(prefix string) {
		t.Helper()
		b := make([]byte, 512)
		n, err := conn.Read(b)
		if err != nil || !strings.HasPrefix(string(b[:n]), prefix) {
			t.Fatalf("told %q, %v; want %s", b[:n], err, prefix)
		}
	}
	_, s := newServed(t, "NOTIFY_SOCKET="+path)
	want("READY=1")
	s.Signal(syscall.SIGHUP)
	want("RELOADING=1\nMONOTONIC_USEC=")
	want("READY=1")
	if err := s.Stop(); err != nil {
		t.Error(err)
	}
	want("STOPPING=1")
}
