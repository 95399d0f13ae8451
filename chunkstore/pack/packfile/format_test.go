package packfile

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"reflect"
	"slices"
	"testing"

	"golang.org/x/sys/unix"

	"holdfast/chunkstore"
	"holdfast/chunkstore/storetest"
	"holdfast/crypto"
)

func TestMagics(t *testing.T) {
	for text, magic := range map[string]string{
		"Holdfast pack v1": packMagic, "Holdfast pack footer v1": trailerMagic, "Holdfast record v1": RecordMagic,
	} {
		h := sha256.Sum256([]byte(text))
		if !bytes.HasPrefix(h[:], []byte(magic)) {
			t.Errorf("%s: magic is %x, want %x", text, magic, h[:8])
		}
	}
}

var testID = ID{1, 2, 3, 4, 5, 6, 7, 8}

func testRecord(c chunkstore.Chunk) Record {
	return Record{Key: c.Key(), Stored: uint32(len(c.Blob)), Rank: 3, Sum: crypto.Sum(c.Blob)}
}

// build makes the bytes of a pack, with a footer or without.
func build(cs []chunkstore.Chunk, sealed bool) ([]byte, []Entry) {
	b := EncodeHeader(testID, 7)
	var es []Entry
	for _, c := range cs {
		e := Entry{Record: testRecord(c), Off: int64(len(b))}
		es = append(es, e)
		b = append(append(b, EncodeRecord(e.Record, testID)...), c.Blob...)
	}
	if sealed {
		b = append(b, EncodeFooter(b[:HeaderSize], es, int64(len(b)))...)
	}
	return b, es
}

// TestVectors pins the format: these bytes are what every later version reads.
func TestVectors(t *testing.T) {
	head := hex.EncodeToString(EncodeHeader(testID, 7))
	if want := "6ed6d13868c52f9802000000000000000102030405060708" + "0700000000000000" + hex.EncodeToString(make([]byte, 28)); head[:120] != want {
		t.Errorf("file header\n got %s\nwant %s", head[:120], want)
	}
	r := EncodeRecord(testRecord(storetest.Chunk(1, 20)), testID)
	want, _ := hex.DecodeString("0ecd4b9002000000")
	if !bytes.Equal(r[:8], want) || binary.LittleEndian.Uint32(r[40:]) != 20 || binary.LittleEndian.Uint32(r[44:]) != 2 ||
		binary.LittleEndian.Uint32(r[48:]) != 3 || !bytes.Equal(r[52:60], testID[:]) {
		t.Errorf("record header %x", r)
	}
	whole, _ := build([]chunkstore.Chunk{storetest.Chunk(1, 20), storetest.Chunk(2, 33)}, true)
	got := sha256.Sum256(whole)
	if want := "785c75eeb652e061afc2f572f70768a5a4645c89387b91acde9a9d79aac7a130"; hex.EncodeToString(got[:]) != want {
		t.Errorf("sealed pack of %d bytes: SHA-256 %x, want %s", len(whole), got, want)
	}
}

func TestHeaderRoundTripAndDamage(t *testing.T) {
	b := EncodeHeader(testID, 7)
	id, epoch, err := DecodeHeader(b)
	if err != nil || id != testID || epoch != 7 {
		t.Fatalf("%v, %d, %v", id, epoch, err)
	}
	storetest.EveryFlip(t, b, func(b []byte) error { _, _, err := DecodeHeader(b); return err })
	for _, at := range []int{8, 12, 40} {
		c := slices.Clone(b)
		c[at]++
		binary.LittleEndian.PutUint32(c[60:], CRC(c[:60]))
		if _, _, err := DecodeHeader(c); err == nil {
			t.Errorf("byte %d changed and the checksum with it: accepted", at)
		}
	}
}

