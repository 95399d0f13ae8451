package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// machine is what the document says of where it was measured. It holds
// neither the name of the host nor a path.
type machine struct {
	date       time.Time
	cpu        string
	cores      int
	memory     int64 // bytes
	kernel     string
	fileSystem string
	versions   []string
	rounds     int
	limits     limits
}

// describeMachine gathers all but the limits.
func describeMachine(ctx context.Context, b bench) (machine, error) {
	m := machine{date: time.Now().UTC(), cores: runtime.NumCPU(), cpu: "unknown", rounds: b.rounds}
	if text, err := os.ReadFile("/proc/cpuinfo"); err == nil {
		m.cpu = firstField(string(text), "model name")
	}
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return m, fmt.Errorf("ask for the memory: %w", err)
	}
	m.memory = int64(info.Totalram) * int64(info.Unit)
	var uts unix.Utsname
	if err := unix.Uname(&uts); err != nil {
		return m, fmt.Errorf("ask for the kernel: %w", err)
	}
	release, _, _ := strings.Cut(unix.ByteSliceToString(uts.Release[:]), "-") // the rest names who built it
	m.kernel = unix.ByteSliceToString(uts.Sysname[:]) + " " + release
	if out, err := exec.CommandContext(ctx, "findmnt", "-n", "-o", "FSTYPE", "-T", b.imageDir).Output(); err == nil {
		m.fileSystem = strings.TrimSpace(string(out))
	}
	for _, t := range b.tools {
		line, err := t.versionLine(ctx)
		if err != nil {
			return m, fmt.Errorf("ask %s for its version: %w", t.name, err)
		}
		m.versions = append(m.versions, line)
	}
	return m, nil
}

// readLimits has the limits measured by a second process, so that this one
// stays small.
func (m *machine) readLimits(ctx context.Context, b bench) error {
	self, err := os.Executable()
	if err != nil {
		return err
	}
	cmd := exec.CommandContext(ctx, self, "-limits")
	cmd.Env = append(os.Environ(), "HOLDFAST_BENCH_DIR="+b.imageDir)
	cmd.Stderr = os.Stderr
	out, err := cmd.Output()
	if err != nil {
		return fmt.Errorf("measure the limits: %w", err)
	}
	return json.Unmarshal(out, &m.limits)
}

// firstField is the value of the first "name : value" line.
func firstField(text, name string) string {
	for line := range strings.Lines(text) {
		if key, value, ok := strings.Cut(line, ":"); ok && strings.TrimSpace(key) == name {
			return strings.TrimSpace(value)
		}
	}
	return "unknown"
}
