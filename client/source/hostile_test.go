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

// be32 and be64 are numbers as a header holds them.
func be32(v uint32) []byte { return binary.BigEndian.AppendUint32(nil, v) }
func be64(v uint64) []byte { return binary.BigEndian.AppendUint64(nil, v) }

func TestHostileHeaders(t *testing.T) {
	sound, err := os.ReadFile(single("1M", "", "write -P 1 0 100k")(t, t.TempDir()))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name string
		off  int
		b    []byte
		want error
		say  string
	}{
		{"version 1", 4, be32(1), ErrUnsupported, "version 1"},
		{"version 4", 4, be32(4), ErrUnsupported, "version 4"},
		{"clusters too small", 20, be32(8), ErrDamaged, "cluster bits 8"},
		{"clusters too large", 20, be32(22), ErrDamaged, "cluster bits 22"},
		{"cluster bits absurd", 20, be32(1<<32 - 1), ErrDamaged, "cluster bits"},
		{"size absurd", 24, be64(1 << 56), ErrDamaged, "size of"},
		{"size negative", 24, be64(1 << 63), ErrDamaged, "size of"},
		{"size needs more L1", 24, be64(1 << 40), ErrDamaged, "L1 table of"},
		{"AES", 32, be32(1), ErrUnsupported, "AES"},
		{"LUKS", 32, be32(2), ErrUnsupported, "LUKS"},
		{"encryption 3", 32, be32(3), ErrUnsupported, "encryption method 3"},
		{"L1 absurd", 36, be32(1<<32 - 1), ErrDamaged, "L1 table of 4294967295"},
		{"L1 of the limit", 36, be32(l1CountMax), ErrDamaged, "beyond the end"},
		{"L1 empty", 36, be32(0), ErrDamaged, "L1 table of 0"},
		{"L1 at 0", 40, be64(0), ErrDamaged, "L1 table at 0"},
		{"L1 not on a cluster", 40, be64(512), ErrDamaged, "L1 table at 512"},
		{"L1 behind the end", 40, be64(1 << 40), ErrDamaged, "beyond the end"},
		{"L1 at a negative place", 40, be64(1<<64 - 1<<16), ErrDamaged, "beyond the end"},
		{"corrupt bit", 79, []byte{1 << bitCorrupt}, ErrDamaged, "marked as corrupt"},
		{"external data file", 79, []byte{1 << bitDataFile}, ErrUnsupported, "external data file"},
		{"compression bit alone", 79, []byte{1 << bitCompression}, ErrDamaged, "compression type 0"},
		{"compression type 7", 104, []byte{7}, ErrUnsupported, "compression type 7"},
		{"compression without bit", 104, []byte{1}, ErrDamaged, "compression type 1"},
		{"unknown bit 5", 79, []byte{1 << 5}, ErrUnsupported, "bit 5"},
		{"unknown bit 63", 72, []byte{1 << 7}, ErrUnsupported, "bit 63"},
		{"header length short", 100, be32(96), ErrDamaged, "header length 96"},
		{"header length absurd", 100, be32(1<<32 - 1), ErrDamaged, "header length"},
		{"extension absurd", 116, be32(1<<32 - 1), ErrDamaged, "header extension"},
		{"backing name outside", 8, append(be64(1<<40), be32(5)...), ErrDamaged, "outside the first cluster"},
		{"backing name in the header", 8, append(be64(8), be32(5)...), ErrDamaged, "outside the first cluster"},
		{"backing name long", 8, append(be64(4096), be32(1<<32-1)...), ErrDamaged, "backing file name has"},
		{"backing name of zeros", 8, append(be64(4096), be32(5)...), ErrDamaged, "zero byte"},
		{"no magic", 0, []byte("QFI0"), ErrDamaged, "no qcow2 magic"},
	} {
		t.Run(c.name, func(t *testing.T) {
			b := bytes.Clone(sound)
			copy(b[c.off:], c.b)
			_, err := parseHeader(bytes.NewReader(b), int64(len(b)))
			wantError(t, err, c.want, c.say)
			if c.off == 0 {
				return
			}
			path := writeFile(t, filepath.Join(t.TempDir(), "disk.qcow2"), b)
			_, err = Open(path, Options{AllowBacking: true})
			wantError(t, err, c.want, c.say, path)
		})
	}
}

