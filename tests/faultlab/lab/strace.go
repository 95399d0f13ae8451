package lab

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"holdfast/tests/harness"
)

// Changing are the system calls that change files.
func Changing() []string {
	return []string{
		"write", "pwrite64", "fsync", "fdatasync", "ftruncate", "fallocate", "rename", "renameat", "renameat2",
		"unlink", "unlinkat", "rmdir", "mkdir", "mkdirat", "link", "linkat", "chmod", "fchmod", "fchmodat", "openat",
	}
}

// Strace is what puts a fault between a program and the system: inject is an
// expression for the system call with that name. If there are paths, only calls
// on these files count. Calls are counted for each thread by itself.
func Strace(call, inject string, paths ...string) []string {
	w := []string{
		harness.Tracer, "-f", "-qq", "--seccomp-bpf", "-o", "/dev/null",
		"-e", "trace=" + call, "-e", "inject=" + call + ":" + inject,
	}
	for _, p := range paths {
		w = append(w, "-P", p)
	}
	return w
}

// OneThread lets the runtime use as few threads as it can.
func OneThread() []string { return []string{"GOMAXPROCS=1"} }

// More reports whether there must be another fault, after done of them: there are n,
// and more of them until at least so many of them have hit, for what they hit is left
// to chance and to the machine. That it never ends is prevented by a limit, far above
// what chance can do.
func More(done, n, hit, want int) bool { return done < n || hit < want && done < 20*n }

// Calls is how often each of some system calls was made, by the thread that made
// most of them.
type Calls map[string]int

// Trace runs a step, which must go well, and counts its calls.
func (w *World) Trace(op *Op, calls []string) (Calls, error) {
	dir, err := w.lab.MkdirTemp()
	if err != nil {
		return nil, err
	}
	defer os.RemoveAll(dir)
	log := filepath.Join(dir, "calls")
	traced := *w
	traced.Env = OneThread()
	traced.Wrap = []string{harness.Tracer, "-f", "-qq", "--seccomp-bpf", "-o", log, "-e", "trace=" + strings.Join(calls, ",")}
	res, err := traced.Run(w.Args(op)...)
	if err == nil && res.Code != ExitOK {
		err = fmt.Errorf("should have gone well: %s", res)
	}
	if err != nil {
		return nil, err
	}
	w.Done(op)
	text, err := os.ReadFile(log)
	if err != nil {
		return nil, err
	}
	return countCalls(string(text), calls), nil
}

// countCalls reads what strace has written.
func countCalls(text string, calls []string) Calls {
	byThread, most := map[string]int{}, Calls{}
	for line := range strings.Lines(text) {
		pid, rest, _ := strings.Cut(line, " ")
		call, _, ok := strings.Cut(strings.TrimSpace(rest), "(")
		if ok && slices.Contains(calls, call) {
			byThread[pid+call]++
			most[call] = max(most[call], byThread[pid+call])
		}
	}
	return most
}

// Add keeps the larger counts.
func (c Calls) Add(o Calls) {
	for call, n := range o {
		c[call] = max(c[call], n)
	}
}

// Point is a moment in a run: the n-th call of a name on one thread.
type Point struct {
	Call string
	N    int
}

// String names it in messages.
func (p Point) String() string { return fmt.Sprintf("%s %d", p.Call, p.N) }

// Pick chooses a moment; each call counts once, so that many writes outweigh few
// renames, but not altogether.
func (c Calls) Pick(r *rand.Rand) Point {
	var list []Point
	for _, call := range Changing() {
		for n := range min(c[call], 12) {
			list = append(list, Point{call, 1 + n*max(1, c[call]/12)})
		}
	}
	if len(list) == 0 {
		return Point{"openat", 1}
	}
	return list[r.IntN(len(list))]
}
