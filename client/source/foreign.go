package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"path/filepath"
	"strings"
)

// HeadSize and TailSize are how much of the beginning and of the end of a file
// Recognise wants to see, in bytes.
const (
	HeadSize = 512
	TailSize = 512
)

// Recognised is a format in which a file is not the disk itself but holds it in
// some wrapping.
type Recognised struct {
	// Name is what people call it, with its article: "a VMDK image".
	Name string
	// way is how to come to the disk.
	way way
	// with is the format for qemu-img, or the program that unpacks.
	with string
}

// way is how the disk is taken out of a wrapping.
type way int

const (
	asItIs    way = iota // it is read here: qcow2
	byConvert            // qemu-img convert -f with
	byFilter             // with FILE writes it to standard output
	byUnpack             // with FILE unpacks files of which one is the disk
)

// mark is a number of bytes that files of one format have at one place.
type mark struct {
	off   int // from the beginning, or if negative from the end
	magic string
	found Recognised
}

// marks lists what is told from a disk by its first or last bytes. What a disk
// can begin with itself is not here: partition tables, file systems, LUKS, ISO
// images.
func marks() []mark {
	image := func(name, format string) Recognised { return Recognised{name, byConvert, format} }
	packed := func(name, program string) Recognised { return Recognised{name, byFilter, program} }
	archive := func(name, program string) Recognised { return Recognised{name, byUnpack, program} }
	return []mark{
		{0, qcow2Magic, Recognised{Name: "a qcow2 image", with: "qcow2"}},
		{0, "KDMV", image("a VMDK image", "vmdk")},
		{0, "COWD", image("a VMDK image", "vmdk")},
		{0, "\xbe\xba\xfe\xca\x00\x00\x00\x00", image("a VMDK image (SESparse)", "vmdk")},
		{0, "vhdxfile", image("a VHDX image", "vhdx")},
		{64, "\x7f\x10\xda\xbe", image("a VDI image", "vdi")},
		{0, "conectix", image("a VHD image", "vpc")},
		{-512, "conectix", image("a VHD image", "vpc")},
		{-511, "conectix", image("a VHD image", "vpc")},
		{0, "QED\x00", image("a QED image", "qed")},
		{0, "WithoutFreeSpace", image("a Parallels image", "parallels")},
		{0, "WithouFreSpacExt", image("a Parallels image", "parallels")},
		{0, "Bochs Virtual HD Image", image("a Bochs image", "bochs")},
		{-512, "koly\x00\x00\x00", image("a DMG image", "dmg")},
		{0, "\x1f\x8b\x08", packed("compressed with gzip", "gzip -dc")},
		{0, "\xfd7zXZ\x00", packed("compressed with xz", "xz -dc")},
		{0, "\x28\xb5\x2f\xfd", packed("compressed with zstd", "zstd -dc")},
		{0, "\x04\x22\x4d\x18", packed("compressed with lz4", "lz4 -dc")},
		{0, "\x89LZO\x00\x0d\x0a\x1a\x0a", packed("compressed with lzop", "lzop -dc")},
		{0, "LZIP\x01", packed("compressed with lzip", "lzip -dc")},
		{0, "partclone-image", packed("a Partclone image", "partclone.restore -C -o - -s")},
		{0, "VMA\x00", archive("a VMA archive of Proxmox VE", "vma extract")},
		{0, "PK\x03\x04", archive("a ZIP archive", "unzip")},
		{0, "7z\xbc\xaf\x27\x1c", archive("a 7z archive", "7z x")},
		{0, "Rar!\x1a\x07", archive("a RAR archive", "unrar x")},
		{0, "EVF\x09\x0d\x0a\xff\x00", archive("an EWF image", "ewfexport -f raw")},
		{0, "\x3a\xff\x26\xed\x01\x00", archive("an Android sparse image", "simg2img")},
		{257, "ustar", archive("a tar archive (an OVA is one)", "tar -xf")},
	}
}

// Recognise tells whether a file that begins with head and ends with tail
// is a disk image in a wrapping. head has up to HeadSize bytes and tail up to
// TailSize; a tail that is not known is nil. Both are only read.
func Recognise(head, tail []byte) (Recognised, bool) {
	if isOldQcow(head) {
		return Recognised{"a qcow image of version 1", byConvert, "qcow"}, true
	}
	for _, m := range marks() {
		if m.off < 0 && has(tail, len(tail)+m.off, m.magic) || m.off >= 0 && has(head, m.off, m.magic) {
			return m.found, true
		}
	}
	switch {
	case isDescriptor(head):
		return Recognised{"a VMDK descriptor: the disk is in the files that it names", byConvert, "vmdk"}, true
	case isBzip2(head):
		return Recognised{"compressed with bzip2", byFilter, "bzip2 -dc"}, true
	}
	return Recognised{}, false
}

func has(b []byte, off int, magic string) bool {
	return off >= 0 && off <= len(b) && bytes.HasPrefix(b[off:], []byte(magic))
}

// isDescriptor tells the text that describes a VMDK image, whose disk is in
// other files.
func isDescriptor(head []byte) bool {
	const first = "# Disk DescriptorFile"
	text := bytes.TrimLeft(bytes.TrimPrefix(head, []byte("\xef\xbb\xbf")), " \t\r\n")
	return len(text) >= len(first) && strings.EqualFold(string(text[:len(first)]), first)
}

