package script

import (
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"holdfast/tests/harness"
)

// startServer runs holdfast serve on a port that the system chooses, and waits
// until it listens. env is added to the environment of the tests.
func startServer(program, dir, data string, env []string, flags ...string) (*harness.Server, error) {
	args := append([]string{program, "serve", "--json", "--data", data, "--listen", "127.0.0.1:0"}, flags...)
	return harness.Serve(harness.Command{Args: args, Dir: dir, Env: append(os.Environ(), env...)})
}

// TestScriptsOnServer runs the scripts that are not about files of a repository
// against a datastore on a server, a fresh one for each.
func TestScriptsOnServer(t *testing.T) {
	harness.Long(t)
	bin := binary(t)
	s, err := startServer(filepath.Join(bin, "holdfast"), "", filepath.Join(t.TempDir(), "data"), []string{"HOLDFAST_TEST_SERVER=1"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Stop(); err != nil || t.Failed() {
			t.Errorf("the server: %v\n%s", err, s.Log.String())
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

func serversOf(ts *testscript.TestScript) map[string]*harness.Server {
	return ts.Value(serversKey{}).(map[string]*harness.Server)
}

func serve(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: serve NAME DIR [FLAG …]")
	}
	path, err := exec.LookPath(filepath.Join(strings.Split(ts.Getenv("PATH"), string(os.PathListSeparator))[0], "holdfast"))
	ts.Check(err)
	env := []string{"XDG_CONFIG_HOME=" + ts.Getenv("XDG_CONFIG_HOME"), "NOTIFY_SOCKET=" + ts.Getenv("NOTIFY_SOCKET")}
	s, err := startServer(path, ts.MkAbs("."), ts.MkAbs(args[1]), env, args[2:]...)
	ts.Check(err)
	ts.Defer(func() { _, _ = s.Kill() })
	serversOf(ts)[args[0]] = s
	ts.Setenv(args[0]+"_ADDRESS", s.Address)
	ts.Setenv(args[0]+"_FINGERPRINT", s.Fingerprint)
	if s.AuthID != "" {
		ts.Setenv(args[0]+"_AUTHID", s.AuthID)
		ts.Setenv(args[0]+"_SECRET", s.Secret)
	}
}

// named finds a server of the script.
func named(ts *testscript.TestScript, name string) *harness.Server {
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
	before := len(s.Log.String())
	ts.Check(s.Signal(syscall.SIGHUP))
	for deadline := time.Now().Add(harness.Patience); !strings.Contains(s.Log.String()[before:], args[1]); {
		if time.Now().After(deadline) {
			ts.Fatalf("the log lacks %q:\n%s", args[1], s.Log.String()[before:])
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
	if err := s.Stop(); err != nil {
		ts.Fatalf("%s: %v", args[0], err)
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]+".log"), []byte(s.Log.String()), 0o600))
}
