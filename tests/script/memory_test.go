package script

import (
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"holdfast/tests/harness"
)

// memoryMax is what a client and a server with one client may take, in KiB: 150
// MiB on two cores, and what the pieces under way take on each further one.
func memoryMax() int64 { return int64(150+14*max(0, runtime.NumCPU()-2)) << 10 }

// What an encrypted backup and a restore over the network take is bounded on both
// sides, on a machine that is busy with something else, too.
func TestMemoryOfClientAndServer(t *testing.T) {
	harness.Long(t)
	h, s := newServed(t)
	image := filepath.Join(h.dir, "disk.raw")
	want := randomImage(t, image, 384<<20)
	h.env = append(h.env, "HOLDFAST_ENCRYPTION_PASSWORD=correct horse")
	key := filepath.Join(h.dir, "key.json")
	if code, out := h.do("key", "create", key); code != 0 {
		t.Fatalf("key: exit code %d\n%s", code, out)
	}
	for _, id := range []string{"a", "b"} {
		t.Run("backup "+id, func(t *testing.T) {
			withinMemory(t, h, "backup", "--quiet", "--keyfile", key, "--backup-id", id, "disk.img:"+image)
		})
	}
	out := filepath.Join(h.dir, "out.raw")
	t.Run("restore", func(t *testing.T) {
		withinMemory(t, h, "restore", "--quiet", "--keyfile", key, "host/a/latest", "disk.img", out)
		sameSum(t, out, want)
	})
	// A client that finds its server far away, or a busy machine, has more under way.
	afar := func(t *testing.T) house {
		far := h
		far.env = append(h.env[1:len(h.env):len(h.env)], "HOLDFAST_REPOSITORY="+s.AuthID+"@"+farther(t, s.Address)+":tank")
		return far
	}
	t.Run("backup from afar", func(t *testing.T) {
		withinMemory(t, afar(t), "backup", "--quiet", "--keyfile", key, "--backup-id", "c", "disk.img:"+image)
	})
	t.Run("restore from afar", func(t *testing.T) {
		withinMemory(t, afar(t), "restore", "--quiet", "--keyfile", key, "host/c/latest", "disk.img", out+".far")
		sameSum(t, out+".far", want)
	})
	peak, err := s.Peak()
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("server: %d MiB", peak>>20)
	if kib := peak >> 10; kib > memoryMax() {
		t.Errorf("the server took %d KiB, want at most %d", kib, memoryMax())
	}
}

// sameSum fails the test unless a file has that checksum.
func sameSum(t *testing.T, path string, want [32]byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil || sha256.Sum256(b) != want {
		t.Errorf("what was restored is not what was backed up: %v", err)
	}
}

// farther stands before a server and lets what it says first wait for a moment, so that
// it seems to be far away.
func farther(t *testing.T, server string) (address string) {
	t.Helper()
	var n atomic.Int64
	r := newRelay(t, server, func() bool {
		if n.Add(1) <= 20 {
			time.Sleep(50 * time.Millisecond)
		}
		return false
	})
	return r.Addr().String()
}

// withinMemory runs a command and looks at the most it took.
func withinMemory(t *testing.T, h house, args ...string) {
	t.Helper()
	kib, out, err := peakOf(t, h.command(args...))
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	t.Logf("%d MiB", kib>>10)
	if kib > memoryMax() {
		t.Errorf("it took %d KiB, want at most %d", kib, memoryMax())
	}
}

// measuredIn names, in the environment of this binary, the file that it writes the peak of its
// arguments into, a command, in place of testing something.
const measuredIn = "HOLDFAST_TEST_MEASURED_IN"

// peakOf runs a command and tells the most memory it ever had, in KiB. It is the child of a
// small process: Linux lets one begin with the peak of its parent, and this one is large.
func peakOf(t *testing.T, cmd *exec.Cmd) (kib int64, out []byte, err error) {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	answer := filepath.Join(t.TempDir(), "peak")
	small := exec.Command(self, cmd.Args...)
	small.Dir, small.Env = cmd.Dir, append(cmd.Environ(), measuredIn+"="+answer)
	if out, err = small.CombinedOutput(); err != nil {
		return 0, out, err
	}
	text, err := os.ReadFile(answer)
	if err != nil {
		return 0, out, err
	}
	kib, err = strconv.ParseInt(string(text), 10, 64)
	return kib, out, err
}

// measureArgs is the small process of peakOf. It returns the exit code.
func measureArgs(answer string, args []string) int {
	cmd := exec.Command(args[0], args[1:]...)
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	err := cmd.Run()
	if cmd.ProcessState == nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	usage := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if err := os.WriteFile(answer, strconv.AppendInt(nil, usage.Maxrss, 10), 0o600); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return cmd.ProcessState.ExitCode()
}

// What a large process starts is not said to be large.
func TestPeakIsTheCommands(t *testing.T) {
	ballast := make([]byte, 300<<20)
	for i := 0; i < len(ballast); i += os.Getpagesize() {
		ballast[i] = 1
	}
	kib, out, err := peakOf(t, exec.Command("true"))
	if err != nil || kib < 100 || kib > 200<<10 {
		t.Errorf("%d KiB, %v\n%s", kib, err, out)
	}
	runtime.KeepAlive(ballast)
}

// randomImage writes an image that nothing compresses.
func randomImage(t *testing.T, path string, size int) [32]byte {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	sum, r, b := sha256.New(), rand.NewChaCha8([32]byte{1}), make([]byte, 1<<20)
	for range size / len(b) {
		r.Read(b)
		sum.Write(b)
		if _, err := f.Write(b); err != nil {
			t.Fatal(err)
		}
	}
	return [32]byte(sum.Sum(nil))
}
