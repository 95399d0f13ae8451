package source

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
)

// TestConvertedImages reads what qemu-img writes in every version, cluster
// size and compression.
func TestConvertedImages(t *testing.T) {
	dir := t.TempDir()
	want := patternDisk(3<<20 + 3*512)
	src := writeFile(t, filepath.Join(dir, "src.raw"), want)
	for _, cluster := range []string{"512", "4k", "64k", "2M"} {
		for _, c := range []struct{ name, opts, flag string }{
			{"v2", "compat=0.10", ""},
			{"v3", "compat=1.1", ""},
			{"v2 zlib", "compat=0.10", "-c"},
			{"v3 zlib", "compat=1.1", "-c"},
			{"v3 zstd", "compat=1.1,compression_type=zstd", "-c"},
		} {
			t.Run(cluster+" "+c.name, func(t *testing.T) {
				t.Parallel()
				path := filepath.Join(t.TempDir(), "disk.qcow2")
				args := []string{"convert", "-f", "raw", "-O", "qcow2", "-o", c.opts + ",cluster_size=" + cluster}
				if c.flag != "" {
					args = append(args, c.flag)
				}
				qemuImg(t, append(args, src, path)...)
				checkImage(t, mustOpen(t, path, Options{}), want)
			})
		}
	}
}

// builtImage is an image made step by step. build returns its path.
type builtImage struct {
	name  string
	build func(t testing.TB, dir string) string
	// dataMost is the most that the extents may call data, in bytes: what is
	// known to be zero must be told. 0 is no limit.
	dataMost int64
}

// create makes an image of size with options.
func create(t testing.TB, path, size, opts string, more ...string) string {
	t.Helper()
	args := append([]string{"create", "-q", "-f", "qcow2"}, more...)
	if opts != "" {
		args = append(args, "-o", opts)
	}
	args = append(args, path)
	if size != "" {
		args = append(args, size)
	}
	qemuImg(t, args...)
	return path
}

// single builds an image without a backing file.
func single(size, opts string, commands ...string) func(testing.TB, string) string {
	return func(t testing.TB, dir string) string {
		path := create(t, filepath.Join(dir, "disk.qcow2"), size, opts)
		if len(commands) > 0 {
			qemuIO(t, path, commands...)
		}
		return path
	}
}

// overlay builds an image over a qcow2 base with its own options.
func overlay(baseOpts string, base []string, size, opts string, commands ...string) func(testing.TB, string) string {
	return func(t testing.TB, dir string) string {
		b := create(t, filepath.Join(dir, "base.qcow2"), "3M", baseOpts)
		qemuIO(t, b, base...)
		path := create(t, filepath.Join(dir, "disk.qcow2"), size, opts, "-b", "base.qcow2", "-F", "qcow2")
		if len(commands) > 0 {
			qemuIO(t, path, commands...)
		}
		return path
	}
}

func singleImages() []builtImage {
	const kib = 1 << 10
	return []builtImage{
		{"empty", single("4M", ""), -1},
		{"empty huge", single("8T", "cluster_size=2M"), -1},
		{"size zero", single("0", ""), -1},
		{"odd size", single("1000000", "", "write -P 7 0 1k", "write -P 9 990000 9000"), 0},
		{"last cluster only", single("1000960", "", "write -P 9 1000448 512"), 64 * kib},
		{"small writes", single("2M", "cluster_size=2M", "write -P 1 1k 512"), 0},
		{"small write at the end", single("3M", "cluster_size=2M", "write -P 1 3145216 512"), 1024 * kib},
		{"zero clusters", single("2M", "", "write -P 1 0 1M", "write -z 256k 128k"), 896 * kib},
		{"zero plain clusters", single("2M", "", "write -z -u 256k 128k", "write -P 3 512k 64k"), 64 * kib},
		{"discarded", single("2M", "", "write -P 1 0 1M", "discard 128k 512k"), 512 * kib},
		{"discarded v2", single("2M", "compat=0.10", "write -P 1 0 1M", "discard 128k 512k"), 512 * kib},
		{"lazy refcounts", single("2M", "lazy_refcounts=on", "write -P 1 0 300k"), 320 * kib},
		{"preallocated metadata", single("2M", "preallocation=metadata", "write -P 1 0 300k"), 0},
		{"preallocated falloc", single("2M", "preallocation=falloc", "write -P 1 0 300k"), 0},
		{"preallocated full", single("2M", "preallocation=full", "write -P 1 0 300k"), 0},
		{"extended", single("2M", "extended_l2=on", "write -P 1 0 2k", "write -P 2 70k 4k", "write -z 72k 2k", "discard 0 2k"), 8 * kib},
		{"extended odd size", single("1000960", "extended_l2=on,cluster_size=16k", "write -P 1 1000448 512", "write -P 1 5k 512"), 2 * kib},
		{"extended 2M", single("5M", "extended_l2=on,cluster_size=2M", "write -P 1 2M 512", "write -P 2 4500k 70k"), 0},
		{"scattered", single("4M", "cluster_size=512", scatter(40, 100<<10, 512)...), 40 * kib},
	}
}

