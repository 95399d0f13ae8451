package source

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// namedBacking makes an image that names a backing file, which need not be
// there.
func namedBacking(t testing.TB, path, backing, format string) string {
	t.Helper()
	return create(t, path, "1M", "backing_file="+strings.ReplaceAll(backing, ",", ",,")+",backing_fmt="+format, "-u")
}

func TestBackingRefused(t *testing.T) {
	outer := t.TempDir()
	dir := filepath.Join(outer, "images")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(outer, "x"), []byte("x"))
	writeFile(t, filepath.Join(dir, "near"), []byte("x"))
	for link, to := range map[string]string{"away": "../x", "host": "/etc/passwd"} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{
		"/etc/passwd", "../x", "./near", "../images/near", filepath.Join(dir, "near"), "..", ".", "away", "host",
	} {
		path := namedBacking(t, filepath.Join(dir, "disk.qcow2"), name, "raw")
		img, err := Open(path, Options{})
		if img != nil {
			t.Fatalf("%s: opened", name)
		}
		wantError(t, err, ErrBacking, path, `"`+name+`"`, "--allow-backing-files")
	}
	for _, name := range []string{"/etc/passwd", "../x", "./near", "away", "near"} {
		path := namedBacking(t, filepath.Join(dir, "disk.qcow2"), name, "raw")
		img := mustOpen(t, path, Options{AllowBacking: true, ForceShare: true}) // the next one is made over it
		checkImage(t, img, truth(t, path))
	}
}

func TestBackingProtocols(t *testing.T) {
	for _, name := range []string{
		"nbd://127.0.0.1:1/x", "ssh://host/x", "json:{}", "file:/etc/passwd", "fat:rw:/etc", "nbd:unix:/x", "a:b",
	} {
		path := create(t, filepath.Join(t.TempDir(), "disk.qcow2"), "1M", "")
		setBacking(t, path, name)
		for _, allow := range []bool{false, true} {
			_, err := Open(path, Options{AllowBacking: allow})
			wantError(t, err, ErrBacking, path, name, "protocol")
		}
	}
}

// setBacking writes the name of a backing file into a header that has none.
func setBacking(t testing.TB, path, name string) {
	t.Helper()
	const at = 4096
	patch(t, path, at, []byte(name))
	patch(t, path, 8, []byte{0, 0, 0, 0, 0, 0, at >> 8, 0, 0, 0, byte(len(name) >> 8), byte(len(name))})
}

func TestBackingFound(t *testing.T) {
	dir := t.TempDir()
	want := patternDisk(1 << 20)
	writeFile(t, filepath.Join(dir, "base.raw"), want)
	if err := os.Symlink("base.raw", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"base.raw", "link"} {
		path := namedBacking(t, filepath.Join(dir, "disk.qcow2"), name, "raw")
		share := Options{ForceShare: true} // the next one is made over it
		checkImage(t, mustOpen(t, path, share), want)
		t.Chdir(dir)
		checkImage(t, mustOpen(t, "disk.qcow2", share), want)
	}
}

// TestRawBackingWithMagic follows the format in the header: bytes that a guest
// wrote to a raw disk do not make it qcow2.
func TestRawBackingWithMagic(t *testing.T) {
	dir := t.TempDir()
	want := make([]byte, 1<<20)
	copy(want, qcow2Magic)
	writeFile(t, filepath.Join(dir, "base.raw"), want)
	path := namedBacking(t, filepath.Join(dir, "disk.qcow2"), "base.raw", "raw")
	checkImage(t, mustOpen(t, path, Options{}), want)
}

func TestBackingErrors(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "disk.qcow2")
	writeFile(t, filepath.Join(dir, "raw"), make([]byte, 1<<20))
	for _, c := range []struct {
		backing, format string
		want            error
		say             string
	}{
		{"missing", "raw", fs.ErrNotExist, `"missing"`},
		{"raw", "qcow2", ErrDamaged, "not in the format"},
		{"raw", "vmdk", ErrUnsupported, `format "vmdk"`},
		{"disk.qcow2", "qcow2", ErrDamaged, "leads back to itself"},
		{"disk.qcow2", "raw", ErrDamaged, "leads back to itself"},
	} {
		namedBacking(t, path, c.backing, c.format)
		for _, allow := range []bool{false, true} {
			_, err := Open(path, Options{AllowBacking: allow})
			wantError(t, err, c.want, path, c.say)
		}
	}
}

func TestBackingLoop(t *testing.T) {
	dir := t.TempDir()
	a := namedBacking(t, filepath.Join(dir, "a"), "b", "qcow2")
	namedBacking(t, filepath.Join(dir, "b"), "c", "qcow2")
	// A hard link has another name but is the same file.
	if err := os.Link(a, filepath.Join(dir, "c")); err != nil {
		t.Fatal(err)
	}
	_, err := Open(a, Options{})
	wantError(t, err, ErrDamaged, "leads back to itself")
}

func TestBackingDepth(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "0"), patternDisk(1<<20))
	for i := 1; i <= layersMax; i++ {
		format := "qcow2"
		if i == 1 {
			format = "raw"
		}
		namedBacking(t, filepath.Join(dir, str(i)), str(i-1), format)
	}
	checkImage(t, mustOpen(t, filepath.Join(dir, str(layersMax-1)), Options{}), patternDisk(1<<20))
	_, err := Open(filepath.Join(dir, str(layersMax)), Options{})
	wantError(t, err, ErrUnsupported, "more than 16 files")
}

// TestVerifyChain changes a file of a chain while the image is open.
func TestVerifyChain(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(dir string) error
	}{
		{"backing file grown", func(dir string) error { return os.Truncate(filepath.Join(dir, "base.qcow2"), 4<<20) }},
		{"backing file gone", func(dir string) error { return os.Remove(filepath.Join(dir, "base.qcow2")) }},
		{"image gone", func(dir string) error { return os.Remove(filepath.Join(dir, "disk.qcow2")) }},
		{"header", func(dir string) error { return invert(filepath.Join(dir, "disk.qcow2"), 60) }},
		{"L1 table", func(dir string) error { return invert(filepath.Join(dir, "disk.qcow2"), 0x30000) }},
	} {
		t.Run(c.name, func(t *testing.T) {
			dir := t.TempDir()
			path := overlay("", []string{"write 0 64k"}, "", "", "write 64k 64k")(t, dir)
			img := mustOpen(t, path, Options{})
			if err := img.Verify(); err != nil {
				t.Fatal(err)
			}
			if err := c.change(dir); err != nil {
				t.Fatal(err)
			}
			wantError(t, img.Verify(), ErrChanged, dir)
		})
	}
}

// invert flips the bits of one byte of a file.
func invert(path string, off int64) error {
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	b := make([]byte, 1)
	_, errRead := f.ReadAt(b, off)
	b[0] = ^b[0]
	_, errWrite := f.WriteAt(b, off)
	return errors.Join(errRead, errWrite, f.Close())
}
