package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"holdfast/command/term"
)

// bench is an app whose surroundings are the test's own.
type bench struct {
	*app
	dir      string
	out, err bytes.Buffer
}

func newBench(t *testing.T, env ...string) *bench {
	t.Helper()
	b := &bench{dir: t.TempDir()}
	b.app = &app{
		stdin:  strings.NewReader(""),
		stdout: &b.out,
		stderr: &b.err,
		env:    environ(append([]string{"XDG_CONFIG_HOME=" + filepath.Join(b.dir, "config")}, env...)),
		now:    func() time.Time { return time.Date(2026, 11, 22, 2, 0, 0, 0, time.UTC) },
	}
	b.ui = term.New(b.stdout, b.stderr, b.now, nil)
	return b
}

// do runs one command line and wants an exit code.
func (b *bench) do(t *testing.T, want int, args ...string) {
	t.Helper()
	b.out.Reset()
	b.err.Reset()
	if got := b.run(args); got != want {
		t.Fatalf("holdfast %s: exit code %d, want %d\n%s%s", strings.Join(args, " "), got, want, b.out.String(), b.err.String())
	}
}

// wantErr wants a text on standard error.
func (b *bench) wantErr(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(b.err.String(), text) {
		t.Fatalf("standard error lacks %q:\n%s", text, b.err.String())
	}
}

func (b *bench) wantOut(t *testing.T, text string) {
	t.Helper()
	if !strings.Contains(b.out.String(), text) {
		t.Fatalf("standard output lacks %q:\n%s", text, b.out.String())
	}
}

// path is a name in the test's directory.
func (b *bench) path(name string) string { return filepath.Join(b.dir, name) }

func (b *bench) write(t *testing.T, name, content string) string {
	t.Helper()
	if err := os.WriteFile(b.path(name), []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return b.path(name)
}

func TestEnviron(t *testing.T) {
	env := environ([]string{"A=1", "B=x=y", "C=", "broken"})
	if len(env) != 3 || env["A"] != "1" || env["B"] != "x=y" {
		t.Errorf("environ: %v", env)
	}
	if v, ok := env["C"]; v != "" || !ok {
		t.Errorf("an empty variable is %q, %v; want defined and empty", v, ok)
	}
}

func TestEveryCommandHasHelp(t *testing.T) {
	b := newBench(t)
	for _, n := range completionNodes(b.tree()) {
		args := append(strings.Fields(n.path), "--help")
		b.do(t, term.ExitOK, args...)
		b.wantOut(t, "EXIT STATUS\n")
		b.wantOut(t, "holdfast "+n.path)
		if n.path != "" && len(n.commands) == 0 && !strings.Contains(b.out.String(), "Examples:\n  ") {
			t.Errorf("holdfast %s --help shows no example", n.path)
		}
		if b.err.Len() > 0 {
			t.Errorf("holdfast %s --help writes to standard error: %s", n.path, b.err.String())
		}
	}
	b.do(t, term.ExitOK, "help", "key", "create")
	b.wantOut(t, "holdfast key create - make a new key")
}

func TestMissingCommand(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitUsage)
	b.wantErr(t, "no command given")
	b.do(t, term.ExitUsage, "snapshot")
	b.wantErr(t, "unprotect")
	b.do(t, term.ExitUsage, "snapshot", "--json")
	if strings.Count(b.err.String(), "\n") != 1 {
		t.Errorf("--json: want one line, got %q", b.err.String())
	}
}

func TestRepositoryChoice(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitUsage, "list")
	b.wantErr(t, "no repository given")
	b.do(t, term.ExitNoRepository, "list", "-r", b.path("none"))
	b.wantErr(t, "hint: make it with: holdfast init "+b.path("none"))
	b.do(t, term.ExitKey, "list", "-r", "tank")
	b.wantErr(t, "the password of root@pam is needed")
	b.do(t, term.ExitUsage, "reindex", "-r", "tank")
	b.wantErr(t, "holdfast reindex works on repositories that are a path; tank is on a server")
	b.do(t, term.ExitUsage, "list", "-r", "")
	b.wantErr(t, "--repository: repository")

	b.env["PBS_REPOSITORY"] = "bad@name"
	b.do(t, term.ExitUsage, "list")
	b.wantErr(t, "$PBS_REPOSITORY: repository")
	b.env["HOLDFAST_REPOSITORY"] = b.path("ours")
	b.do(t, term.ExitNoRepository, "list")
	b.wantErr(t, "init "+b.path("ours"))
	b.env["HOLDFAST_REPOSITORY"] = ""
	b.do(t, term.ExitUsage, "list")
	b.wantErr(t, "$HOLDFAST_REPOSITORY: repository")
}

