package main

import (
	"bytes"
	"context"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

// sample is one measured run of a command.
type sample struct {
	wall, cpu time.Duration
	rss       int64 // peak resident memory in bytes
	stored    int64 // size of the repository afterwards, in bytes
}

// command is a program to run in dir with env added to a small environment.
type command struct {
	dir  string
	env  []string
	args []string
}

// measure runs c and says what it took. The peak of memory is the child's:
// this process is kept small, because Linux lets a child begin with the peak
// of its parent.
func measure(ctx context.Context, c command) (sample, error) {
	syscall.Sync()
	var said bytes.Buffer
	cmd := exec.CommandContext(ctx, c.args[0], c.args[1:]...)
	cmd.Dir = c.dir
	cmd.Env = append([]string{"PATH=" + os.Getenv("PATH"), "HOME=" + c.dir, "LC_ALL=C.UTF-8"}, c.env...)
	cmd.Stdout, cmd.Stderr = &said, &said
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) }
	began := time.Now()
	err := cmd.Run()
	wall := time.Since(began)
	if err != nil {
		return sample{}, fmt.Errorf("%s: %w\n%s", strings.Join(c.args, " "), err, tail(said.Bytes()))
	}
	s := sample{wall: wall, cpu: cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()}
	if u, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage); ok {
		s.rss = u.Maxrss << 10
	}
	return s, nil
}

// tail is the end of what a command said.
func tail(b []byte) []byte {
	const most = 2000
	return b[max(0, len(b)-most):]
}

// treeSize is the sum of the sizes of all files below dir.
func treeSize(dir string) (int64, error) {
	var sum int64
	err := filepath.WalkDir(dir, func(_ string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		info, err := d.Info()
		if err != nil {
			return err
		}
		sum += info.Size()
		return nil
	})
	return sum, err
}

// compareFiles fails unless both files have the same bytes.
func compareFiles(ctx context.Context, a, b string) error {
	if out, err := exec.CommandContext(ctx, "cmp", a, b).CombinedOutput(); err != nil {
		return fmt.Errorf("the restored image differs: %w: %s", err, out)
	}
	return nil
}

// warm reads a file once, so that it is in the page cache.
func warm(ctx context.Context, name string) error {
	return exec.CommandContext(ctx, "cp", "--sparse=always", name, "/dev/null").Run()
}

// median of the samples, each quantity by itself.
func median(all []sample) sample {
	pick := func(value func(sample) int64) int64 {
		v := make([]int64, len(all))
		for i, s := range all {
			v[i] = value(s)
		}
		slices.Sort(v)
		if len(v)%2 == 0 {
			return (v[len(v)/2-1] + v[len(v)/2]) / 2
		}
		return v[len(v)/2]
	}
	return sample{
		wall:   time.Duration(pick(func(s sample) int64 { return int64(s.wall) })),
		cpu:    time.Duration(pick(func(s sample) int64 { return int64(s.cpu) })),
		rss:    pick(func(s sample) int64 { return s.rss }),
		stored: pick(func(s sample) int64 { return s.stored }),
	}
}

// spread is the fastest and the slowest run.
func spread(all []sample) (fastest, slowest time.Duration) {
	fastest = all[0].wall
	for _, s := range all {
		fastest, slowest = min(fastest, s.wall), max(slowest, s.wall)
	}
	return fastest, slowest
}

// peak is the most memory of all runs, in bytes.
func peak(all []sample) (most int64) {
	for _, s := range all {
		most = max(most, s.rss)
	}
	return most
}