// TestFeatureNames refuses a feature by the name that the image gives it.
func TestFeatureNames(t *testing.T) {
	path := single("1M", "")(t, t.TempDir())
	entry := make([]byte, 48)
	entry[1] = 9
	copy(entry[2:], "holographic clusters")
	patch(t, path, 112, bytes.Join([][]byte{be32(extensionFeatureNames), be32(48), entry, make([]byte, 8)}, nil))
	patch(t, path, 72, be64(1<<9))
	_, err := Open(path, Options{})
	wantError(t, err, ErrUnsupported, `"holographic clusters" (bit 9)`)
}

func TestTruncatedImage(t *testing.T) {
	for _, keep := range []int64{4, 71, 72, 103, 104, 0x30000, 0x40000, 0x4ffff, 0x50000, 0x5ffff, 0x60000} {
		path := single("1M", "", "write -P 1 0 256k")(t, t.TempDir())
		if err := os.Truncate(path, keep); err != nil {
			t.Fatal(err)
		}
		img, err := Open(path, Options{})
		if err == nil {
			err = readAll(img)
			if err := img.Close(); err != nil {
				t.Error(err)
			}
		}
		wantError(t, err, ErrDamaged, path)
	}
}

// readAll reads an image as a backup does.
func readAll(img Image) error {
	p := make([]byte, 64<<10)
	for off := int64(0); off < img.Size(); {
		x, err := img.Extent(off)
		if err != nil {
			return err
		}
		for end := off + x.Len; off < end; {
			n, err := img.ReadAt(p[:min(int64(len(p)), end-off)], off)
			if err != nil && !errors.Is(err, io.EOF) {
				return err
			}
			off += int64(n)
		}
	}
	return nil
}

// TestBadEntries damages the tables of an image with the L1 table at 0x30000,
// one L2 table at 0x40000 and data from 0x50000.
func TestBadEntries(t *testing.T) {
	const l1, l2 = 0x30000, 0x40000
	const extended = "extended_l2=on"
	for _, c := range []struct {
		name, opts string
		off        int64
		entry      []byte
		say        string
	}{
		{"L2 table behind the end", "", l1, be64(1 << 40), "L1 entry 0: points to byte 1099511693311"},
		{"L2 table not on a cluster", "", l1, be64(0x40200), "L1 entry 0: L2 table at 262656"},
		{"data behind the end", "", l2, be64(1 << 40), "L2 entry 0 of L1 entry 0 (disk offset 0)"},
		{"data not on a cluster", "", l2 + 8, be64(0x50200), "L2 entry 1 of L1 entry 0 (disk offset 65536)"},
		{"compressed at 0", "", l2, be64(flagCompressed), "compressed data at 0"},
		{"compressed behind the end", "", l2, be64(flagCompressed | 1<<40), "L2 entry 0"},
		{"compressed rubbish", "", l2, be64(flagCompressed | 0x50000), "decompress cluster"},
		{"zero flag in version 2", "compat=0.10", l2, be64(flagZero), "zero flag"},
		{"subcluster zero and there", extended, l2 + 8, be64(1<<32 | 1), "contradict"},
		{"subcluster without cluster", extended, l2, append(be64(0), be64(1)...), "contradict"},
		{"subcluster behind the end", extended, l2, be64(1 << 40), "L2 entry 0"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := single("1M", c.opts, "write -P 1 0 256k")(t, t.TempDir())
			patch(t, path, c.off, c.entry)
			err := readAll(mustOpen(t, path, Options{}))
			wantError(t, err, ErrDamaged, path, c.say)
		})
	}
}

// TestGrownImage reads an image that another program goes on writing to.
func TestGrownImage(t *testing.T) {
	path := single("1M", "", "write -P 1 0 64k")(t, t.TempDir())
	img := mustOpen(t, path, Options{ForceShare: true})
	qemuIO(t, path, "write -P 1 512k 256k")
	wantError(t, readAll(img), ErrChanged, path)
	wantError(t, img.Verify(), ErrChanged, path)
}

