package lab

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"

	"holdfast/tests/harness"
)

// Exit codes of the program.
const (
	ExitOK        = 0
	ExitLocked    = 11
	ExitIntegrity = 65
	ExitNotFound  = 66
	ExitNoSpace   = 69
	// ExitSignal says that a signal ended it.
	ExitSignal = harness.ExitKilled
)

// environ is the environment of every program.
func (l *Lab) environ() []string { return harness.Environ(l.home, l.Dir) }

// tool runs a command of the system that must go well.
func tool(name string, args ...string) error {
	cmd := exec.Command(name, args...)
	// mkfs.xfs makes small file systems only for those who say that they test.
	cmd.Env = append(os.Environ(), "TEST_DIR=1", "TEST_DEV=1", "QA_CHECK_FS=1")
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s %s: %w: %s", name, strings.Join(args, " "), err, bytes.TrimSpace(out))
	}
	return nil
}
