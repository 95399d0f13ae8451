package places

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"holdfast/tests/harness"
)

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
	return harness.Main("", "holdfast-places-", func(built, dir string) int {
		program, home = built, filepath.Join(dir, "home")
		return m.Run()
	})
}

// command is a run of the program.
func command(env []string, args ...string) harness.Command {
	own := append(harness.Environ(home, os.TempDir()), "XDG_RUNTIME_DIR="+home)
	return harness.Command{Args: append([]string{program}, args...), Env: append(own, env...)}
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
	r, err := harness.Do(command(env, args...))
	if err != nil {
		t.Fatal(err)
	}
	return result{args, r.Code, r.Out + r.Err}
}
