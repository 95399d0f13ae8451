package main

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"path/filepath"
	"syscall"
	"testing"
)

// TestDisk makes a disk of a sparse partition whose size is no whole number of
// sectors, and reads it back by the rules of the UEFI specification.
func TestDisk(t *testing.T) {
	dir := t.TempDir()
	part, disk := filepath.Join(dir, "part"), filepath.Join(dir, "disk")
	content := make([]byte, 9<<20+700)
	copy(content[5000:], "near the beginning")
	copy(content[len(content)-9:], "at the end")
	writeSparse(t, part, content)
	if err := run(part, disk); err != nil {
		t.Fatal(err)
	}
	got, err := os.ReadFile(disk)
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got[partStart:partStart+len(content)], content) {
		t.Error("the partition is not in the disk")
	}
	if got[510] != 0x55 || got[511] != 0xAA || got[450] != 0xEE {
		t.Error("no protective MBR")
	}
	last := uint64(len(got)/sectorSize - 1)
	checkHeader(t, got, 1, last)
	checkHeader(t, got, last, 1)
	info, err := os.Stat(disk)
	if err != nil {
		t.Fatal(err)
	}
	if used := info.Sys().(*syscall.Stat_t).Blocks * 512; used > 1<<20 {
		t.Errorf("the disk takes %d bytes, so its holes are gone", used)
	}
	if err := run(part, disk); err == nil {
		t.Error("an existing file was overwritten")
	}
}

// writeSparse writes what of content is not zero.
func writeSparse(t *testing.T, name string, content []byte) {
	t.Helper()
	f, err := os.Create(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(int64(len(content))); err != nil {
		t.Fatal(err)
	}
	for off := 0; off < len(content); off += 4096 {
		b := content[off:min(off+4096, len(content))]
		if bytes.Count(b, []byte{0}) == len(b) {
			continue
		}
		if _, err := f.WriteAt(b, int64(off)); err != nil {
			t.Fatal(err)
		}
	}
}

// checkHeader checks the header in block self and the table it names.
func checkHeader(t *testing.T, disk []byte, self, other uint64) {
	t.Helper()
	le := binary.LittleEndian
	h := bytes.Clone(disk[self*sectorSize:][:92])
	sum := le.Uint32(h[16:])
	copy(h[16:], []byte{0, 0, 0, 0})
	if string(h[:8]) != "EFI PART" || crc32.ChecksumIEEE(h) != sum {
		t.Fatalf("header in block %d is damaged", self)
	}
	if le.Uint64(h[24:]) != self || le.Uint64(h[32:]) != other {
		t.Errorf("header in block %d names blocks %d and %d", self, le.Uint64(h[24:]), le.Uint64(h[32:]))
	}
	first, last := le.Uint64(h[40:]), le.Uint64(h[48:])
	at := le.Uint64(h[72:])
	table := disk[at*sectorSize:][:tableSize]
	if crc32.ChecksumIEEE(table) != le.Uint32(h[88:]) {
		t.Errorf("the table of the header in block %d is damaged", self)
	}
	begin, end := le.Uint64(table[32:]), le.Uint64(table[40:])
	if begin != partStart/sectorSize || end < begin || begin < first || end > last {
		t.Errorf("partition from %d to %d, usable are %d to %d", begin, end, first, last)
	}
	if at <= last && at >= first {
		t.Errorf("the table at %d lies in the usable blocks", at)
	}
}
