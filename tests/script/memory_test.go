package script

import (
	"bufio"
	"crypto/sha256"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
)

// memoryMax is what a client and a server with one client may take, in KiB: 170
// MiB on two cores, and what the pieces under way take on each further one. About 100
// are usual; on a machine that is busy with much else a client was seen to take 151.
func memoryMax() int64 { return int64(170+14*max(0, runtime.NumCPU()-2)) << 10 }

// What an encrypted backup and a restore over the network take is bounded on both
// sides, on a machine that is busy with something else, too.
func TestMemoryOfClientAndServer(t *testing.T) {
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
	})
	b, err := os.ReadFile(out)
	if err != nil || sha256.Sum256(b) != want {
		t.Errorf("what was restored is not what was backed up: %v", err)
	}
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", s.cmd.Process.Pid))
	if err != nil {
		t.Fatal(err)
	}
	if kib := highWater(t, string(status)); kib > memoryMax() {
		t.Errorf("the server took %d KiB, want at most %d", kib, memoryMax())
	}
}

// withinMemory runs a command and looks at the most it took.
func withinMemory(t *testing.T, h house, args ...string) {
	t.Helper()
	cmd := h.command(args...)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	usage, ok := cmd.ProcessState.SysUsage().(*syscall.Rusage)
	if !ok {
		t.Fatal("the system does not tell")
	}
	t.Logf("%d MiB", usage.Maxrss>>10)
	if usage.Maxrss > memoryMax() {
		t.Errorf("it took %d KiB, want at most %d", usage.Maxrss, memoryMax())
	}
}

// highWater finds the most that a process ever took, in KiB.
func highWater(t *testing.T, status string) int64 {
	t.Helper()
	lines := bufio.NewScanner(strings.NewReader(status))
	for lines.Scan() {
		var kib int64
		if n, _ := fmt.Sscanf(lines.Text(), "VmHWM: %d kB", &kib); n == 1 {
			t.Logf("server: %d MiB", kib>>10)
			return kib
		}
	}
	t.Fatalf("no VmHWM in %q", status)
	return 0
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
