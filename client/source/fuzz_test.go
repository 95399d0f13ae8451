package source

import (
	"bytes"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// seedImages are small images of every kind of table.
func seedImages(t testing.TB) [][]byte {
	t.Helper()
	var seeds [][]byte
	for _, opts := range []string{"cluster_size=512", "cluster_size=512,compat=0.10", "cluster_size=16k,extended_l2=on"} {
		path := single("20k", opts, "write -P 1 1k 3k", "write -z -u 8k 4k")(t, t.TempDir())
		seeds = append(seeds, mustRead(t, path))
	}
	for _, compression := range []string{"zlib", "zstd"} {
		dir := t.TempDir()
		src := writeFile(t, filepath.Join(dir, "src.raw"), bytes.Repeat([]byte("0123456789abcdef"), 1024))
		path := filepath.Join(dir, "disk.qcow2")
		qemuImg(t, "convert", "-O", "qcow2", "-c", "-o", "cluster_size=4k,compression_type="+compression, src, path)
		seeds = append(seeds, mustRead(t, path))
	}
	return seeds
}

func mustRead(t testing.TB, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// FuzzHeader checks that a header which is accepted keeps to the limits.
func FuzzHeader(f *testing.F) {
	for _, b := range seedImages(f) {
		f.Add(b[:min(len(b), 4096)], int64(len(b)))
	}
	f.Fuzz(func(t *testing.T, b []byte, length int64) {
		if length < int64(len(b)) {
			length = int64(len(b))
		}
		h, err := parseHeader(bytes.NewReader(b), length)
		if err != nil {
			return
		}
		if h.clusterBits < 9 || h.clusterBits > 21 || h.size < 0 || h.size >= 1<<56 {
			t.Errorf("cluster bits %d, size %d", h.clusterBits, h.size)
		}
		if h.l1Count < 0 || h.l1Count > l1CountMax || h.l1Off < 0 || h.l1Off+8*h.l1Count > length {
			t.Errorf("L1 table of %d entries at %d of %d bytes", h.l1Count, h.l1Off, length)
		}
		if h.l1Count*h.l1Span() < h.size || h.features&^0b11001 != 0 || len(h.backing) > 1023 {
			t.Errorf("header %+v", h)
		}
	})
}

// FuzzImage changes eight bytes of a small image and reads it. There must be
// neither panic nor hang, and what is called zero must read as zero.
func FuzzImage(f *testing.F) {
	seeds := seedImages(f)
	for i, b := range seeds {
		f.Add(uint8(i), uint32(0), uint64(0))
		for _, off := range []uint32{16, 32, 72, 100, uint32(len(b) / 2)} {
			f.Add(uint8(i), off, uint64(0x8000000000050000))
		}
	}
	f.Fuzz(func(t *testing.T, seed uint8, off uint32, change uint64) {
		b := bytes.Clone(seeds[int(seed)%len(seeds)])
		at := int(off) % (len(b) - 8)
		binary.BigEndian.PutUint64(b[at:], binary.BigEndian.Uint64(b[at:])^change)
		img, err := Open(writeFile(t, filepath.Join(t.TempDir(), "disk.qcow2"), b), Options{})
		if err != nil {
			return
		}
		defer img.Close()
		checkHostile(t, img)
	})
}

// checkHostile walks the start of an image whose size may be absurd.
func checkHostile(t *testing.T, img Image) {
	p := make([]byte, 8<<10)
	off := int64(0)
	for range 200 {
		if off == img.Size() {
			break
		}
		x, err := img.Extent(off)
		if err != nil {
			return
		}
		if x.Off != off || x.Len < 1 || x.Len > img.Size()-off {
			t.Fatalf("extent %+v at %d of %d", x, off, img.Size())
		}
		n, err := img.ReadAt(p[:min(int64(len(p)), x.Len)], off)
		if x.Kind == Zero && (firstByte(p[:n]) >= 0 || err != nil && !errors.Is(err, io.EOF)) {
			t.Fatalf("extent %+v is not zero: %d bytes, %v", x, n, err)
		}
		off += x.Len
	}
	_ = img.Verify()
}
