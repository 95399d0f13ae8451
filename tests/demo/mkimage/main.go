// Command mkimage puts one partition into a disk image: a protective MBR, a
// GUID partition table at both ends and, between them at 1 MiB, the bytes of
// the partition file. Holes stay holes.
//
// It exists so that the demonstration and the benchmark need no root and no
// partitioning tool. It imports the standard library and golang.org/x/sys.
package main

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"os"

	"golang.org/x/sys/unix"
)

const (
	sectorSize  = 512
	partStart   = 1 << 20 // offset of the partition, in bytes
	entryCount  = 128
	entrySize   = 128
	tableSize   = entryCount * entrySize
	tableBlocks = tableSize / sectorSize
	align       = 1 << 20
)

func main() {
	if len(os.Args) != 3 {
		fmt.Fprintln(os.Stderr, "usage: mkimage PARTITION DISK")
		os.Exit(2)
	}
	if err := run(os.Args[1], os.Args[2]); err != nil {
		fmt.Fprintln(os.Stderr, "mkimage:", err)
		os.Exit(1)
	}
}

func run(part, disk string) error {
	in, err := os.Open(part)
	if err != nil {
		return err
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		return err
	}
	out, err := os.OpenFile(disk, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return err
	}
	if err := write(out, in, info.Size()); err != nil {
		return errors.Join(fmt.Errorf("write %s: %w", disk, err), out.Close())
	}
	return out.Close()
}

// write lays out the disk: tables, partition, and one MiB of room at the end
// for the second table.
func write(out *os.File, in *os.File, partSize int64) error {
	partSpan := (partSize + sectorSize - 1) / sectorSize
	diskSize := (partStart + partSpan*sectorSize + align - 1) / align * align
	diskSize += align
	if err := out.Truncate(diskSize); err != nil {
		return err
	}
	last := uint64(diskSize/sectorSize - 1)
	table := entries(partStart/sectorSize, partStart/sectorSize+uint64(partSpan)-1)
	first := header{self: 1, other: last, table: 2, last: last}
	second := header{self: last, other: 1, table: last - tableBlocks, last: last}
	writes := []struct {
		data  []byte
		block uint64
	}{
		{protective(last), 0},
		{first.encode(table), first.self},
		{table, first.table},
		{table, second.table},
		{second.encode(table), second.self},
	}
	for _, w := range writes {
		if _, err := out.WriteAt(w.data, int64(w.block)*sectorSize); err != nil {
			return err
		}
	}
	return copySparse(out, in, partSize)
}

// protective is the MBR that keeps old tools away from a GPT disk.
func protective(last uint64) []byte {
	b := make([]byte, sectorSize)
	e := b[446:]
	copy(e, []byte{0x00, 0x00, 0x02, 0x00, 0xEE, 0xFF, 0xFF, 0xFF})
	binary.LittleEndian.PutUint32(e[8:], 1)
	binary.LittleEndian.PutUint32(e[12:], uint32(min(last, 0xFFFFFFFF)))
	b[510], b[511] = 0x55, 0xAA
	return b
}

// guid is the mixed-endian form of a GUID written as five numbers.
func guid(a uint32, b, c uint16, rest uint64) []byte {
	g := binary.LittleEndian.AppendUint32(nil, a)
	g = binary.LittleEndian.AppendUint16(g, b)
	g = binary.LittleEndian.AppendUint16(g, c)
	return binary.BigEndian.AppendUint64(g, rest)
}

// entries is the partition table with one Linux partition in it.
func entries(first, last uint64) []byte {
	t := make([]byte, tableSize)
	copy(t, guid(0x0FC63DAF, 0x8483, 0x4772, 0x8E793D69D8477DE4)) // Linux file system
	copy(t[16:], guid(0x1C1F00D5, 0x0B57, 0x4D15, 0xA1AD0000C0FFEE01))
	binary.LittleEndian.PutUint64(t[32:], first)
	binary.LittleEndian.PutUint64(t[40:], last)
	for i, c := range "root" {
		binary.LittleEndian.PutUint16(t[56+2*i:], uint16(c))
	}
	return t
}

// header says, in blocks, where a GPT header and the things it names lie.
type header struct {
	self, other, table, last uint64
}

func (h header) encode(table []byte) []byte {
	b := make([]byte, sectorSize)
	le := binary.LittleEndian
	copy(b, "EFI PART")
	le.PutUint32(b[8:], 0x00010000)
	le.PutUint32(b[12:], 92)
	le.PutUint64(b[24:], h.self)
	le.PutUint64(b[32:], h.other)
	le.PutUint64(b[40:], 2+tableBlocks)
	le.PutUint64(b[48:], h.last-tableBlocks-1)
	copy(b[56:], guid(0x1C1F00D5, 0x0B57, 0x4D15, 0xA1AD0000C0FFEE00))
	le.PutUint64(b[72:], h.table)
	le.PutUint32(b[80:], entryCount)
	le.PutUint32(b[84:], entrySize)
	le.PutUint32(b[88:], crc32.ChecksumIEEE(table))
	le.PutUint32(b[16:], crc32.ChecksumIEEE(b[:92]))
	return b
}

// copySparse copies the allocated parts of in to partStart of out.
func copySparse(out, in *os.File, size int64) error {
	for off := int64(0); off < size; {
		data, err := unix.Seek(int(in.Fd()), off, unix.SEEK_DATA)
		if errors.Is(err, unix.ENXIO) {
			return nil
		}
		if err != nil {
			return err
		}
		end, err := unix.Seek(int(in.Fd()), data, unix.SEEK_HOLE)
		if err != nil {
			return err
		}
		if err := copyRange(out, in, data, end); err != nil {
			return err
		}
		off = end
	}
	return nil
}

// copyRange copies what of [off, end) is not zero.
func copyRange(out, in *os.File, off, end int64) error {
	buf := make([]byte, 64<<10)
	zero := make([]byte, len(buf))
	for off < end {
		b := buf[:min(int64(len(buf)), end-off)]
		if _, err := in.ReadAt(b, off); err != nil {
			return err
		}
		if !bytes.Equal(b, zero[:len(b)]) {
			if _, err := out.WriteAt(b, partStart+off); err != nil {
				return err
			}
		}
		off += int64(len(b))
	}
	return nil
}
