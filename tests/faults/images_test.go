package faults

import (
	"bytes"
	"crypto/sha256"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"testing"

	"holdfast/tests/harness"
)

// TestImages takes every kind of image through a backup and back.
func TestImages(t *testing.T) {
	harness.Long(t)
	t.Parallel()
	t.Run("contents", imageContents)
	t.Run("sparse", imageSparse)
	t.Run("qcow2", imageQcow2)
	t.Run("device", imageDevice)
	t.Run("streams", imageStreams)
	t.Run("differential", imageDifferential)
	t.Run("unchanged", imageUnchanged)
}

// contents are images of the sizes and kinds at which things go wrong.
func contents() map[string][]byte {
	return map[string][]byte{
		"empty":            nil,
		"1 byte":           {7},
		"1 zero":           {0},
		"511 bytes":        noise(80, 511),
		"4 MiB":            mixed(81, 4<<20),
		"4 MiB and 1":      mixed(82, 4<<20+1),
		"zeros":            make([]byte, 9<<20),
		"zeros, odd":       make([]byte, 9<<20+513),
		"noise":            noise(83, 10<<20),
		"text":             text(84, 10<<20),
		"mixed, odd":       mixed(85, 21<<20+4097),
		"zeros at the end": append(noise(86, 3<<20), make([]byte, 5<<20+7)...),
	}
}

// imageContents goes through all modes and both ways of cutting.
func imageContents(t *testing.T) {
	all := contents()
	names := slices.Sorted(maps.Keys(all))
	for _, mode := range []string{"encrypt", "sign-only", "none"} {
		for _, chunking := range []string{"content", "fixed"} {
			t.Run(mode+"/"+chunking, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				r := newRepo(t, dir)
				s := snap{"vm/1", 0}
				args := []string{"--crypt-mode", mode, "--chunking", chunking, "--allow-empty"}
				for i, n := range names {
					args = append(args, fmt.Sprintf("disk%d.img:%s", i, write(t, filepath.Join(dir, fmt.Sprint(i)), all[n])))
				}
				small := write(t, filepath.Join(dir, "small"), text(87, 5000))
				r.backup(t, s, append(args, "vm.conf:"+small, "vm.log:"+filepath.Join(dir, fmt.Sprint(slices.Index(names, "empty"))))...).want(t, exitOK)
				var more []string
				if mode == "none" {
					more = []string{"--crypt-mode", "none"}
				}
				target := filepath.Join(dir, "target")
				for i, n := range names {
					r.restore(t, s, fmt.Sprintf("disk%d.img", i), target+n, more...).want(t, exitOK)
					if !bytes.Equal(read(t, target+n), all[n]) {
						t.Errorf("%s came back different", n)
					}
				}
				r.restore(t, s, "vm.conf", target, more...).want(t, exitOK)
				sameFile(t, small, target)
				r.verify(t).want(t, exitOK)
				r.verifyKeyless(t).want(t, exitOK)
			})
		}
	}
}

// imageSparse backs up a large image that is mostly holes, which nobody reads
// or writes.
func imageSparse(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, dir)
	const large = 3 << 30
	image := sparse(t, filepath.Join(dir, "disk.raw"), large+512, map[int64][]byte{
		1<<20 + 512: noise(90, 4<<20), 1 << 30: text(91, 3<<20), 2<<30 - 5: noise(92, 2<<20), large - 1<<20: noise(93, 1<<20),
	})
	for i, chunking := range []string{"content", "fixed"} {
		s := snap{"vm/1", int64(i)}
		got := r.backup(t, s, "--chunking", chunking, "disk0.img:"+image).summary(t)
		if got.BytesRead >= 32<<20 {
			t.Errorf("%s: %d bytes were read for 10 MiB of data", chunking, got.BytesRead)
		}
		target := filepath.Join(dir, chunking+".raw")
		r.restore(t, s, "disk0.img", target).want(t, exitOK)
		sameFile(t, image, target)
		if n := allocated(t, target); n > 64<<20 {
			t.Errorf("%s: what came back takes %d bytes on the disk", chunking, n)
		}
	}
	r.verify(t).want(t, exitOK)
}

