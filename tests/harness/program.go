// Package harness is what the tests that drive the built program share.
//
// It is for tests only and imports the standard library only.
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
