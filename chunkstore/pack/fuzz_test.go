package pack

import (
	"bytes"
	"context"
	"errors"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/storetest"
)

func FuzzHeader(f *testing.F) {
	f.Add(encodeHeader(testPack, 7))
	f.Add([]byte(packMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, epoch, err := decodeHeader(b)
		if err == nil && !bytes.Equal(encodeHeader(id, epoch), b) {
			t.Error("a header that does not come from the encoder was accepted")
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(encodeRecord(testRecord(storetest.Chunk(1, 20)), testPack))
	claim := testRecord(storetest.Sealed(1, 20, "alice"))
	claim.claim = true
	f.Add(encodeRecord(claim, testPack))
	f.Add([]byte(recordMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := decodeRecord(b, testPack)
		if err == nil && (!bytes.Equal(encodeRecord(r, testPack), b) || r.validate() != nil) {
			t.Error("a record that does not come from the encoder was accepted")
		}
	})
}

func FuzzFooter(f *testing.F) {
	whole, _ := buildPack(chunks(0, 3), true)
	f.Add(whole)
	empty, _ := buildPack(nil, true)
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		es, err := readFooter(bytes.NewReader(b), int64(len(b)), testPack)
		if err != nil {
			return
		}
		last := int64(headerSize)
		for _, e := range es {
			if e.off < last || e.end() > int64(len(b)) || e.validate() != nil {
				t.Fatalf("entry at %d of a file of %d bytes", e.off, len(b))
			}
			last = e.end()
		}
	})
}

func FuzzScan(f *testing.F) {
	whole, _ := buildPack(chunks(0, 3), false)
	f.Add(whole)
	f.Add(append(whole[:700:700], whole[300:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		sc := &scanner{r: bytes.NewReader(b), id: testPack, size: int64(len(b)), sound: func(e entry) error {
			if sum(b[e.off+recordSize:e.end()]) != e.sum {
				t.Fatalf("the record at %d is not sound", e.off)
			}
			return nil
		}}
		if res, err := sc.scan(context.Background(), min(headerSize, int64(len(b)))); err != nil || res.end > int64(len(b)) {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}

func FuzzCheckBolt(f *testing.F) {
	f.Add(boltBytes(f, 3))
	f.Add(boltBytes(f, 600))
	f.Fuzz(func(t *testing.T, b []byte) {
		// It must come to an end and not panic; what it accepts, bbolt must
		// be able to read.
		if checkBolt(bytes.NewReader(b), int64(len(b))) != nil {
			return
		}
		c := openBytes(t, b)
		if c == nil {
			return
		}
		defer c.close()
		var at chunkstore.Key
		for done := false; !done; {
			var err error
			if at, done, err = c.scan(at, 100, func(chunkstore.Key, location) {}); err != nil {
				t.Fatalf("bbolt cannot read what was found sound: %v", err)
			}
		}
	})
}

func FuzzCatalogueValues(f *testing.F) {
	key := chunkstore.Key{ID: chunkstore.ID{1}}.Append(nil)
	l := location{pack: 1, off: 64, stored: 100}
	f.Add(key, encodeLocation(key, l))
	l.sum[0] = 1
	f.Add(key, encodeLocation(key, l.claiming(3, entry{off: 900})))
	f.Add(packKey(3), encodePackInfo(3, packInfo{id: testPack, state: stateOpen, length: 64}))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		if l, err := decodeLocation(k, v); err == nil && (l.off < headerSize || l.stored > chunkstore.SealedSizeMax) {
			t.Errorf("%+v", l)
		}
		if _, p, err := decodePackInfo(k, v); err == nil && p.length < 0 {
			t.Errorf("%+v", p)
		}
		_ = checkMetaPair(k, v)
	})
}

// A meta page that is newer but tells of more than the file holds must not let the
// check go on with the older one, which bbolt does not read.
func TestCheckBoltOfACutFile(t *testing.T) {
	b := boltBytes(t, 600)
	m, err := readBoltMeta(bytes.NewReader(b), int64(len(b)))
	if err != nil {
		t.Fatal(err)
	}
	cut := b[:int64(m.next)*int64(m.pageSize)-1]
	if _, err := readBoltMeta(bytes.NewReader(cut), int64(len(cut))); !errors.Is(err, errBoltMeta) {
		t.Errorf("a file of %d bytes with %d pages: %v", len(cut), m.next, err)
	}
}
