// Package harness is what the tests that drive the built program share: the
// program itself, runs of it, and servers.
//
// What can go wrong is returned as an error, for some tests wait for what others
// fear. It is for tests only and imports the standard library only.
package harness

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
)

// ProgramEnv names a holdfast binary that has been built already. tests/run.sh
// sets it, so that a run of all tests links the program once.
const ProgramEnv = "HOLDFAST_TEST_PROGRAM"

// Program returns the path of the program under test, whose file is called
// holdfast: the one that ProgramEnv names, or else one that is built into dir, as
// the shipped one is, without the C library.
func Program(dir string) (string, error) {
	if path := os.Getenv(ProgramEnv); path != "" {
		if _, err := os.Stat(path); err != nil {
			return "", fmt.Errorf("%s: %w", ProgramEnv, err)
		}
		return path, nil
	}
	out := filepath.Join(dir, "holdfast")
	build := exec.Command("go", "build", "-buildvcs=false", "-o", out, "holdfast/cmd/holdfast")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if said, err := build.CombinedOutput(); err != nil {
		return "", fmt.Errorf("go build: %w\n%s", err, said)
	}
	return out, nil
}

// Main is for the TestMain of a package: it calls run with the program and a
// directory in parent ("" is the usual one for such things) that is removed
// afterwards, and returns the exit status of the tests.
func Main(parent, pattern string, run func(program, dir string) int) int {
	dir, err := os.MkdirTemp(parent, pattern)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	program, err := Program(dir)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return run(program, dir)
}
