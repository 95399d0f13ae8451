package restore

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/client/backup"
	"holdfast/client/source"
)

// mayMount tells whether devices and mounts can be made. Only root can; who
// tests without root has to say so, lest the tests be lost unnoticed.
func mayMount(t *testing.T) bool {
	t.Helper()
	if os.Geteuid() == 0 {
		return true
	}
	if os.Getenv("HOLDFAST_TEST_NOROOT") != "1" {
		t.Fatal("this test needs root, to mount file systems; HOLDFAST_TEST_NOROOT=1 goes on without it")
	}
	t.Log("NOT TESTED: FILE SYSTEMS OF OTHER KINDS, for want of root (HOLDFAST_TEST_NOROOT=1)")
	return false
}

func tool(t *testing.T, name string, args ...string) string {
	t.Helper()
	out, err := exec.Command(name, args...).CombinedOutput()
	if err != nil {
		t.Fatalf("%s %s: %v\n%s", name, strings.Join(args, " "), err, out)
	}
	return strings.TrimSpace(string(out))
}

// loop makes a device of a file of n bytes.
func loop(t *testing.T, n int64, args ...string) (device, path string) {
	t.Helper()
	path = filepath.Join(t.TempDir(), "device")
	writeFile(t, path, nil)
	if err := os.Truncate(path, n); err != nil {
		t.Fatal(err)
	}
	device = tool(t, "losetup", append(append([]string{"--find", "--show"}, args...), path)...)
	t.Cleanup(func() { tool(t, "losetup", "--detach", device) })
	return device, path
}

// mounted runs a program that mounts something at a directory, its last argument.
func mounted(t *testing.T, program string, args ...string) string {
	t.Helper()
	dir := t.TempDir()
	tool(t, program, append(args, dir)...)
	t.Cleanup(func() { tool(t, "umount", dir) })
	return dir
}

// places are file systems that lack something, by what they lack.
func places(t *testing.T) map[string]string {
	exfat, _ := loop(t, 128<<20)
	tool(t, "mkfs.exfat", exfat)
	return map[string]string{
		"no links, no rename that refuses": mounted(t, "mount.exfat-fuse", exfat),
		"no chmod":                         mounted(t, "bindfs", "--chmod-deny", "--chown-deny", t.TempDir()),
		"long names":                       t.TempDir(),
	}
}

