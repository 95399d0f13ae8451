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
package script

import (
	"bytes"
	"encoding/json"
	"errors"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

// build makes the binary and returns its directory.
func build(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	out, err := exec.Command("go", "build", "-o", filepath.Join(dir, "holdfast"), "holdfast/cmd/holdfast").CombinedOutput()
	if err != nil {
		t.Fatalf("go build: %v\n%s", err, out)
	}
	return dir
}

func TestScripts(t *testing.T) {
	bin := build(t)
	testscript.Run(t, testscript.Params{
		Dir:                 ".",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(e *testscript.Env) error {
			e.Setenv("PATH", bin+string(os.PathListSeparator)+e.Getenv("PATH"))
			e.Setenv("XDG_CONFIG_HOME", filepath.Join(e.WorkDir, "config"))
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":     exits,
			"image":     makeImage,
			"same":      same,
			"flip":      flip,
			"jsonlines": jsonLines,
		},
	})
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