func TestRecordRoundTripAndDamage(t *testing.T) {
	want := testRecord(storetest.Chunk(1, 500))
	b := EncodeRecord(want, testID)
	got, err := DecodeRecord(b, testID)
	if err != nil || got != want {
		t.Fatalf("%+v, %v", got, err)
	}
	storetest.EveryFlip(t, b, func(b []byte) error { _, err := DecodeRecord(b, testID); return err })
	if _, err := DecodeRecord(b, ID{9}); err == nil {
		t.Error("a record of another pack was accepted")
	}
	for name, change := range map[string]func(*Record){
		"zero id":          func(r *Record) { r.Key.ID = chunkstore.ID{} },
		"stored too small": func(r *Record) { r.Stored = chunkstore.BlobSizeMin },
		"stored too large": func(r *Record) { r.Stored = chunkstore.BlobSizeMax + 1 },
		"plain zero":       func(r *Record) { r.Key.Size = 0 },
		"plain too large":  func(r *Record) { r.Key.Size = chunkstore.PlainSizeMax + 1 },
		"a claim of plain": func(r *Record) { r.Claim = true },
	} {
		r := want
		change(&r)
		if _, err := DecodeRecord(EncodeRecord(r, testID), testID); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestFooter(t *testing.T) {
	b, want := build(chunks(0, 5), true)
	got, err := ReadFooter(bytes.NewReader(b), int64(len(b)), testID)
	if err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("%v, %v", got, err)
	}
	tableOff := int(want[4].End())
	for i := tableOff; i < len(b); i++ {
		c := slices.Clone(b)
		c[i] ^= 4
		if _, err := ReadFooter(bytes.NewReader(c), int64(len(c)), testID); err == nil {
			t.Errorf("byte %d of the footer changed: accepted", i-tableOff)
		}
	}
	c := slices.Clone(b)
	c[20] ^= 1
	if _, err := ReadFooter(bytes.NewReader(c), int64(len(c)), testID); err == nil {
		t.Error("another file header: accepted")
	}
	for n := range len(b) {
		if _, err := ReadFooter(bytes.NewReader(b[:n]), int64(n), testID); err == nil {
			t.Fatalf("%d of %d bytes: accepted", n, len(b))
		}
	}
}

func TestFooterRefusesWrongEntries(t *testing.T) {
	_, es := build(chunks(0, 3), false)
	for name, change := range map[string]func([]Entry){
		"offset in the header": func(es []Entry) { es[0].Off = 10 },
		"overlap":              func(es []Entry) { es[1].Off-- },
		"order":                func(es []Entry) { es[0], es[1] = es[1], es[0] },
		"behind the table":     func(es []Entry) { es[2].Off += 1 },
		"huge offset":          func(es []Entry) { es[2].Off = 1 << 60 },
		"size zero":            func(es []Entry) { es[1].Stored = 0 },
	} {
		head, bad := EncodeHeader(testID, 1), slices.Clone(es)
		change(bad)
		off := es[2].End()
		f := EncodeFooter(head, bad, off)
		tr, err := decodeTrailer(f[len(f)-TrailerSize:], off+int64(len(f)))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := decodeTable(tr, head, f[:len(f)-TrailerSize]); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
}

func TestParseName(t *testing.T) {
	p, ok := ParseName("0102030405060708.pack")
	if !ok || p.ID != testID || p.State != StateSealed || p.Name() != "0102030405060708.pack" {
		t.Errorf("%+v, %v", p, ok)
	}
	for _, bad := range []string{"", ".open", ".pack", "0102030405060708", "0102030405060708.bad", "010203040506070.pack",
		"01020304050607081.open", "010203040506070G.open", "0102030405060708.pack.tmp", "010203040506070A.open", "x/0102030405060.open"} {
		if p, ok := ParseName(bad); ok {
			t.Errorf("%q: accepted as %v", bad, p)
		}
	}
}

// scanAll scans a pack in memory.
func scanAll(t testing.TB, r *readerOf) ([]Entry, ScanResult) {
	t.Helper()
	var es []Entry
	sc := &Scanner{R: &PatchyReader{R: r}, ID: testID, Size: int64(len(r.b)), Sound: func(e Entry) error { es = append(es, e); return nil }}
	res, err := sc.Scan(context.Background(), HeaderSize)
	if err != nil {
		t.Fatal(err)
	}
	return es, res
}

func TestScanFindsWhatIsSound(t *testing.T) {
	cs := chunks(0, 20)
	// A record of another pack, and one of this pack with wrong content,
	// inside a stored chunk: neither may be taken for a record.
	fake := testRecord(cs[3])
	evil := slices.Concat(make([]byte, 50), EncodeRecord(fake, ID{7}), cs[3].Blob, EncodeRecord(fake, testID), make([]byte, 2000))
	cs[10] = chunkstore.Chunk{ID: sha256.Sum256(evil), PlainSize: 5, Blob: evil}
	whole, all := build(cs, false)
	for _, tc := range []struct {
		name    string
		change  func([]byte) []byte
		lost    []int
		damaged int
	}{
		{"nothing", func(b []byte) []byte { return b }, nil, 0},
		{"magic", flip(int(all[5].Off)), []int{5}, 1},
		{"size", flip(int(all[5].Off) + 41), []int{5}, 1},
		{"stored bytes", flip(int(all[5].Off) + RecordSize), []int{5}, 1},
		{"header before the evil one", flip(int(all[9].Off)), []int{9}, 1},
		{"header of the evil one", flip(int(all[10].Off) + 9), []int{10}, 1},
		{"first and last", func(b []byte) []byte { return flip(int(all[19].Off))(flip(int(all[0].Off))(b)) }, []int{0, 19}, 2},
		{"hole over two", func(b []byte) []byte { clear(b[all[6].Off+20 : all[7].Off+100]); return b }, []int{6, 7}, 1},
		{"torn end", func(b []byte) []byte { return b[:len(b)-1] }, []int{19}, 1},
		{"torn header", func(b []byte) []byte { return b[:all[19].Off+50] }, []int{19}, 1},
		{"bytes moved", func(b []byte) []byte { return slices.Insert(b, int(all[4].Off), 1, 2, 3) }, nil, 1},
		{"nothing left", func(b []byte) []byte { clear(b); return b }, []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19}, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			es, res := scanAll(t, &readerOf{b: tc.change(slices.Clone(whole))})
			var want, got []chunkstore.ID
			for i, e := range all {
				if !slices.Contains(tc.lost, i) {
					want = append(want, e.Key.ID)
				}
			}
			for _, e := range es {
				got = append(got, e.Key.ID)
			}
			if !slices.Equal(got, want) {
				t.Errorf("%d records found, want %d", len(got), len(want))
			}
			if res.Damaged != tc.damaged || (res.Skipped > 0) != (tc.damaged > 0) {
				t.Errorf("%+v, want %d damaged", res, tc.damaged)
			}
		})
	}
}

