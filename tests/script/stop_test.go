package script

import (
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// newServed is a house whose repository is a datastore of a server.
func newServed(t *testing.T, env ...string) (house, *backupServer) {
	t.Helper()
	h := house{bin: filepath.Join(binary(t), "holdfast"), dir: t.TempDir()}
	cmd := exec.Command(h.bin, "serve", "--json", "--data", filepath.Join(h.dir, "data"), "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), env...)
	s, err := startServer(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.cmd.Process.Kill() })
	h.env = []string{
		"HOLDFAST_REPOSITORY=" + s.AuthID + "@" + s.Address + ":tank",
		"HOLDFAST_FINGERPRINT=" + s.Fingerprint, "HOLDFAST_PASSWORD=" + s.Secret,
	}
	if code, out := h.do("init"); code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, out)
	}
	return h, s
}

// logs waits until the server has logged a text.
func (s *backupServer) logs(t *testing.T, text string) {
	t.Helper()
	const patience = 3 * time.Minute
	for deadline := time.Now().Add(patience); !strings.Contains(s.log.String(), text); time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the log lacks %q:\n%s", text, s.log.String())
		}
	}
}

// A server that is told to stop lets a backup come to its end and takes nobody
// in meanwhile.
func TestStopWaitsForSessions(t *testing.T) {
	h, s := newServed(t)
	r := startBackup(t, h)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.logs(t, `"msg":"stopping"`)
	if code, out := h.do("list"); code != 75 || !strings.Contains(out, "hint: see that a server listens there") {
		t.Errorf("a newcomer: exit code %d, %q", code, out)
	}
	r.input.Close()
	if code, messages := r.end(t); code != 0 {
		t.Errorf("the backup: exit code %d, %q", code, messages)
	}
	if err := <-s.ended; err != nil {
		t.Errorf("the server: %v\n%s", err, s.log.String())
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
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	s.logs(t, `"msg":"stopping"`)
	if err := s.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := <-s.ended; err == nil || !strings.Contains(err.Error(), "terminated") {
		t.Errorf("the server ended with %v", err)
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
	s.cmd.Process.Signal(syscall.SIGHUP)
	want("RELOADING=1\nMONOTONIC_USEC=")
	want("READY=1")
	if code := s.stop(); code != 0 {
		t.Errorf("the server ended with %d", code)
	}
	want("STOPPING=1")
}
