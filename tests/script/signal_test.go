package script

import (
	"bufio"
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"holdfast/tests/harness"
)

// house is a repository and a binary to work on it.
type house struct {
	bin, dir string
	env      []string // where the repository is
}

func newHouse(t *testing.T) house {
	t.Helper()
	h := house{bin: filepath.Join(binary(t), "holdfast"), dir: t.TempDir(), env: []string{"HOLDFAST_REPOSITORY=./store"}}
	if code, out := h.do("init"); code != 0 {
		t.Fatalf("init: exit code %d\n%s", code, out)
	}
	return h
}

func (h house) command(args ...string) *exec.Cmd {
	cmd := exec.Command(h.bin, args...)
	cmd.Dir = h.dir
	cmd.Env = append(append(os.Environ(), "XDG_CONFIG_HOME="+filepath.Join(h.dir, "config")), h.env...)
	return cmd
}

// do runs a command line to its end.
func (h house) do(args ...string) (code int, output string) {
	out, err := h.command(args...).CombinedOutput()
	return exitCode(err), string(out)
}

func exitCode(err error) int {
	var exit *exec.ExitError
	switch {
	case err == nil:
		return 0
	case errors.As(err, &exit):
		return exit.ExitCode()
	}
	return -1
}

// running is a backup of standard input that waits for more.
type running struct {
	*exec.Cmd
	input  io.WriteCloser
	stderr *bufio.Reader
	stdout bytes.Buffer
}

// startBackup begins a backup and feeds it more than a pipe can hold, so that
// it is known to be reading.
func startBackup(t *testing.T, h house, flags ...string) *running {
	t.Helper()
	args := append([]string{"backup", "--crypt-mode", "none", "--backup-id", "web", "disk.img:-"}, flags...)
	r := &running{Cmd: h.command(args...)}
	r.Stdout = &r.stdout
	var err error
	if r.input, err = r.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	stderr, err := r.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	r.stderr = bufio.NewReader(stderr)
	if err := r.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Process.Kill() })
	data := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{1}).Read(data)
	if _, err := r.input.Write(data); err != nil {
		t.Fatal(err)
	}
	return r
}

// end reads what is left of standard error and waits for the exit code.
func (r *running) end(t *testing.T) (code int, messages string) {
	t.Helper()
	rest, err := io.ReadAll(r.stderr)
	if err != nil {
		t.Fatal(err)
	}
	return exitCode(r.Wait()), string(rest)
}

// An interrupted backup ends in order although its source still waits, and
// leaves nothing that is listed.
func TestInterrupt(t *testing.T) {
	harness.HearHangups(t)
	h := newHouse(t)
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP, syscall.SIGQUIT, syscall.SIGXCPU} {
		r := startBackup(t, h)
		if err := r.Process.Signal(sig); err != nil {
			t.Fatal(err)
		}
		code, messages := r.end(t)
		if code != 128+int(sig) || !strings.Contains(messages, "interrupted: no snapshot was made") {
			t.Errorf("%v: exit code %d, messages %q", sig, code, messages)
		}
		if r.stdout.Len() > 0 {
			t.Errorf("%v: results %q", sig, r.stdout.String())
		}
		if code, out := h.do("list"); code != 0 || strings.Contains(out, "host/web") {
			t.Errorf("%v: list: exit code %d, %q", sig, code, out)
		}
	}
	r := startBackup(t, h)
	r.input.Close()
	if code, messages := r.end(t); code != 0 {
		t.Errorf("the next backup: exit code %d, messages %q", code, messages)
	}
	if code, out := h.do("verify"); code != 0 {
		t.Errorf("verify: exit code %d, %q", code, out)
	}
}

// A repository has one writer at a time; the others are told, or wait.
func TestLocked(t *testing.T) {
	h := newHouse(t)
	first := startBackup(t, h)
	code, out := h.do("snapshot", "forget", "host/web/2026-11-22T02:00:00Z")
	if code != 11 || !strings.Contains(out, "--lock-wait") {
		t.Errorf("a second writer: exit code %d, %q", code, out)
	}
	if code, out := h.do("list"); code != 0 {
		t.Errorf("list beside a writer: exit code %d, %q", code, out)
	}
	second := h.command("backup", "--crypt-mode", "none", "--backup-id", "mail", "--lock-wait", "1m", "hosts.conf:/etc/hosts")
	if err := second.Start(); err != nil {
		t.Fatal(err)
	}
	first.input.Close()
	if code, messages := first.end(t); code != 0 {
		t.Errorf("the first writer: exit code %d, %q", code, messages)
	}
	if err := second.Wait(); err != nil {
		t.Errorf("the second writer waits: %v", err)
	}
	if _, out := h.do("list"); !strings.Contains(out, "host/web") || !strings.Contains(out, "host/mail") {
		t.Errorf("list: %q", out)
	}
}

// SIGUSR1 shows the state without ending anything, also where progress is off.
func TestStateOnRequest(t *testing.T) {
	h := newHouse(t)
	r := startBackup(t, h, "--quiet")
	if err := r.Process.Signal(syscall.SIGUSR1); err != nil {
		t.Fatal(err)
	}
	line, err := r.stderr.ReadString('\n')
	if err != nil || !strings.HasPrefix(line, "holdfast: backup: ") {
		t.Errorf("state %q, %v", line, err)
	}
	r.input.Close()
	if code, messages := r.end(t); code != 0 || messages != "" {
		t.Errorf("exit code %d, messages %q", code, messages)
	}
}
