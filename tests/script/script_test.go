// Package script runs the holdfast binary as a user does: each *.txtar file is a
// script of command lines with what they must print and how they must exit.
//
// Besides the commands of testscript there are:
//
//	exits CODE COMMAND …     run COMMAND, which must exit with CODE
//	image NAME MIB SEED      make an image: data, holes and repeated parts
//	same FILE FILE           compare two files byte by byte
//	flip FILE-PATTERN        damage the middle of the largest file that matches
//	jsonlines stdout|stderr  every line is an object with a message_type
//	serve NAME DIR [FLAG …]  start a server and set NAME_ADDRESS, NAME_FINGERPRINT, NAME_AUTHID, NAME_SECRET
//	hup NAME TEXT            send it SIGHUP and wait for TEXT in its log
//	stopserver NAME          end it, with exit code 0; NAME.log is its log
package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"

	"holdfast/tests/harness"
)

// binaryDir names the variable that tells the tests where the binary is.
const binaryDir = "HOLDFAST_TEST_BINARY"

// TestMain makes the binary once for all tests.
func TestMain(m *testing.M) {
	if answer := os.Getenv(measuredIn); answer != "" {
		os.Exit(measureArgs(answer, os.Args[1:]))
	}
	os.Exit(harness.Main("", "holdfast-script-", func(program, _ string) int {
		os.Setenv(binaryDir, filepath.Dir(program))
		return m.Run()
	}))
}

// binary returns the directory of the binary.
func binary(t *testing.T) string {
	t.Helper()
	dir := os.Getenv(binaryDir)
	if dir == "" {
		t.Fatal("the binary was not made")
	}
	return dir
}

// once lists the scripts that run once: about the files of a repository that is
// a path, about no repository at all, or with a server of their own. All others
// run on a path and, by TestScriptsOnServer, on a server.
var once = []string{
	"damage.txtar", "scrub.txtar", "key.txtar", "usage.txtar", "source.txtar",
	"serve.txtar", "access.txtar", "task.txtar", "login.txtar",
}

func runsOnce(script string) bool { return slices.Contains(once, filepath.Base(script)) }

func TestScripts(t *testing.T) {
	for _, name := range once {
		if _, err := os.Stat(name); err != nil {
			t.Errorf("the list of scripts that run once: %v", err)
		}
	}
	testscript.Run(t, params(binary(t), false))
}

// params are the parameters of both runs; server tells which it is. Scripts may
// ask for it by the conditions [path] and [server].
func params(bin string, server bool) testscript.Params {
	return testscript.Params{
		Dir:                 ".",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			e.Setenv("XDG_RUNTIME_DIR", filepath.Join(e.WorkDir, "run"))
			e.Values[serversKey{}] = make(map[string]*harness.Server)
			if name := strings.TrimPrefix(filepath.Base(e.WorkDir), "script-"); !server && !runsOnce(name+".txtar") {
				e.Setenv("HOLDFAST_REPOSITORY", "./store")
			}
			return nil
		},
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "path":
				return !server, nil
			case "server":
				return server, nil
			}
			return false, errors.New("unknown condition")
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":      exits,
			"image":      makeImage,
			"same":       same,
			"flip":       flip,
			"jsonlines":  jsonLines,
			"serve":      serve,
			"stopserver": stopServer,
			"hup":        hangUp,
		},
	}
}

func exits(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits CODE COMMAND [ARGUMENT …]")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	var exit *exec.ExitError
	switch err := ts.Exec(args[1], args[2:]...); {
	case errors.As(err, &exit):
		got = exit.ExitCode()
	case err != nil:
		ts.Fatalf("%s: %v", args[1], err)
	}
	if got != want {
		ts.Fatalf("exit code %d, want %d", got, want)
	}
}

// makeImage writes a sparse image in pieces of 64 KiB: random bytes, text
// that compresses, repetitions of earlier pieces, and holes.
func makeImage(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 3 {
		ts.Fatalf("usage: image NAME MIB SEED")
	}
	mib, err := strconv.Atoi(args[1])
	ts.Check(err)
	seed, err := strconv.ParseUint(args[2], 10, 64)
	ts.Check(err)
	f, err := os.Create(ts.MkAbs(args[0]))
	ts.Check(err)
	ts.Check(f.Truncate(int64(mib) << 20))
	source := rand.NewChaCha8([32]byte{byte(seed), byte(seed >> 8)})
	choose := rand.New(source)
	piece := make([]byte, 64<<10)
	for off := int64(0); off < int64(mib)<<20; off += int64(len(piece)) {
		switch choose.IntN(4) {
		case 0:
			source.Read(piece)
		case 1:
			copy(piece, bytes.Repeat([]byte("a line of text "+strconv.FormatInt(off, 10)+"\n"), len(piece)/16))
		case 2: // the piece before once more
		default:
			continue
		}
		_, err := f.WriteAt(piece, off)
		ts.Check(err)
	}
	ts.Check(f.Close())
}

func same(ts *testscript.TestScript, neg bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: same FILE FILE")
	}
	a, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	b, err := os.ReadFile(ts.MkAbs(args[1]))
	ts.Check(err)
	if bytes.Equal(a, b) == neg {
		ts.Fatalf("%s (%d bytes) and %s (%d bytes): same is %v", args[0], len(a), args[1], len(b), neg)
	}
}

// flip inverts 64 bytes in the middle of the largest matching file.
func flip(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: flip FILE-PATTERN")
	}
	names, err := filepath.Glob(ts.MkAbs(args[0]))
	ts.Check(err)
	name, size := "", int64(127)
	for _, n := range names {
		st, err := os.Stat(n)
		ts.Check(err)
		if st.Mode().IsRegular() && st.Size() > size {
			name, size = n, st.Size()
		}
	}
	if name == "" {
		ts.Fatalf("no file of some size matches %s", args[0])
	}
	b, err := os.ReadFile(name)
	ts.Check(err)
	for i := range 64 {
		b[len(b)/2+i] ^= 0xff
	}
	ts.Check(os.Chmod(name, 0o600))
	ts.Check(os.WriteFile(name, b, 0o600))
	ts.Logf("damaged %s", filepath.Base(name))
}

func jsonLines(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: jsonlines stdout|stderr")
	}
	text := ts.ReadFile(args[0])
	if text == "" {
		ts.Fatalf("%s is empty", args[0])
	}
	for l := range strings.Lines(text) {
		var r struct {
			Type string `json:"message_type"`
		}
		if err := json.Unmarshal([]byte(l), &r); err != nil || r.Type == "" {
			ts.Fatalf("%s: %v, message type %q in %s", args[0], err, r.Type, l)
		}
	}
}