// TestHugeCluster has a table whose size and span are the largest there are.
func TestHugeCluster(t *testing.T) {
	path := single("1P", "cluster_size=2M", "write -P 1 600T 4k")(t, t.TempDir())
	img := mustOpen(t, path, Options{})
	var data int64
	for _, x := range walk(t, img) {
		if x.Kind == Data {
			data += x.Len
			if x.Off != 600<<40 {
				t.Errorf("data at %d", x.Off)
			}
		}
	}
	if data != 2<<20 {
		t.Errorf("%d bytes of data, want one cluster", data)
	}
}

// TestLibraryPanic makes the library panic, here by reading without an image.
func TestLibraryPanic(t *testing.T) {
	err := (&library{}).readAt(make([]byte, 1), 0)
	wantError(t, err, ErrDamaged, "panicked")
}

// TestLibrarySeesOurHeader shows that nothing of the file's own header reaches
// the library unchecked.
func TestLibrarySeesOurHeader(t *testing.T) {
	dir := t.TempDir()
	writeFile(t, filepath.Join(dir, "base.raw"), make([]byte, 1<<20))
	path := namedBacking(t, filepath.Join(dir, "disk.qcow2"), "base.raw", "raw")
	q := mustOpen(t, path, Options{}).(*chain).layers[0].(*qcow2File)
	if got := q.library.img; got.BackingFile != "" || len(got.HeaderExtensions) != 0 || got.Header.BackingFileOffset != 0 {
		t.Errorf("the library knows of backing file %q", got.BackingFile)
	}
	shown := make([]byte, 4096)
	if _, err := (&masked{head: plainHeader(q.h), file: q.file}).ReadAt(shown, 0); err != nil {
		t.Fatal(err)
	}
	h, err := parseHeader(bytes.NewReader(shown), q.length)
	if err != nil {
		t.Fatal(err)
	}
	if h.backing != "" || h.size != q.h.size || h.l1Off != q.h.l1Off || h.l1Count != q.h.l1Count || h.clusterBits != q.h.clusterBits {
		t.Errorf("header shown %+v, checked %+v", h, q.h)
	}
	if _, err := refuseBacking(nil, ""); !errors.Is(err, ErrBacking) {
		t.Errorf("backing file opened for the library: %v", err)
	}
}

// TestTableCache keeps the tables used last and no more than it may.
func TestTableCache(t *testing.T) {
	c := newTableCache(2 << 20)
	if c.most != 4 {
		t.Fatalf("%d tables of 2 MiB, want 4", c.most)
	}
	for off := int64(1); off <= 4; off++ {
		c.put(off, []byte{byte(off)})
	}
	if b := c.get(1); len(b) != 1 || b[0] != 1 {
		t.Fatalf("table 1 is %v", b)
	}
	c.put(5, []byte{5})
	for off, want := range map[int64]bool{1: true, 2: false, 3: true, 4: true, 5: true} {
		if b := c.get(off); (b != nil) != want || want && b[0] != byte(off) {
			t.Errorf("table %d is %v", off, b)
		}
	}
	if len(c.tables) > 4 {
		t.Errorf("%d tables kept", len(c.tables))
	}
}

// TestShortLastCluster reads a file that ends where the disk ends, within its
// last cluster; one byte less is damage.
func TestShortLastCluster(t *testing.T) {
	const size, last = 70 << 10, 0x60000
	path := single(str(size), "", "write -P 1 0 64k", "write -P 2 64k 6k")(t, t.TempDir())
	want := truth(t, path)
	if err := os.Truncate(path, last+size-64<<10); err != nil {
		t.Fatal(err)
	}
	checkImage(t, mustOpen(t, path, Options{}), want)
	if err := os.Truncate(path, last+size-64<<10-1); err != nil {
		t.Fatal(err)
	}
	wantError(t, readAll(mustOpen(t, path, Options{})), ErrDamaged, "L2 entry 1")
}
