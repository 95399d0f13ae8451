package source

import (
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// mayUseDevices tells whether block devices can be made. Only root can; who
// tests without root has to say so, lest the tests be lost unnoticed.
func mayUseDevices(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	if os.Getenv("HOLDFAST_TEST_NOROOT") != "1" {
		t.Fatal("this test needs root, to set up a loop device; HOLDFAST_TEST_NOROOT=1 goes on without it")
	}
	t.Log("NOT TESTED: BLOCK DEVICES, for want of root (HOLDFAST_TEST_NOROOT=1)")
	return false
}

// loopDevice makes a block device of a file.
func loopDevice(t *testing.T, path string) string {
	t.Helper()
	device := runTool(t, "losetup", "--find", "--show", path)
	t.Cleanup(func() { runTool(t, "losetup", "--detach", device) })
	return device
}

func TestBlockDevice(t *testing.T) {
	if !mayUseDevices(t) {
		return
	}
	want := patternDisk(4<<20 + 512)
	path := writeFile(t, filepath.Join(t.TempDir(), "disk"), want)
	device := loopDevice(t, path)
	img := mustOpen(t, device, Options{})
	if data := checkImage(t, img, want); data != int64(len(want)) {
		t.Errorf("%d bytes are called data, want all %d", data, len(want))
	}

	// Where the file has lost its end, the device answers with EIO.
	if err := os.Truncate(path, 2<<20); err != nil {
		t.Fatal(err)
	}
	dropCache(t, device)
	_, err := img.ReadAt(make([]byte, 4096), 3<<20)
	wantError(t, err, unix.EIO, "read "+device+" at 3145728: input/output error")
	if err := img.Verify(); err != nil {
		t.Errorf("device of the same size: %v", err)
	}
	runTool(t, "losetup", "--set-capacity", device)
	wantError(t, img.Verify(), ErrChanged, device, "was 4194816 bytes long, is 2097152")
}

// dropCache makes the next read of a device go to what is below it.
func dropCache(t *testing.T, device string) {
	t.Helper()
	runTool(t, "blockdev", "--flushbufs", device)
}

// TestQcow2OnBlockDevice reads a device that holds a qcow2 image, as volume
// managers without snapshots of their own are used.
func TestQcow2OnBlockDevice(t *testing.T) {
	if !mayUseDevices(t) {
		return
	}
	path := single("1M", "", "write -P 1 0 300k", "write -z 64k 64k")(t, t.TempDir())
	if err := os.Truncate(path, 4<<20); err != nil {
		t.Fatal(err)
	}
	want := truth(t, path)
	checkImage(t, mustOpen(t, loopDevice(t, path), Options{Format: Qcow2}), want)
}