// scatter returns write commands for count pieces of size bytes, every step
// bytes.
func scatter(count, step, size int) []string {
	var c []string
	for i := range count {
		c = append(c, fmt.Sprintf("write -q -P %d %d %d", i%255+1, i*step, size))
	}
	return c
}

func overlaidImages() []builtImage {
	const kib = 1 << 10
	base := []string{"write -P 1 4k 4k", "write -P 2 68k 60k", "write -P 3 1M 200k", "write -P 4 3140608 4k"}
	return []builtImage{
		// A hole at the start of the upper cluster, then data.
		{"smaller clusters below", overlay("cluster_size=4k", base, "", "cluster_size=64k"), 272 * kib},
		{"much smaller clusters below", overlay("cluster_size=4k", base, "", "cluster_size=2M"), 272 * kib},
		{"larger clusters below", overlay("cluster_size=2M", base, "", "cluster_size=4k", "write -P 9 0 4k", "write -z 4k 8k"), 0},
		{"overlay longer", overlay("cluster_size=4k", base, "7M", "", "write -P 8 6M 1k"), 0},
		{"overlay shorter", overlay("cluster_size=4k", base, "1100k", "", "write -P 8 0 1k"), 0},
		{"overlay zeroes", overlay("", base, "", "", "write -z 0 64k", "write -z -u 64k 64k", "write -z 1M 128k"), 192 * kib},
		{"overlay discards", overlay("", base, "", "", "write -P 5 0 256k", "discard 64k 128k"), 0},
		{"overlay discards v2", overlay("", base, "", "compat=0.10", "write -P 5 0 256k", "discard 64k 128k"), 0},
		{"extended over plain", overlay("cluster_size=4k", base, "", "extended_l2=on", "write -P 6 70k 2k", "write -z 72k 2k", "discard 1030k 4k"), 0},
		{"plain over extended", overlay("extended_l2=on", base, "", "", "write -P 6 70k 2k"), 0},
		{"fragmented below", overlay("cluster_size=512", scatter(100, 30<<10, 512), "", "extended_l2=on,cluster_size=2M"), 50 * kib},
		{"raw below", rawBelow(2 << 20), 0},
		{"raw of odd length below", rawBelow(1234567), 0},
		{"four files", fourFiles, 0},
		{"compressed over compressed", compressedOver, 0},
		{"base without format", baseWithoutFormat, 0},
	}
}

func rawBelow(size int) func(testing.TB, string) string {
	return func(t testing.TB, dir string) string {
		writeFile(t, filepath.Join(dir, "base.raw"), patternDisk(size))
		path := create(t, filepath.Join(dir, "disk.qcow2"), "3M", "", "-b", "base.raw", "-F", "raw")
		qemuIO(t, path, "write -P 5 100k 100k", "write -z 300k 200k")
		return path
	}
}

func fourFiles(t testing.TB, dir string) string {
	writeFile(t, filepath.Join(dir, "0.raw"), patternDisk(1<<20))
	below, format := "0.raw", "raw"
	for i, cluster := range []string{"4k", "512", "64k"} {
		name := str(i+1) + ".qcow2"
		path := create(t, filepath.Join(dir, name), str(2+i)+"M", "cluster_size="+cluster, "-b", below, "-F", format)
		qemuIO(t, path, fmt.Sprintf("write -P %d %dk 100k", i+1, 200*i+3), fmt.Sprintf("write -z %dk 30k", 250*i), "write -P 9 1800k 10k")
		below, format = name, "qcow2"
	}
	return filepath.Join(dir, "3.qcow2")
}