// A restore does with what the file system has.
func TestFileSystemsThatLackSomething(t *testing.T) {
	if !mayMount(t) {
		return
	}
	want := content(1, 12<<20+77)
	m := stored(t, want)
	for lack, dir := range places(t) {
		t.Run(lack, func(t *testing.T) {
			path := filepath.Join(dir, "disk.raw")
			if lack == "long names" {
				path = filepath.Join(dir, strings.Repeat("ü", 127))
			}
			for _, how := range []string{"new", "overwrite", "differential"} {
				o := options(t, m, path)
				o.Overwrite, o.Differential = how == "overwrite", how == "differential"
				if _, err := Run(t.Context(), o); err != nil {
					t.Fatalf("%s: %v", how, err)
				}
				if !bytes.Equal(mustRead(t, path), want) {
					t.Fatalf("%s: what comes back differs", how)
				}
			}
			if _, err := Run(t.Context(), options(t, m, path)); !errors.Is(err, ErrTarget) {
				t.Errorf("existing: %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(dir, ".*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
}

// nothingWritten runs a restore that must be refused before it writes.
func nothingWritten(t *testing.T, o Options, want error, words ...string) {
	t.Helper()
	_, err := Run(t.Context(), o)
	if !errors.Is(err, want) {
		t.Fatalf("error is %v, want %v", err, want)
	}
	for _, w := range append(words, "nothing was written") {
		if !strings.Contains(err.Error(), w) {
			t.Errorf("error %q does not say %q", err, w)
		}
	}
	if o.Progress != nil && o.Progress.Written.Load() > 0 {
		t.Error("something was written")
	}
}

// What cannot become the restored disk is refused before the first byte.
func TestTargetsAreRefusedAtOnce(t *testing.T) {
	m := stored(t, content(1, 3<<20))
	dir := t.TempDir()
	at := func(name string) string { return filepath.Join(dir, name) }
	writeFile(t, at("file"), []byte("old"))
	if err := errors.Join(os.Symlink("nowhere", at("dangling")), os.Symlink("file", at("link")), os.Symlink("loop", at("loop")), unix.Mkfifo(at("pipe"), 0o600)); err != nil {
		t.Fatal(err)
	}
	for target, c := range map[string]struct {
		want error
		say  string
	}{
		at("dangling"):  {ErrTarget, "symbolic link to nowhere"},
		at("link"):      {ErrTarget, "exists already"},
		at("pipe"):      {ErrTarget, "neither a file nor a block device"},
		"/dev/null":     {ErrTarget, "neither a file nor a block device"},
		dir:             {ErrTarget, "is a directory"},
		at("new") + "/": {ErrTarget, "directory"},
		at("loop"):      {ErrTarget, "symbolic links"},

		at(strings.Repeat("n", 256)): {ErrTarget, "name too long"},
		at("missing/disk"):           {fs.ErrNotExist, "the directory of target"},
	} {
		o := options(t, m, target)
		nothingWritten(t, o, c.want, c.say, strings.TrimSuffix(target, "/"))
	}
	if _, err := os.Lstat(at("nowhere")); err == nil {
		t.Error("something was made")
	}
}

// A link to a file stays one; the file is replaced.
func TestOverwriteThroughLink(t *testing.T) {
	want := content(1, 3<<20)
	m := stored(t, want)
	dir := t.TempDir()
	real, link := filepath.Join(dir, "real"), filepath.Join(t.TempDir(), "link")
	writeFile(t, real, []byte("old"))
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	o := options(t, m, link)
	o.Overwrite = true
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if to, err := os.Readlink(link); to != real || err != nil {
		t.Errorf("the link is %q, %v", to, err)
	}
	if !bytes.Equal(mustRead(t, real), want) {
		t.Error("what comes back differs")
	}
}

// Devices: read-only, and below something else.
func TestDevicesAreRefusedAtOnce(t *testing.T) {
	if !mayMount(t) {
		return
	}
	m := stored(t, content(1, 3<<20))
	device, _ := loop(t, 8<<20, "--read-only")
	nothingWritten(t, options(t, m, device), ErrTarget, "read-only", device)
	device, path := loop(t, 8<<20)
	for _, differential := range []bool{true, false} {
		o := options(t, m, path)
		o.Differential, o.Overwrite = differential, !differential
		nothingWritten(t, o, ErrTarget, "loop device "+device)
	}
}

// A file that a program works with is not changed below it.
func TestFilesInUseAreRefused(t *testing.T) {
	m := stored(t, content(1, 3<<20))
	path := filepath.Join(t.TempDir(), "disk.raw")
	writeFile(t, path, make([]byte, 4<<20))
	both := func(say string) {
		t.Helper()
		for _, differential := range []bool{true, false} {
			o := options(t, m, path)
			o.Differential, o.Overwrite = differential, !differential
			nothingWritten(t, o, ErrTarget, say)
		}
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	both("open for writing")
	if err := source.ClaimTarget(f); err != nil { // as QEMU does
		t.Fatal(err)
	}
	both("image lock")
	f.Close()
	img, err := source.Open(path, source.Options{}) // a backup of it
	if err != nil {
		t.Fatal(err)
	}
	both("image lock")
	img.Close()
	o := options(t, m, path)
	o.Differential = true
	if _, err := Run(t.Context(), o); err != nil {
		t.Errorf("free again: %v", err)
	}
}

// A restore in place never makes raw bytes of a qcow2 image, whatever the image is
// called; but a file that was backed up as it is goes back so.
func TestDifferentialKeepsTheFormat(t *testing.T) {
	for _, name := range []string{"disk.qcow2", "disk.raw", "disk"} {
		t.Run(name, func(t *testing.T) { differentialKeepsTheFormat(t, filepath.Join(t.TempDir(), name)) })
	}
}

func differentialKeepsTheFormat(t *testing.T, path string) {
	qcow2 := append([]byte("QFI\xfb\x00\x00\x00\x03"), content(2, 1<<20)...)
	writeFile(t, path, qcow2)
	o := options(t, stored(t, content(1, 3<<20)), path)
	o.Differential = true
	nothingWritten(t, o, ErrTarget, "is a qcow2 image")
	if !bytes.Equal(mustRead(t, path), qcow2) {
		t.Error("the image was changed")
	}
	var warned []string
	o.Differential, o.Overwrite, o.Warn = false, true, func(s string) { warned = append(warned, s) }
	if _, err := Run(t.Context(), o); err != nil {
		t.Errorf("overwrite: %v", err)
	}
	// The name would be wrong then.
	if wrong := filepath.Ext(path) == ".qcow2"; strings.Contains(strings.Join(warned, "\n"), "raw disk") != wrong {
		t.Errorf("overwrite warned %q", warned)
	}
	changed := bytes.Clone(qcow2)
	copy(changed[5000:], "changed")
	writeFile(t, path, changed)
	o = options(t, stored(t, qcow2, func(b *backup.Options) { b.Format = source.Raw }), path)
	o.Differential = true
	if _, err := Run(t.Context(), o); err != nil || !bytes.Equal(mustRead(t, path), qcow2) {
		t.Errorf("the file itself: %v", err)
	}
}

// A file system without room is known before anything is fetched.
func TestNoRoom(t *testing.T) {
	if !mayMount(t) {
		return
	}
	m := stored(t, content(1, 12<<20))
	dir := mounted(t, "mount", "-t", "tmpfs", "-o", "size=4m", "none")
	nothingWritten(t, options(t, m, filepath.Join(dir, "disk.raw")), chunkstore.ErrNoSpace, "has room for 4194304")
	if left, _ := os.ReadDir(dir); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	// Zeros need none.
	m = stored(t, make([]byte, 32<<20))
	if _, err := Run(t.Context(), options(t, m, filepath.Join(dir, "disk.raw"))); err != nil {
		t.Error(err)
	}
}

// Two restores to one name do not both write everything.
func TestSecondRestoreToOneName(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.raw")
	first, err := newFile(path, wanted{size: 10, warn: func(string) {}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := newFile(path, wanted{size: 10}, nil); !errors.Is(err, ErrTarget) || !strings.Contains(err.Error(), "another restore") {
		t.Errorf("the second: %v", err)
	}
	if err := first.finish(); err != nil {
		t.Fatal(err)
	}
	third, err := newFile(path, wanted{size: 10, warn: func(string) {}}, nil)
	if err != nil {
		t.Fatal(err)
	}
	// What is whole is kept although it does not get its name.
	if err := third.finish(); !errors.Is(err, fs.ErrExist) {
		t.Errorf("a name that is taken: %v", err)
	}
	state := third.abort()
	kept, _ := filepath.Glob(filepath.Join(filepath.Dir(path), ".disk.raw.partial-*"))
	if len(kept) != 1 || !strings.Contains(state, kept[0]) {
		t.Errorf("kept %v, state %q", kept, state)
	}
}

// What a restore that was killed has left is hidden, and as large as the disk.
func TestLeftoversAreTold(t *testing.T) {
	dir := t.TempDir()
	left := filepath.Join(dir, ".disk.raw.partial-123x")
	writeFile(t, left, []byte("half of it"))
	writeFile(t, filepath.Join(dir, ".other.raw.partial-123x"), nil)
	var warned []string
	f, err := newFile(filepath.Join(dir, "disk.raw"), wanted{size: 10, warn: func(s string) { warned = append(warned, s) }}, nil)
	if err != nil {
		t.Fatal(err)
	}
	f.abort()
	if len(warned) != 1 || !strings.Contains(warned[0], left) {
		t.Errorf("warned of %q", warned)
	}
	if _, err := os.Stat(left); err != nil {
		t.Errorf("it may be wanted: %v", err)
	}
}

// Without a rename that refuses and without links, no file of others is replaced.
func TestTakeName(t *testing.T) {
	dir := t.TempDir()
	temp, path := filepath.Join(dir, "temp"), filepath.Join(dir, "path")
	writeFile(t, temp, []byte("new"))
	writeFile(t, path, []byte("of others"))
	f := &file{temp: temp, path: path, naming: byCreate}
	if err := f.name(); !errors.Is(err, fs.ErrExist) || string(mustRead(t, path)) != "of others" {
		t.Errorf("a name that is taken: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	gone := &file{temp: temp + "-gone", path: path, naming: byCreate}
	if err := gone.name(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing to rename: %v", err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("an empty file is left")
	}
	if err := f.name(); err != nil || string(mustRead(t, path)) != "new" {
		t.Errorf("a free name: %v", err)
	}
}