func TestScanAroundBadSectors(t *testing.T) {
	whole, all := build(chunks(0, 40), false)
	r := &readerOf{b: whole, bad: func(off, end int64) error {
		if off < 5*patch && end > 4*patch {
			return unix.EIO
		}
		return nil
	}}
	es, res := scanAll(t, r)
	want := 0
	for _, e := range all {
		if e.End() <= 4*patch || e.Off >= 5*patch {
			want++
		}
	}
	if len(es) != want || res.Damaged == 0 {
		t.Errorf("%d records found, want %d; %+v", len(es), want, res)
	}
}

// TestScanIsLinear gives the search a chunk that is nothing but magics: it
// must not read the file again for each.
func TestScanIsLinear(t *testing.T) {
	evil := bytes.Repeat([]byte(RecordMagic), 1<<20)
	cs := []chunkstore.Chunk{{ID: chunkstore.ID{1}, PlainSize: 1, Blob: evil}, storetest.Chunk(1, 500)}
	whole, all := build(cs, false)
	whole[all[0].Off+10] ^= 1
	reads := 0
	es, _ := scanAll(t, &readerOf{b: whole, bad: func(int64, int64) error { reads++; return nil }})
	if len(es) != 1 || reads > 50 {
		t.Errorf("%d records after %d reads", len(es), reads)
	}
}

func TestPatchyReader(t *testing.T) {
	b := make([]byte, 5*patch)
	for i := range b {
		b[i] = byte(i%251) + 1
	}
	r := &PatchyReader{R: &readerOf{b: b, bad: func(off, end int64) error {
		if off < 2*patch && end > patch {
			return fmt.Errorf("read: %w", unix.EIO)
		}
		return nil
	}}}
	got := make([]byte, 3*patch)
	if n, err := r.ReadAt(got, 100); err != nil || n != len(got) {
		t.Fatalf("%d, %v", n, err)
	}
	want := append([]byte(nil), b[100:100+3*patch]...)
	clear(want[patch-100 : 2*patch-100])
	if string(got) != string(want) || r.Bad != 1 {
		t.Errorf("wrong bytes around the bad block; %d bad", r.Bad)
	}
	if _, err := r.ReadAt(got, 4*patch); !errors.Is(err, io.EOF) {
		t.Errorf("behind the end: %v", err)
	}
}

// readerOf is an io.ReaderAt over b that fails where bad says so.
type readerOf struct {
	b   []byte
	bad func(off, end int64) error
}

func (r readerOf) ReadAt(p []byte, off int64) (int, error) {
	if r.bad != nil {
		if err := r.bad(off, off+int64(len(p))); err != nil {
			return 0, err
		}
	}
	n, err := bytes.NewReader(r.b).ReadAt(p, off)
	if errors.Is(err, io.EOF) && n == len(p) {
		err = nil
	}
	return n, err
}

// chunks makes n chunks of about 1,000 bytes.
func chunks(first, n int) []chunkstore.Chunk {
	cs := make([]chunkstore.Chunk, n)
	for i := range cs {
		cs[i] = storetest.Chunk(uint64(first+i), 900+(first+i)%200)
	}
	return cs
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at] ^= 0x10
		return b
	}
}
