package source

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"path/filepath"
	"testing"
)

// foreignImages are made by qemu-img, by format and options, with the name that
// the refusal gives them.
func foreignImages() map[string][2]string {
	return map[string][2]string{
		"vmdk sparse":   {"vmdk", "subformat=monolithicSparse"},
		"vmdk text":     {"vmdk", "subformat=monolithicFlat"},
		"vmdk stream":   {"vmdk", "subformat=streamOptimized"},
		"vhdx":          {"vhdx", ""},
		"vhdx fixed":    {"vhdx", "subformat=fixed"},
		"vdi":           {"vdi", ""},
		"vhd dynamic":   {"vpc", "subformat=dynamic"},
		"vhd fixed":     {"vpc", "subformat=fixed"},
		"qed":           {"qed", ""},
		"parallels":     {"parallels", ""},
		"qcow before 2": {"qcow", ""},
	}
}

// A disk in a wrapping is never taken for the disk, and the refusal names the
// command that unwraps it; whoever wants the file itself can have it.
func TestForeignImagesAreRefused(t *testing.T) {
	for name, c := range foreignImages() {
		t.Run(name, func(t *testing.T) {
			args := []string{"create", "-q", "-f", c[0]}
			if c[1] != "" {
				args = append(args, "-o", c[1])
			}
			path := filepath.Join(t.TempDir(), "disk.img")
			qemuImg(t, append(args, path, "4M")...)
			_, err := Open(path, Options{})
			wantError(t, err, ErrForeign, path, "qemu-img convert -f "+c[0]+" ", "--source-format raw")
			if c[0] != "qcow" {
				_, err = Open(path, Options{Format: Qcow2})
				wantError(t, err, ErrForeign, path)
			}
			checkImage(t, mustOpen(t, path, Options{Format: Raw}), mustRead(t, path))
			raw := filepath.Join(t.TempDir(), "disk.raw")
			checkImage(t, mustOpen(t, writeFile(t, raw, mustRead(t, path)), Options{}), mustRead(t, path))
		})
	}
}

