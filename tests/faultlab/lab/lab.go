// Package lab is the bench that the fault tests work at: the programs under
// test, built with patches if asked, small file systems that lose their power,
// and a model of what a repository must hold after each command.
//
// A package of tests calls Run in its TestMain. The tests then run in a mount
// namespace of their own with a file system in memory for all that they make,
// so that nothing is left behind, however they end. Everything here returns
// errors instead of failing a test, because a seeded mistake has to be found.
//
// The package imports tests/resident, golang.org/x/sys and the standard library.
package lab

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"holdfast/tests/resident"
)

// Environment of the tests.
const (
	// scaleEnv multiplies the number of faults; 1 is what `go test` does.
	scaleEnv = "HOLDFAST_LAB_SCALE"
	// noRootEnv lets tests pass that cannot run.
	noRootEnv = "HOLDFAST_TEST_NOROOT"
	// insideEnv is set in the second process of Run.
	insideEnv = "HOLDFAST_LAB_INSIDE"
)

// spaceMax is the size of the file system in memory, in bytes as mount takes
// them.
const spaceMax = "size=6g"

// Lab is one run of the tests of a package.
type Lab struct {
	// Dir is an empty directory in memory.
	Dir string
	// Scale is by how much the number of faults is multiplied.
	Scale int
	// Program is the holdfast binary. It differs from the real one in the size
	// at which packs are sealed, so that small repositories have many, and can be told
	// to stay for many commands.
	Program string

	resident *resident.Pool // of Program

	home string
	root string // of the module
}

// SmallPacks seals packs at 128 KiB.
func SmallPacks() Patch {
	return Patch{"chunkstore/pack/store.go", "PackSizeDefault = 64 << 20", "PackSizeDefault = 128 << 10"}
}

// Run runs the tests of a package and returns their exit status. What it sets
// up is found in *l by the tests.
func Run(m *testing.M, l **Lab) int {
	if os.Geteuid() != 0 {
		return withoutRoot()
	}
	if os.Getenv(insideEnv) == "" {
		return enter()
	}
	made, err := newLab()
	if err != nil {
		fmt.Fprintln(os.Stderr, "fault lab:", err)
		return 1
	}
	*l = made
	defer made.resident.Close()
	return m.Run()
}

// withoutRoot fails, unless the environment says that this is known.
func withoutRoot() int {
	if os.Getenv(noRootEnv) == "1" {
		fmt.Println("NOT RUN: the fault lab needs mounts, and this is not root")
		return 0
	}
	fmt.Fprintf(os.Stderr, "the fault lab needs root; %s=1 lets the tests pass without it\n", noRootEnv)
	return 1
}

// enter runs this program again in a mount namespace of its own. All mounts go
// with the last process in it.
func enter() int {
	runtime.LockOSThread() // whose death the second process follows
	self := exec.Command("/proc/self/exe", os.Args[1:]...)
	self.Args[0] = os.Args[0]
	self.Env = append(os.Environ(), insideEnv+"=1")
	self.Stdin, self.Stdout, self.Stderr = os.Stdin, os.Stdout, os.Stderr
	self.SysProcAttr = &syscall.SysProcAttr{Unshareflags: syscall.CLONE_NEWNS, Pdeathsig: syscall.SIGKILL}
	err := self.Run()
	var exit *exec.ExitError
	switch {
	case errors.As(err, &exit):
		return max(1, exit.ExitCode())
	case err != nil:
		fmt.Fprintln(os.Stderr, "fault lab:", err)
		return 1
	}
	return 0
}

// newLab mounts the file system in memory and builds the programs.
func newLab() (*Lab, error) {
	l := &Lab{Scale: 1}
	if s := os.Getenv(scaleEnv); s != "" {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return nil, fmt.Errorf("%s=%q is no number of 1 or more", scaleEnv, s)
		}
		l.Scale = n
	}
	// The directory is the same for everybody: who mounts on it sees his own.
	l.Dir = filepath.Join(os.TempDir(), "holdfast-faultlab")
	if err := os.MkdirAll(l.Dir, 0o700); err != nil {
		return nil, err
	}
	if err := syscall.Mount("none", l.Dir, "tmpfs", 0, spaceMax); err != nil {
		return nil, fmt.Errorf("mount tmpfs: %w", err)
	}
	if err := os.Setenv("PATH", os.Getenv("PATH")+":/usr/local/sbin:/usr/sbin:/sbin"); err != nil {
		return nil, err
	}
	l.home = filepath.Join(l.Dir, "home")
	if err := os.Mkdir(l.home, 0o700); err != nil {
		return nil, err
	}
	gomod, err := exec.Command("go", "env", "GOMOD").Output()
	if err != nil {
		return nil, fmt.Errorf("go env: %w", err)
	}
	l.root = filepath.Dir(strings.TrimSpace(string(gomod)))
	l.Program, err = l.Build("holdfast", "./cmd/holdfast", append(Reside(), SmallPacks())...)
	l.resident = resident.NewPool(l.Program)
	return l, err
}

// MkdirTemp makes a new directory in memory.
func (l *Lab) MkdirTemp() (string, error) { return os.MkdirTemp(l.Dir, "t") }
