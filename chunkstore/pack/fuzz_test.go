package pack

import (
	"bytes"
	"context"
	"testing"

	"holdfast/chunkstore/storetest"
	"holdfast/crypto"
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
			if crypto.Sum(b[e.off+recordSize:e.end()]) != e.sum {
				t.Fatalf("the record at %d is not sound", e.off)
			}
			return nil
		}}
		if res, err := sc.scan(context.Background(), min(headerSize, int64(len(b)))); err != nil || res.end > int64(len(b)) {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}