// imageQcow2 reads images with compression and backing files.
func imageQcow2(t *testing.T) {
	t.Parallel()
	dir, elsewhere := t.TempDir(), t.TempDir()
	r := newRepo(t, dir)
	content := append(mixed(100, 12<<20), make([]byte, 20<<20)...)
	raw := write(t, filepath.Join(dir, "disk.raw"), content)
	at := func(name string) string { return filepath.Join(dir, name) }
	harness.Tool(t, "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "compat=1.1", raw, at("v3.qcow2"))
	harness.Tool(t, "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-c", raw, at("compressed.qcow2"))
	harness.Tool(t, "qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-o", "compat=0.10", raw, at("v2.qcow2"))
	harness.Tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", "compressed.qcow2", "-F", "qcow2", at("overlay.qcow2"))
	harness.Tool(t, "qemu-io", "-c", "write -P 0xab 1M 3M", "-c", "write -z 5M 1M", at("overlay.qcow2"))
	copyFile(t, at("compressed.qcow2"), filepath.Join(elsewhere, "base.qcow2"))
	harness.Tool(t, "qemu-img", "create", "-q", "-f", "qcow2", "-b", filepath.Join(elsewhere, "base.qcow2"), "-F", "qcow2", at("far.qcow2"))
	overlaid := bytes.Clone(content)
	copy(overlaid[1<<20:], bytes.Repeat([]byte{0xab}, 3<<20))
	clear(overlaid[5<<20 : 6<<20])
	for i, c := range []struct {
		name string
		want []byte
	}{{"v3", content}, {"v2", content}, {"compressed", content}, {"overlay", overlaid}} {
		s := snap{"vm/1", int64(i)}
		r.backup(t, s, "disk0.img:"+at(c.name+".qcow2")).want(t, exitOK)
		r.restored(t, s, "disk0.img", sha256.Sum256(c.want))
	}
	far := snap{"vm/2", 0}
	r.backup(t, far, "disk0.img:"+at("far.qcow2")).want(t, exitRefused, "backing file", elsewhere)
	if slices.Contains(r.list(t), far.String()) {
		t.Error("the refused image is listed")
	}
	r.backup(t, far, "--allow-backing-files", "disk0.img:"+at("far.qcow2")).want(t, exitOK)
	r.restored(t, far, "disk0.img", sha256.Sum256(content))
	if err := os.Remove(filepath.Join(elsewhere, "base.qcow2")); err != nil {
		t.Fatal(err)
	}
	r.backup(t, snap{"vm/2", 1}, "--allow-backing-files", "disk0.img:"+at("far.qcow2")).want(t, exitNotFound, "base.qcow2")
}

// imageDevice reads a block device and writes one.
func imageDevice(t *testing.T) {
	t.Parallel()
	if !mayUseDevices(t) {
		return
	}
	dir := t.TempDir()
	r := newRepo(t, dir)
	content := mixed(110, 16<<20)
	file := write(t, filepath.Join(dir, "disk.raw"), content)
	source, _ := harness.Loop(t, file)
	s := snap{"vm/1", 0}
	if got := r.backup(t, s, "disk0.img:"+source).summary(t); got.BytesRead != int64(len(content)) {
		t.Errorf("%d bytes of the device were read", got.BytesRead)
	}
	for name, n := range map[string]int{"equal": len(content), "larger": len(content) + 1<<20} {
		old := noise(111, n)
		path := write(t, filepath.Join(dir, name), old)
		device, detach := harness.Loop(t, path)
		r.restore(t, s, "disk0.img", device).want(t, exitOK)
		detach()
		got := read(t, path)
		if !bytes.Equal(got[:len(content)], content) || !bytes.Equal(got[len(content):], old[len(content):]) {
			t.Errorf("the %s device is not what it should be", name)
		}
	}
	old := noise(112, len(content)-512)
	small := write(t, filepath.Join(dir, "small"), old)
	device, detach := harness.Loop(t, small)
	r.restore(t, s, "disk0.img", device).want(t, exitRefused, device, "nothing was written")
	detach()
	if !bytes.Equal(read(t, small), old) {
		t.Error("the device that is too small was written to")
	}
	r.restore(t, s, "disk0.img", source, "--differential").want(t, exitOK)
	d := newDisk(t, 20)
	r.restore(t, s, "disk0.img", d.device).want(t, exitRefused, d.device, "in use")
}

// imageStreams goes through pipes.
func imageStreams(t *testing.T) {
	t.Parallel()
	r := newRepo(t, t.TempDir())
	for i, content := range [][]byte{nil, {1}, mixed(120, 10<<20+3), make([]byte, 8<<20)} {
		s := snap{"vm/1", int64(i)}
		in := command{args: r.backupArgs(s, "disk0.img:-", "--allow-empty"), stdin: bytes.NewReader(content)}
		start(t, in).wait(t).want(t, exitOK)
		r.restored(t, s, "disk0.img", sha256.Sum256(content))
	}
	// The messages must not end up in the data.
	s := snap{"vm/1", 2}
	got := holdfast(t, "restore", "-r", r.path, "--keyfile", r.key, "--json", "-v", s.String(), "disk0.img", "-").want(t, exitOK)
	if !bytes.Equal([]byte(got.Out), mixed(120, 10<<20+3)) {
		t.Error("standard output has not just the image")
	}
	// A reader that goes away is no success.
	from, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, command{args: []string{"restore", "-r", r.path, "--keyfile", r.key, s.String(), "disk0.img", "-"}, stdout: to})
	to.Close()
	from.Read(make([]byte, 1000))
	from.Close()
	if got := p.wait(t); got.Code == exitOK {
		t.Errorf("the reader went away: %s", got)
	}
}