// isBzip2 looks at the level and at how the first block begins, or the end if
// there is none.
func isBzip2(head []byte) bool {
	if len(head) < 10 || string(head[:3]) != "BZh" || head[3] < '1' || head[3] > '9' {
		return false
	}
	block := string(head[4:10])
	return block == "1AY&SY" || block == "\x17\x72\x45\x38\x50\x90"
}

// command is what to do with the file at path to come to the disk, as a sentence
// without its beginning; quoted for a shell.
func (r Recognised) command(path string) string {
	name := quote(path)
	switch r.way {
	case byConvert:
		to := withoutExt(path) + ".qcow2"
		if to == path {
			to = withoutExt(path) + "-new.qcow2"
		}
		return fmt.Sprintf("convert it first: qemu-img convert -f %s -O qcow2 %s %s", r.with, name, quote(to))
	case byFilter:
		return fmt.Sprintf(`back up what is in it: NAME.img:- with --stdin-from-command "%s %s"`, r.with, name)
	case byUnpack:
		return fmt.Sprintf("unpack it first (%s %s) and back up the disk that is in it", r.with, name)
	}
	return "give the file itself and not a stream of its bytes"
}

// withoutExt is path without the extension of its last part.
func withoutExt(path string) string { return strings.TrimSuffix(path, filepath.Ext(path)) }

// quote makes one word of s for a shell.
func quote(s string) string {
	safe := func(r rune) bool {
		return r < 0x80 && (r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("/._-+:@%,=", r))
	}
	if s != "" && strings.IndexFunc(s, func(r rune) bool { return !safe(r) }) < 0 && s[0] != '-' {
		return s
	}
	return "'" + strings.ReplaceAll(s, "'", `'\''`) + "'"
}

// rawOverride is what to say to have the bytes stored as they are.
const rawOverride = "or store the file as it is with --source-format raw"

// refuse is the error for a source that is no disk but holds one.
func (r Recognised) refuse(path string) error {
	return fmt.Errorf("source %s is %s, not a raw disk; %s; %s: %w: %w", path, r.Name, r.command(path), rawOverride, ErrForeign, ErrUnsupported)
}

// CheckStream refuses a stream that begins with head, of which format is
// asked for, if it is not the disk itself. A stream cannot be read as qcow2.
func CheckStream(head []byte, format Format) error {
	if format == Raw {
		return nil
	}
	if format == Qcow2 {
		return fmt.Errorf("standard input cannot be read as a qcow2 image: give the file: %w", ErrUnsupported)
	}
	if len(head) > HeadSize {
		head = head[:HeadSize]
	}
	if r, ok := Recognise(head, nil); ok {
		return r.refuseStream()
	}
	return nil
}

// refuseStream is the error for standard input that is no disk but holds one.
func (r Recognised) refuseStream() error {
	next := r.command("FILE")
	if r.way == byFilter {
		next = "let it go through " + r.with + " first"
	}
	return fmt.Errorf("standard input is %s, not a raw disk; %s; %s: %w: %w", r.Name, next, rawOverride, ErrForeign, ErrUnsupported)
}

// WatchStream returns in as it is, except that where a stream ends as a format does
// whose mark is at its end, there is ErrForeign instead of io.EOF. CheckStream cannot
// see those.
func WatchStream(in io.Reader, format Format) io.Reader {
	if format == Raw {
		return in
	}
	return &watchedStream{in: in}
}

type watchedStream struct {
	in   io.Reader
	tail []byte // the last bytes read, up to TailSize
}

// Read implements io.Reader.
func (w *watchedStream) Read(p []byte) (int, error) {
	n, err := w.in.Read(p)
	if n >= TailSize {
		w.tail = append(w.tail[:0], p[n-TailSize:n]...)
	} else {
		w.tail = append(w.tail, p[:n]...)
		w.tail = append(w.tail[:0], w.tail[max(0, len(w.tail)-TailSize):]...)
	}
	if err == io.EOF {
		if r, ok := Recognise(nil, w.tail); ok {
			err = r.refuseStream()
		}
	}
	return n, err
}

// recognise looks at the beginning and the end of a file.
func (f *file) recognise() (Recognised, bool, error) {
	head, err := f.piece(0, min(HeadSize, f.length))
	if err != nil {
		return Recognised{}, false, err
	}
	n := min(TailSize, f.length)
	tail, err := f.piece(f.length-n, n)
	if err != nil {
		return Recognised{}, false, err
	}
	r, ok := Recognise(head, tail)
	return r, ok, nil
}

// piece reads n bytes at off.
func (f *file) piece(off, n int64) ([]byte, error) {
	b := make([]byte, n)
	if _, err := f.ReadAt(b, off); err != nil && !errors.Is(err, io.EOF) {
		return nil, err
	}
	return b, nil
}

// checkContent refuses a regular file whose size says that it is empty though
// it has content, as those of /proc do.
func (f *file) checkContent() error {
	if f.length > 0 || f.id.block {
		return nil
	}
	n, err := f.f.ReadAt(make([]byte, 1), 0)
	if n > 0 {
		return fmt.Errorf("source %s says that its size is 0, but it has content: read it through standard input, as NAME.img:- < %s: %w", f.path, f.path, ErrSizeless)
	}
	if err != nil && !errors.Is(err, io.EOF) {
		return fmt.Errorf("read %s: %w", f.path, cause(err))
	}
	return nil
}

// isOldQcow tells version 1 of the format, which only qemu reads.
func isOldQcow(head []byte) bool {
	return len(head) >= 8 && string(head[:4]) == qcow2Magic && binary.BigEndian.Uint32(head[4:]) == 1
}
