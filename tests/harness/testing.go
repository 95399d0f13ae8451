package harness

import (
	"os"
	"os/exec"
	"os/signal"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// Long skips a test that takes long where the short way is asked for, as
// `tests/run.sh check` does with -short. What runs all tests never asks for it.
func Long(t testing.TB) {
	t.Helper()
	if testing.Short() {
		t.Skip("it takes long, and -short leaves that out")
	}
}

// Eventually polls until done; it ends the test when Patience has run out.
func Eventually(t testing.TB, what string, done func() bool) {
	t.Helper()
	for end := time.Now().Add(Patience); time.Now().Before(end); time.Sleep(10 * time.Millisecond) {
		if done() {
			return
		}
	}
	t.Fatalf("waited in vain for: %s", what)
}

// Tool runs a tool of the system that must succeed, and returns what it prints.
func Tool(t testing.TB, args ...string) string {
	t.Helper()
	out, err := exec.Command(args[0], args[1:]...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s: %v\n%s", strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// Unmount unmounts a directory at the end of the test.
func Unmount(t testing.TB, dir string) {
	t.Cleanup(func() {
		if out, err := exec.Command("umount", dir).CombinedOutput(); err != nil {
			t.Errorf("umount %s: %v: %s", dir, err, out)
		}
	})
}

// Loop attaches a file to a loop device, waiting for a free one. The test ends with
// detach at the latest; what is called more often does nothing, for the device may
// belong to another test by then.
func Loop(t testing.TB, file string) (device string, detach func()) {
	t.Helper()
	Eventually(t, "a loop device for "+file, func() bool {
		out, err := exec.Command("losetup", "--find", "--show", file).Output()
		device = strings.TrimSpace(string(out))
		return err == nil && device != ""
	})
	detach = sync.OnceFunc(func() {
		if out, err := exec.Command("losetup", "--detach", device).CombinedOutput(); err != nil {
			t.Errorf("losetup --detach %s: %v: %s", device, err, out)
		}
	})
	t.Cleanup(detach)
	return device, detach
}

// HearHangups lets commands end by signals even if the tests were started by nohup or
// in the background, as something that a program ignores is ignored by those that it
// starts.
func HearHangups(t testing.TB) {
	heard := make(chan os.Signal, 1)
	for _, s := range []os.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if signal.Ignored(s) {
			signal.Notify(heard, s)
		}
	}
	t.Cleanup(func() { signal.Stop(heard) })
}