// imageDifferential restores over files that have part of the image already.
func imageDifferential(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	r := newRepo(t, dir)
	content := append(mixed(130, 16<<20), make([]byte, 4<<20+100)...)
	s := snap{"vm/1", 0}
	r.backup(t, s, "disk0.img:"+write(t, filepath.Join(dir, "disk.raw"), content)).want(t, exitOK)
	changed := bytes.Clone(content)
	copy(changed[5<<20:], "a few bytes")
	copy(changed[18<<20:], noise(131, 70_000))
	for name, c := range map[string]struct {
		old  []byte
		most int64 // bytes that may be written
	}{
		"the same":   {content, 0},
		"changed":    {changed, 8192},
		"shorter":    {content[:7<<20], 16 << 20},
		"longer":     {append(bytes.Clone(changed), noise(132, 1<<20)...), 8192},
		"empty":      {nil, 16 << 20},
		"all others": {noise(133, len(content)), 16 << 20},
	} {
		target := write(t, filepath.Join(dir, "target"), c.old)
		got := r.restore(t, s, "disk0.img", target, "--differential").summary(t)
		if got.BytesWritten > c.most {
			t.Errorf("%s: %d bytes were written, at most %d differ", name, got.BytesWritten, c.most)
		}
		if !bytes.Equal(read(t, target), content) {
			t.Errorf("%s: came back different", name)
		}
	}
	r.restore(t, s, "disk0.img", filepath.Join(dir, "target")).want(t, exitRefused, "exists", "--differential")
	if mayUseDevices(t) {
		differentialDevice(t, r, s, content)
	}
}

func differentialDevice(t *testing.T, r repo, s snap, content []byte) {
	t.Helper()
	old := append(bytes.Clone(content), make([]byte, 4096-len(content)%4096)...)
	copy(old[3<<20:], noise(134, 512))
	path := write(t, filepath.Join(t.TempDir(), "device"), old)
	device, detach := harness.Loop(t, path)
	got := r.restore(t, s, "disk0.img", device, "--differential").summary(t)
	if got.BytesWritten == 0 || got.BytesWritten > 8192 {
		t.Errorf("%d bytes were written to the device, 512 differ", got.BytesWritten)
	}
	detach()
	if !bytes.Equal(read(t, path)[:len(content)], content) {
		t.Error("the device is not what it should be")
	}
}

// imageUnchanged backs up twice what has not changed: only a new index and a new
// manifest are stored.
func imageUnchanged(t *testing.T) {
	t.Parallel()
	for _, mode := range []string{"encrypt", "none"} {
		for _, chunking := range []string{"content", "fixed"} {
			t.Run(mode+"/"+chunking, func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				r := newRepo(t, dir)
				image := "disk0.img:" + write(t, filepath.Join(dir, "disk.raw"), mixed(140, 20<<20))
				flags := []string{"--crypt-mode", mode, "--chunking", chunking, image}
				r.backup(t, snap{"vm/1", 0}, flags...).want(t, exitOK)
				before := r.packs(t)
				got := r.backup(t, snap{"vm/1", 1}, flags...).summary(t)
				if got.BytesRead != 20<<20 || got.BytesNew != 0 || got.Archives[0].NewChunks != 0 {
					t.Errorf("summary is %+v", got)
				}
				if after := r.packs(t); !maps.Equal(before, after) {
					t.Errorf("packs were %v, are %v", before, after)
				}
				want := []string{"arrived", "disk0.img.didx", "index.json.blob"}
				if chunking == "fixed" {
					want[1] = "disk0.img.fidx"
				}
				if mode != "none" { // what is signed says where it belongs
					want = slices.Insert(want, 2, "holdfast-origin.json.blob")
				}
				var files []string
				list, err := os.ReadDir(filepath.Join(r.path, snap{"vm/1", 1}.String()))
				for _, f := range list {
					files = append(files, f.Name())
				}
				if err != nil || !slices.Equal(files, want) {
					t.Errorf("files of the snapshot: %v, %v", files, err)
				}
			})
		}
	}
}
