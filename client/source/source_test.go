package source

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// runTool executes a program that the tests cannot do without.
func runTool(t testing.TB, name string, args ...string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	if err != nil {
		t.Fatalf("this test needs the program %s: %v", name, err)
	}
	out, err := exec.Command(path, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

func qemuImg(t testing.TB, args ...string) string {
	t.Helper()
	return runTool(t, "qemu-img", args...)
}

// qemuIO runs commands on an image.
func qemuIO(t testing.TB, path string, commands ...string) {
	t.Helper()
	args := []string{"-d", "unmap"}
	for _, c := range commands {
		args = append(args, "-c", c)
	}
	runTool(t, "qemu-io", append(args, path)...)
}

// truth is what qemu says is on the disk.
func truth(t testing.TB, path string) []byte {
	t.Helper()
	out := filepath.Join(t.TempDir(), "truth.raw")
	qemuImg(t, "convert", "-O", "raw", path, out)
	b, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func mustOpen(t testing.TB, path string, o Options) Image {
	t.Helper()
	img, err := Open(path, o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := img.Close(); err != nil {
			t.Error(err)
		}
	})
	return img
}

func writeFile(t testing.TB, path string, b []byte) string {
	t.Helper()
	if err := os.WriteFile(path, b, 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// walk returns all extents after checking that they cover the image exactly.
func walk(t testing.TB, img Image) []Extent {
	t.Helper()
	var all []Extent
	for off := int64(0); off < img.Size(); {
		x, err := img.Extent(off)
		if err != nil {
			t.Fatal(err)
		}
		if x.Off != off || x.Len < 1 || x.Len > img.Size()-off || x.Kind != Data && x.Kind != Zero {
			t.Fatalf("extent %+v at %d of %d", x, off, img.Size())
		}
		all = append(all, x)
		off += x.Len
	}
	return all
}

// checkImage compares an image with the bytes it must have and returns how
// many of them it calls data.
func checkImage(t testing.TB, img Image, want []byte) int64 {
	t.Helper()
	if img.Size() != int64(len(want)) {
		t.Fatalf("size %d, want %d", img.Size(), len(want))
	}
	var data int64
	for _, x := range walk(t, img) {
		if x.Kind == Data {
			data += x.Len
		} else if i := firstByte(want[x.Off : x.Off+x.Len]); i >= 0 {
			t.Fatalf("extent %+v is called zero but holds data at %d", x, x.Off+int64(i))
		}
	}
	checkSequential(t, img, want)
	checkRandom(t, img, want)
	if err := img.Verify(); err != nil {
		t.Fatal(err)
	}
	return data
}

// firstByte returns where the first byte other than zero is, or -1.
func firstByte(b []byte) int {
	if left := len(bytes.TrimLeft(b, "\x00")); left > 0 {
		return len(b) - left
	}
	return -1
}

func checkSequential(t testing.TB, img Image, want []byte) {
	t.Helper()
	whole := make([]byte, len(want))
	if n, err := img.ReadAt(whole, 0); n != len(want) || err != nil && err != io.EOF {
		t.Fatalf("read of everything: %d bytes, %v", n, err)
	}
	sameBytes(t, 0, whole, want)
	piece := make([]byte, 256<<10)
	for off := 0; off < len(want); off += len(piece) {
		n, err := img.ReadAt(piece, int64(off))
		if left := len(want) - off; left < len(piece) {
			if n != left || err != io.EOF {
				t.Fatalf("last piece: %d bytes, %v", n, err)
			}
		} else if n != len(piece) || err != nil {
			t.Fatalf("read at %d: %d bytes, %v", off, n, err)
		}
		sameBytes(t, off, piece[:n], want[off:off+n])
	}
}

func checkRandom(t testing.TB, img Image, want []byte) {
	t.Helper()
	rnd := rand.New(rand.NewPCG(1, 2))
	for range 30 {
		if len(want) == 0 {
			return
		}
		off := rnd.IntN(len(want))
		p := make([]byte, 1+rnd.IntN(100_000))
		n, err := img.ReadAt(p, int64(off))
		if off+len(p) > len(want) {
			if off+n != len(want) || err != io.EOF {
				t.Fatalf("read of %d at %d over the end %d: %d bytes, %v", len(p), off, len(want), n, err)
			}
		} else if n != len(p) || err != nil && err != io.EOF {
			t.Fatalf("read of %d at %d: %d bytes, %v", len(p), off, n, err)
		}
		sameBytes(t, off, p[:n], want[off:off+n])
	}
}

func sameBytes(t testing.TB, off int, got, want []byte) {
	t.Helper()
	if bytes.Equal(got, want) {
		return
	}
	for i := range min(len(got), len(want)) {
		if got[i] != want[i] {
			t.Fatalf("byte %d is %#x, want %#x", off+i, got[i], want[i])
		}
	}
	t.Fatalf("%d bytes at %d, want %d", len(got), off, len(want))
}

// patternDisk is a disk of size bytes with random data, data that compresses,
// and zeros, in pieces of many sizes.
func patternDisk(size int) []byte {
	rnd := rand.New(rand.NewPCG(3, 4))
	b := make([]byte, size)
	for off := 0; off < size; {
		n := min(size-off, 512<<rnd.IntN(10))
		piece := b[off : off+n]
		switch rnd.IntN(3) {
		case 0:
			for i := range piece {
				piece[i] = byte(rnd.Uint32())
			}
		case 1:
			for i := range piece {
				piece[i] = byte(i>>4) + 1
			}
		}
		off += n
	}
	return b
}

// wantError fails unless err wraps target and its text holds every word.
func wantError(t testing.TB, err, target error, words ...string) {
	t.Helper()
	if !errors.Is(err, target) {
		t.Fatalf("error %v does not wrap %q", err, target)
	}
	for _, w := range words {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
}

func str(n int) string { return strconv.Itoa(n) }