func compressedOver(t testing.TB, dir string) string {
	src := writeFile(t, filepath.Join(dir, "src.raw"), patternDisk(2<<20))
	qemuImg(t, "convert", "-O", "qcow2", "-c", "-o", "compression_type=zstd", src, filepath.Join(dir, "base.qcow2"))
	path := create(t, filepath.Join(dir, "disk.qcow2"), "", "extended_l2=on", "-b", "base.qcow2", "-F", "qcow2")
	qemuIO(t, path, "write -c -P 5 128k 64k", "write -P 6 200k 1k")
	return path
}

func baseWithoutFormat(t testing.TB, dir string) string {
	base := single("1M", "", "write -P 1 0 100k")(t, dir)
	if err := os.Rename(base, filepath.Join(dir, "base.qcow2")); err != nil {
		t.Fatal(err)
	}
	path := create(t, filepath.Join(dir, "disk.qcow2"), "2M", "", "-b", "base.qcow2", "-F", "qcow2")
	patchBackingFormat(t, path)
	return path
}

// patchBackingFormat takes the name of the backing file's format away, as old
// tools did not write it.
func patchBackingFormat(t testing.TB, path string) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	i := strings.Index(string(b[:512]), "\xe2\x79\x2a\xca")
	if i < 0 {
		t.Fatal("no backing format in the header")
	}
	copy(b[i:], "\x01\x02\x03\x04")
	writeFile(t, path, b)
}

// TestBuiltImages compares images of many histories with what qemu reads.
func TestBuiltImages(t *testing.T) {
	for _, c := range append(singleImages(), overlaidImages()...) {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := c.build(t, t.TempDir())
			img := mustOpen(t, path, Options{})
			if img.Size() > 1<<30 {
				if all := walk(t, img); len(all) != 1 || all[0].Kind != Zero {
					t.Fatalf("%d extents, want one of zeros", len(all))
				}
				return
			}
			data := checkImage(t, img, truth(t, path))
			if c.dataMost != 0 && data > max(c.dataMost, 0) {
				t.Errorf("%d bytes are called data, want at most %d", data, c.dataMost)
			}
		})
	}
}

// TestInternalSnapshot reads the active state, not that of the snapshot.
func TestInternalSnapshot(t *testing.T) {
	path := single("1M", "", "write -P 1 0 300k")(t, t.TempDir())
	qemuImg(t, "snapshot", "-c", "first", path)
	qemuIO(t, path, "write -P 2 100k 100k", "discard 0 64k")
	checkImage(t, mustOpen(t, path, Options{}), truth(t, path))
}

func TestBitmapAndDirtyImage(t *testing.T) {
	path := single("1M", "lazy_refcounts=on", "write -P 1 0 300k")(t, t.TempDir())
	qemuImg(t, "bitmap", "--add", path, "b0")
	patch(t, path, 79, []byte{1 << bitDirty})
	img := mustOpen(t, path, Options{})
	b := make([]byte, 1)
	if _, err := img.ReadAt(b, 299<<10); err != nil || b[0] != 1 {
		t.Fatalf("read %d, %v", b[0], err)
	}
}

// TestSeveralReaders reads one image from many goroutines, for the race
// detector and for shared state that mixes their bytes up.
func TestSeveralReaders(t *testing.T) {
	dir := t.TempDir()
	want := patternDisk(3 << 20)
	src := writeFile(t, filepath.Join(dir, "src.raw"), want)
	for _, compression := range []string{"zlib", "zstd"} {
		path := filepath.Join(dir, compression+".qcow2")
		qemuImg(t, "convert", "-O", "qcow2", "-c", "-o", "cluster_size=4k,compression_type="+compression, src, path)
		top := create(t, filepath.Join(dir, compression+"-top.qcow2"), "", "", "-b", compression+".qcow2", "-F", "qcow2")
		img := mustOpen(t, top, Options{})
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() { checkRandom(t, img, want) })
			wg.Go(func() {
				for off := int64(0); off < img.Size(); {
					x, err := img.Extent(off)
					if err != nil || x.Len < 1 {
						t.Errorf("extent %+v: %v", x, err)
						return
					}
					off += x.Len
				}
			})
		}
		wg.Wait()
	}
}

// patch overwrites bytes of a file.
func patch(t testing.TB, path string, off int64, b []byte) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(b, off); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
