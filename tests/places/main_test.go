package places

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// patience is how long a command may take before it counts as hanging.
const patience = 3 * time.Minute

// program is the path of the binary under test, home a directory without any
// configuration. Both are set once, before the tests.
var program, home string

func TestMain(m *testing.M) { os.Exit(buildAndRun(m)) }

func buildAndRun(m *testing.M) int {
	if os.Geteuid() != 0 {
		if os.Getenv("HOLDFAST_TEST_NOROOT") != "1" {
			fmt.Fprintln(os.Stderr, "these tests mount small file systems and need root; set HOLDFAST_TEST_NOROOT=1 to go on without them")
			return 1
		}
		fmt.Fprintln(os.Stderr, "NOT TESTED: the file systems a repository may be on, because HOLDFAST_TEST_NOROOT=1 is set and this is not root")
		return 0
	}
	dir, err := os.MkdirTemp("", "holdfast-places-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	defer os.RemoveAll(dir)
	home = filepath.Join(dir, "home")
	if program, err = harness.Program(dir); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return m.Run()
}

// command prepares a run of the program.
func command(ctx context.Context, env []string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = append([]string{"HOME=" + home, "XDG_CONFIG_HOME=" + home, "XDG_RUNTIME_DIR=" + home, "PATH=" + os.Getenv("PATH")}, env...)
	return cmd
}

// result is what a run has said, and how it ended.
type result struct {
	args []string
	code int
	out  string // both streams
}

// run runs the program to its end.
func run(t *testing.T, env []string, args ...string) result {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := command(ctx, env, args...)
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%q: %v: %s", args, err, out.String())
	}
	return result{args, cmd.ProcessState.ExitCode(), out.String()}
}

// must runs a tool that has to succeed.
func must(t *testing.T, args ...string) {
	t.Helper()
	if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
		t.Fatalf("%q: %v: %s", args, err, out)
	}
}
