package faults

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
	"holdfast/tests/harness"
	"holdfast/tests/resident"
)

// Exit codes of the program that the tests wait for.
const (
	exitOK           = 0
	exitError        = 1
	exitPanic        = 2
	exitNoRepository = 10
	exitLocked       = 11
	exitKey          = 12
	exitUsage        = 64
	exitIntegrity    = 65
	exitNotFound     = 66
	exitNoSpace      = 69
	exitRefused      = 77
	exitInterrupted  = 130
	exitKilled       = harness.ExitKilled
)

// program is the path of the binary under test, home an empty directory where
// it finds no configuration.
var program, home string

// here carries out commands of the same program, in processes that stay. They seal
// a pack when it has packSize bytes, so that nobody has to read the whole of 64 MiB
// for each bit that is damaged.
var here *resident.Pool

const packSize = 24 << 20

func TestMain(m *testing.M) {
	os.Exit(harness.Main(memory(), "holdfast-faults-", func(built, dir string) int {
		program, home = built, filepath.Join(dir, "home")
		tmp := filepath.Join(dir, "tmp")
		if err := errors.Join(os.Mkdir(tmp, 0o700), os.Setenv("TMPDIR", tmp), reside(dir)); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer here.Close()
		return m.Run()
	}))
}

// reside makes the processes that stay, from a program in dir.
func reside(dir string) error {
	root, err := filepath.Abs("../..")
	if err != nil {
		return err
	}
	smaller := lab.Replace("chunkstore/pack/store.go", "PackSizeDefault = 64 << 20", fmt.Sprintf("PackSizeDefault = %d", packSize))
	stays := filepath.Join(dir, "holdfast-stays")
	here = resident.NewPool(stays)
	return lab.Build(root, stays, "./cmd/holdfast", append(lab.Reside(), smaller)...)
}

// memory is a directory in memory with room for what the tests make, "" if there is
// none. None of them asks what this file system survives: those that do make one.
func memory() string {
	const dir, room = "/dev/shm", 4 << 30 // several times what they need
	var fs syscall.Statfs_t
	if err := syscall.Statfs(dir, &fs); err != nil || fs.Bavail*uint64(fs.Bsize) < room || available() < 2*room {
		return ""
	}
	return dir
}

// available is how much memory can be had, in bytes, as far as the system tells.
func available() uint64 {
	b, _ := os.ReadFile("/proc/meminfo")
	_, rest, _ := strings.Cut(string(b), "MemAvailable:")
	var kib uint64
	fmt.Sscan(rest, &kib)
	return kib << 10
}

// environ is the environment of every command.
func environ() []string { return harness.Environ(home, os.TempDir()) }

// command is one run of the program.
type command struct {
	args  []string
	wrap  []string // what runs it: strace and its arguments
	env   []string // besides an empty configuration
	stdin io.Reader
	// stdout receives what goes there; nil keeps it in the result.
	stdout io.Writer
}

// process is a command that has been started.
type process struct{ *harness.Process }

// result is how a command ended.
type result struct{ harness.Result }

// start begins a command. It is killed when the test ends before it.
func start(t testing.TB, c command) *process {
	t.Helper()
	p, err := harness.Start(harness.Command{
		Args: append([]string{program}, c.args...), Wrap: c.wrap, Env: append(environ(), c.env...), Stdin: c.stdin, Stdout: c.stdout,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _, _ = p.Kill() })
	return &process{p}
}

// wait waits for the end of a command. A crash or a hang fails the test.
func (p *process) wait(t testing.TB) result {
	t.Helper()
	r, err := p.Wait()
	if err != nil && !errors.Is(err, harness.ErrTracer) {
		t.Error(err)
	} else if r.Code == exitPanic {
		t.Errorf("crashed: %s", r)
	}
	return result{r}
}

// holdfast carries out a command that nothing is done to. A crash or a hang ends
// the test.
func holdfast(t testing.TB, args ...string) result {
	t.Helper()
	var out bytes.Buffer
	r := holdfastTo(t, &out, args...)
	r.Out = out.String()
	return r
}

// holdfastTo is holdfast with a standard output.
func holdfastTo(t testing.TB, out io.Writer, args ...string) result {
	t.Helper()
	begin := time.Now()
	done, err := here.Do(out, environ(), args...)
	if err != nil {
		t.Fatal(err)
	}
	r := result{harness.Result{Args: append([]string{"holdfast"}, args...), Code: done.Code, Err: done.Err, Took: time.Since(begin)}}
	if r.Code == exitPanic {
		t.Errorf("crashed: %s", r)
	}
	return r
}

// want ends the test unless the command ended with that code and its messages
// contain all words.
func (r result) want(t testing.TB, code int, words ...string) result {
	t.Helper()
	if r.Code != code {
		t.Fatalf("want exit %d: %s", code, r)
	}
	r.says(t, words...)
	return r
}

// says fails the test for words that are missing from the messages.
func (r result) says(t testing.TB, words ...string) {
	t.Helper()
	for _, w := range words {
		if !strings.Contains(r.Err+r.Out, w) {
			t.Errorf("%q is not said: %s", w, r)
		}
	}
}

// strace is what puts faults between the program and the system. trace and
// inject are its expressions; paths, if there are any, limit both to calls on
// these files. It counts calls for each thread by itself.
func strace(trace, inject string, paths ...string) []string {
	w := []string{"strace", "-f", "-qq", "-o", "/dev/null", "-e", "trace=" + trace, "-e", "inject=" + inject}
	for _, p := range paths {
		w = append(w, "-P", p)
	}
	return w
}

// oneThread makes the runtime use as few threads as it can.
var oneThread = []string{"GOMAXPROCS=1"}

// tracee returns the process that runs below strace, 0 if there is none yet.
func (p *process) tracee() int {
	pid := p.Pid()
	b, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", pid, pid))
	if err != nil {
		return 0
	}
	child, _ := strconv.Atoi(strings.TrimSpace(string(b)))
	return child
}

// mayUseDevices reports whether loop devices and mounts can be used. It fails
// the test if they cannot, unless the environment says that this is known.
func mayUseDevices(t testing.TB) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	if os.Getenv("HOLDFAST_TEST_NOROOT") != "1" {
		t.Fatal("loop devices and mounts need root; HOLDFAST_TEST_NOROOT=1 lets the tests pass without them")
	}
	t.Logf("NOT RUN: %s needs loop devices and mounts, and this is not root", t.Name())
	return false
}