func TestServerRepositoryGuess(t *testing.T) {
	b := newBench(t)
	t.Chdir(b.dir)
	if err := os.Mkdir("tank", 0o700); err != nil {
		t.Fatal(err)
	}
	b.do(t, term.ExitUsage, "list", "-r", "tank")
	b.wantErr(t, `hint: did you mean "./tank"?`)
}

func TestGlobalFlags(t *testing.T) {
	b := newBench(t)
	b.do(t, term.ExitOK, "--json", "version")
	b.do(t, term.ExitOK, "version", "--json")
	var r versionRecord
	if err := json.Unmarshal(b.out.Bytes(), &r); err != nil || r.MessageType != "version" || r.Version != term.Version() {
		t.Errorf("version --json: %+v, %v from %q", r, err, b.out.String())
	}
	b.do(t, term.ExitUsage, "-q", "version", "-v")
	b.wantErr(t, "exclude each other")
	b.do(t, term.ExitUsage, "version", "--lock-wait=-1s")
	b.wantErr(t, "must not be negative")
	b.do(t, term.ExitUsage, "version", "--lock-wait", "soon")
	b.wantErr(t, `invalid value "soon" for --lock-wait`)
	b.do(t, term.ExitUsage, "version", "extra")
	b.wantErr(t, "holdfast version wants no arguments, got 1")
}

func TestErrorsAsJSON(t *testing.T) {
	b := newBench(t)
	for _, args := range [][]string{{"list", "--json"}, {"--json", "frobnicate"}} {
		b.do(t, term.ExitUsage, args...)
		var r term.ExitRecord
		if err := json.Unmarshal(b.err.Bytes(), &r); err != nil {
			t.Fatalf("%v: %v in %q", args, err, b.err.String())
		}
		if r.MessageType != "exit_error" || r.Code != term.ExitUsage || r.Message == "" || r.Hint == "" {
			t.Errorf("%v: %+v", args, r)
		}
		if b.out.Len() > 0 {
			t.Errorf("%v: standard output: %q", args, b.out.String())
		}
	}
}

// brokenWriter fails like a full disk behind a redirection.
type brokenWriter struct{}

var errBroken = errors.New("broken")

func (brokenWriter) Write([]byte) (int, error) { return 0, errBroken }

func TestUnwrittenResultIsAnError(t *testing.T) {
	for _, args := range [][]string{{"version"}, {"version", "--json"}, {"completion", "bash"}, {"--help"}} {
		b := newBench(t)
		b.stdout = brokenWriter{}
		b.do(t, term.ExitOutput, args...)
		b.wantErr(t, "broken")
	}
}

func TestSnapshotNamesForChange(t *testing.T) {
	b := newBench(t, "HOLDFAST_REPOSITORY=/nowhere/at/all")
	for _, name := range []string{"vm/100", "vm/100/latest"} {
		b.do(t, term.ExitUsage, "snapshot", "forget", name)
		b.wantErr(t, "hint: holdfast snapshot list vm/100 shows them")
	}
	b.do(t, term.ExitUsage, "snapshot", "forget", "vm/100/2026-11-22 02:00")
	b.do(t, term.ExitUsage, "snapshot", "forget", "vm/100/2026-11-22T02:00:00Z", "--ns", "a//b")
	b.wantErr(t, "--ns: namespace")
	b.do(t, term.ExitNoRepository, "snapshot", "forget", "vm/100/2026-11-22T02:00:00Z")
}

// A variable that is probably one of ours misspelt ends every command.
func TestUnknownVariablesEndACommand(t *testing.T) {
	b := newBench(t, "HOLDFAST_KEYFLE=x")
	b.do(t, term.ExitUsage, "version")
	b.wantErr(t, "error: $HOLDFAST_KEYFLE is not a variable of Holdfast")
	b.wantErr(t, "hint: did you mean $HOLDFAST_KEYFILE?")
	b = newBench(t, "HOLDFAST_ZEBRA=y")
	b.do(t, term.ExitOK, "version")
	b.wantErr(t, "warning: $HOLDFAST_ZEBRA is not a variable of Holdfast and is ignored\n")
}
