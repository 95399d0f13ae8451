package script

import (
	"bufio"
	"bytes"
	"encoding/json"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// backupServer is a server of the binary under test, on loopback.
type backupServer struct {
	cmd   *exec.Cmd
	ended chan error
	log   lockedBuffer

	Address, Fingerprint, AuthID, Secret string
}

// lockedBuffer takes what a program writes while others read it.
type lockedBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *lockedBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *lockedBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// startServer runs holdfast serve on a port that the system chooses, and waits
// until it listens.
func startServer(cmd *exec.Cmd) (*backupServer, error) {
	s := &backupServer{cmd: cmd, ended: make(chan error, 1)}
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	cmd.Stderr = &s.log
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	lines := bufio.NewScanner(out)
	for lines.Scan() {
		var r struct {
			Type        string `json:"message_type"`
			AuthID      string `json:"auth_id"`
			Secret      string `json:"secret"`
			Address     string `json:"address"`
			Fingerprint string `json:"fingerprint"`
		}
		if err := json.Unmarshal(lines.Bytes(), &r); err != nil {
			return nil, err
		}
		switch r.Type {
		case "first_start":
			s.AuthID, s.Secret = r.AuthID, r.Secret
		case "listening":
			s.Address, s.Fingerprint = r.Address, r.Fingerprint
			go func() {
				io.Copy(io.Discard, out)
				s.ended <- cmd.Wait()
			}()
			return s, nil
		}
	}
	return nil, &startError{cmd.Wait(), s.log.String()}
}

// startError is a server that ended before it listened.
type startError struct {
	err error
	log string
}

func (e *startError) Error() string { return "the server ended before it listened\n" + e.log }
func (e *startError) Unwrap() error { return e.err }

// stop ends the server as a service manager does, and returns its exit code.
func (s *backupServer) stop() int {
	s.cmd.Process.Signal(syscall.SIGTERM)
	const patience = 3 * time.Minute
	select {
	case err := <-s.ended:
		return exitCode(err)
	case <-time.After(patience):
		s.cmd.Process.Kill()
		return -1
	}
}

// TestScriptsOnServer runs the scripts that are not about files of a repository
// against a datastore on a server, a fresh one for each.
func TestScriptsOnServer(t *testing.T) {
	if testing.Short() {
		t.Skip("the scripts run on a path")
	}
	bin := binary(t)
	cmd := exec.Command(filepath.Join(bin, "holdfast"), "serve", "--json", "--data", filepath.Join(t.TempDir(), "data"), "--listen", "127.0.0.1:0")
	cmd.Env = append(os.Environ(), "HOLDFAST_TEST_SERVER=1")
	s, err := startServer(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if code := s.stop(); code != 0 || t.Failed() {
			t.Errorf("the server ended with %d\n%s", code, s.log.String())
		}
	})
	p := params(bin, true)
	p.Files, p.Dir = onBoth(t), ""
	setup := p.Setup
	p.Setup = func(e *testscript.Env) error {
		name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-")
		e.Setenv("HOLDFAST_REPOSITORY", s.AuthID+"@"+s.Address+":"+name+"-store")
		e.Setenv("HOLDFAST_FINGERPRINT", s.Fingerprint)
		e.Setenv("HOLDFAST_PASSWORD", s.Secret)
		return setup(e)
	}
	// Run starts its scripts in parallel with one another, and the server must
	// outlive them.
	t.Run("scripts", func(t *testing.T) { testscript.Run(t, p) })
}

// onBoth lists the scripts that run on a path and on a server.
func onBoth(t *testing.T) []string {
	t.Helper()
	names, err := filepath.Glob("*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	var list []string
	for _, n := range names {
		if !runsOnce(n) {
			list = append(list, n)
		}
	}
	if len(list) == 0 {
		t.Fatal("no scripts to run on a server")
	}
	return list
}

// serversKey is the key of a script's servers in its values.
type serversKey struct{}

func serversOf(ts *testscript.TestScript) map[string]*backupServer {
	return ts.Value(serversKey{}).(map[string]*backupServer)
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serve NAME DIR [FLAG …]")
	}
	path, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "holdfast"))
	ts.Check(err)
	flags := append([]string{"serve", "--json", "--data", ts.MkAbs(args[1]), "--listen", "127.0.0.1:0"}, args[2:]...)
	cmd := exec.Command(path, flags...)
	cmd.Dir = ts.MkAbs(".")
	cmd.Env = append(os.Environ(), "XDG_CONFIG_HOME="+ts.Getenv("XDG_CONFIG_HOME"), "NOTIFY_SOCKET="+ts.Getenv("NOTIFY_SOCKET"))
	s, err := startServer(cmd)
	ts.Check(err)
	ts.Defer(func() { s.cmd.Process.Kill() })
	serversOf(ts)[args[0]] = s
	ts.Setenv(args[0]+"_ADDRESS", s.Address)
	ts.Setenv(args[0]+"_FINGERPRINT", s.Fingerprint)
	if s.AuthID != "" {
		ts.Setenv(args[0]+"_AUTHID", s.AuthID)
		ts.Setenv(args[0]+"_SECRET", s.Secret)
	}
}

// named finds a server of the script.
func named(ts *testscript.TestScript, name string) *backupServer {
	s := serversOf(ts)[name]
	if s == nil {
		ts.Fatalf("there is no server %s", name)
	}
	return s
}

func hangUp(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 2 {
		ts.Fatalf("usage: hup NAME TEXT")
	}
	s := named(ts, args[0])
	before := len(s.log.String())
	ts.Check(s.cmd.Process.Signal(syscall.SIGHUP))
	const patience = 3 * time.Minute
	for deadline := time.Now().Add(patience); !strings.Contains(s.log.String()[before:], args[1]); {
		if time.Now().After(deadline) {
			ts.Fatalf("the log lacks %q:\n%s", args[1], s.log.String()[before:])
		}
		time.Sleep(10 * time.Millisecond)
	}
}

func stopServer(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: stopserver NAME")
	}
	s := named(ts, args[0])
	delete(serversOf(ts), args[0])
	if code := s.stop(); code != 0 {
		ts.Fatalf("the server %s ended with %d\n%s", args[0], code, s.log.String())
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".log"), []byte(s.log.String()), 0o600))
}