func gzipped(t testing.TB, b []byte) []byte {
	t.Helper()
	var out bytes.Buffer
	w := gzip.NewWriter(&out)
	w.Write(b)
	if err := w.Close(); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

func TestPackedImagesAreRefused(t *testing.T) {
	tar := make([]byte, 1024)
	copy(tar[257:], "ustar\x0000")
	for say, b := range map[string][]byte{
		"gzip -dc":  gzipped(t, make([]byte, 10000)),
		"xz -dc":    []byte("\xfd7zXZ\x00\x00\x04"),
		"zstd -dc":  []byte("\x28\xb5\x2f\xfd\x04\x00"),
		"bzip2 -dc": []byte("BZh91AY&SY\x00"),
		"lz4 -dc":   []byte("\x04\x22\x4d\x18\x64"),
		"tar -xf":   tar,
		"unzip":     []byte("PK\x03\x04\x14"),
		"vma":       []byte("VMA\x00\x00\x00\x00\x01"),
	} {
		t.Run(say, func(t *testing.T) {
			path := writeFile(t, filepath.Join(t.TempDir(), "it's a disk.img"), b)
			_, err := Open(path, Options{})
			wantError(t, err, ErrForeign, say, `it'\''s a disk`)
			wantError(t, CheckStream(b, Auto), ErrForeign, say)
			if err := CheckStream(b, Raw); err != nil {
				t.Errorf("asked for raw: %v", err)
			}
		})
	}
}

// What a disk begins with is no wrapping.
func TestDisksAreNotForeign(t *testing.T) {
	iso := make([]byte, 40<<10)
	copy(iso[32769:], "CD001")
	ext4 := make([]byte, 4096)
	copy(ext4[1080:], "\x53\xef")
	mbr := make([]byte, 512)
	copy(mbr, "\xeb\x63\x90")
	copy(mbr[510:], "\x55\xaa")
	for name, b := range map[string][]byte{
		"zeros": make([]byte, 4096), "ISO": iso, "ext4": ext4, "partitions": mbr, "one byte": {0x1f}, "bzip in words": []byte("BZh9 is a magic"),
		"LUKS": append([]byte("LUKS\xba\xbe\x00\x02"), make([]byte, 1000)...), "squashfs": []byte("hsqs\x01"),
		"NTFS": []byte("\xeb\x52\x90NTFS    "), "a text": []byte("# Disk Description\n"),
	} {
		t.Run(name, func(t *testing.T) {
			checkImage(t, mustOpen(t, writeFile(t, filepath.Join(t.TempDir(), "disk.img"), b), Options{}), b)
			if err := CheckStream(b, Auto); err != nil {
				t.Error(err)
			}
		})
	}
}

// A stream has no second look: qcow2 in it cannot be read.
func TestStreamsOfQcow2AreRefused(t *testing.T) {
	b := mustRead(t, single("1M", "")(t, t.TempDir()))
	wantError(t, CheckStream(b, Auto), ErrForeign, "qcow2")
	wantError(t, CheckStream(make([]byte, 512), Qcow2), ErrUnsupported, "qcow2")
}

// The mark of a fixed VHD is the last thing in it.
func TestStreamsThatEndAsAForeignFormat(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk.vhd")
	qemuImg(t, "create", "-q", "-f", "vpc", "-o", "subformat=fixed", path, "4M")
	vhd := mustRead(t, path)
	for _, chunk := range []int{1, 100, 511, 512, 4096, len(vhd)} {
		t.Run(fmt.Sprint(chunk), func(t *testing.T) {
			got, err := io.ReadAll(WatchStream(pieces{bytes.NewReader(vhd[len(vhd)-6000:]), chunk}, Auto))
			wantError(t, err, ErrForeign, "VHD", "qemu-img convert -f vpc ", "--source-format raw")
			if !bytes.Equal(got, vhd[len(vhd)-6000:]) {
				t.Error("other bytes than those of the stream")
			}
		})
	}
	for name, in := range map[string]io.Reader{
		"asked for":               WatchStream(bytes.NewReader(vhd), Raw),
		"the mark not at the end": WatchStream(io.MultiReader(bytes.NewReader(vhd), bytes.NewReader(make([]byte, 512))), Auto),
		"nothing":                 WatchStream(bytes.NewReader(nil), Auto),
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := io.Copy(io.Discard, in); err != nil {
				t.Error(err)
			}
		})
	}
}

// pieces gives at most n bytes at once.
type pieces struct {
	io.Reader
	n int
}

func (r pieces) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), r.n)]) }

// A file that says its size is 0 and has content would be an empty disk.
func TestContentWithoutSize(t *testing.T) {
	_, err := Open("/proc/self/status", Options{})
	wantError(t, err, ErrSizeless, "/proc/self/status", "has content", "- < /proc/self/status")
}

// A backing file of which the image does not tell the format is looked at, too.
func TestForeignBackingIsRefused(t *testing.T) {
	dir := t.TempDir()
	qemuImg(t, "create", "-q", "-f", "vmdk", filepath.Join(dir, "base"), "1M")
	path := create(t, filepath.Join(dir, "disk.qcow2"), "1M", "")
	setBacking(t, path, "base")
	_, err := Open(path, Options{})
	wantError(t, err, ErrUnsupported, "VMDK", "base")
}

// FuzzRecognise shows that nothing a file begins or ends with does harm.
func FuzzRecognise(f *testing.F) {
	f.Add([]byte("KDMV"), []byte("conectix"))
	f.Add([]byte("\xef\xbb\xbf \n# Disk DescriptorFile"), []byte(nil))
	f.Add([]byte("BZh91AY&SY"), make([]byte, 512))
	f.Fuzz(func(t *testing.T, head, tail []byte) {
		head, tail = head[:min(len(head), HeadSize)], tail[:min(len(tail), TailSize)]
		r, ok := Recognise(head, tail)
		if ok == (r.Name == "") {
			t.Errorf("%v, and the name is %q", ok, r.Name)
		}
		if ok && r.way != asItIs && r.with == "" {
			t.Errorf("%s: no way out", r.Name)
		}
		_ = CheckStream(head, Auto)
		if err := CheckStream(head, Raw); err != nil {
			t.Error(err)
		}
	})
}
