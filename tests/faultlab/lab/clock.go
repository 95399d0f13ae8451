package lab

import (
	"encoding/binary"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// clockEnv names the file that holds by how much the clock is wrong.
const clockEnv = "HOLDFAST_FAULT_CLOCK"

// wrongClock is compiled into package time: seconds that are added to the wall
// clock, from a file that may change at any time. The monotonic clock goes on, as
// it does when a machine's clock is set.
const wrongClock = `package time

import (
	"sync"
	"sync/atomic"
	"syscall"
	"unsafe"
)

var wrongClock struct {
	once sync.Once
	by   *int64
}

func clockError() int64 {
	c := &wrongClock
	c.once.Do(func() {
		name, ok := syscall.Getenv("` + clockEnv + `")
		if !ok {
			return
		}
		fd, err := syscall.Open(name, syscall.O_RDONLY, 0)
		if err != nil {
			return
		}
		b, err := syscall.Mmap(fd, 0, 8, syscall.PROT_READ, syscall.MAP_SHARED)
		syscall.Close(fd)
		if err == nil {
			c.by = (*int64)(unsafe.Pointer(&b[0]))
		}
	})
	if c.by == nil {
		return 0
	}
	return atomic.LoadInt64(c.by)
}
`

// BuildWrongClock compiles a package with a clock that a Clock sets.
func (l *Lab) BuildWrongClock(name, pkg string) (string, error) {
	out, err := exec.Command("go", "env", "GOROOT").Output()
	if err != nil {
		return "", fmt.Errorf("go env: %w", err)
	}
	dir := filepath.Join(strings.TrimSpace(string(out)), "src", "time")
	const now = "\tsec, nsec, mono := runtimeNow()\n\tif mono == 0 {\n"
	return l.Build(name, pkg, SmallPacks(),
		Patch{filepath.Join(dir, "time.go"), now, strings.Replace(now, "\tif", "\tsec += clockError()\n\tif", 1)},
		Patch{filepath.Join(dir, "wrongclock.go"), "", wrongClock})
}

// Clock is the wall clock of programs that BuildWrongClock has made.
type Clock struct {
	// Env is for the processes.
	Env []string
	by  []byte
}

// NewClock makes a clock that is right.
func (l *Lab) NewClock() (*Clock, error) {
	dir, err := l.MkdirTemp()
	if err != nil {
		return nil, err
	}
	path := filepath.Join(dir, "clock")
	if err := os.WriteFile(path, make([]byte, 8), 0o600); err != nil {
		return nil, err
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	by, err := unix.Mmap(int(f.Fd()), 0, 8, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return &Clock{[]string{clockEnv + "=" + path}, by}, err
}

// Set makes the clock wrong by some seconds, also for processes that run.
func (c *Clock) Set(by time.Duration) {
	binary.NativeEndian.PutUint64(c.by, uint64(int64(by/time.Second)))
}
