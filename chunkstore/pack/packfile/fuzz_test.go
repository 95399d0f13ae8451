package packfile

import (
	"bytes"
	"context"
	"testing"

	"holdfast/chunkstore/storetest"
	"holdfast/crypto"
)

func FuzzHeader(f *testing.F) {
	f.Add(EncodeHeader(testID, 7))
	f.Add([]byte(packMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		id, epoch, err := DecodeHeader(b)
		if err == nil && !bytes.Equal(EncodeHeader(id, epoch), b) {
			t.Error("a header that does not come from the encoder was accepted")
		}
	})
}

func FuzzRecord(f *testing.F) {
	f.Add(EncodeRecord(testRecord(storetest.Chunk(1, 20)), testID))
	claim := testRecord(storetest.Sealed(1, 20, "alice"))
	claim.Claim = true
	f.Add(EncodeRecord(claim, testID))
	f.Add([]byte(RecordMagic))
	f.Fuzz(func(t *testing.T, b []byte) {
		r, err := DecodeRecord(b, testID)
		if err == nil && (!bytes.Equal(EncodeRecord(r, testID), b) || r.validate() != nil) {
			t.Error("a record that does not come from the encoder was accepted")
		}
	})
}

func FuzzFooter(f *testing.F) {
	whole, _ := build(chunks(0, 3), true)
	f.Add(whole)
	empty, _ := build(nil, true)
	f.Add(empty)
	f.Fuzz(func(t *testing.T, b []byte) {
		es, err := ReadFooter(bytes.NewReader(b), int64(len(b)), testID)
		if err != nil {
			return
		}
		last := int64(HeaderSize)
		for _, e := range es {
			if e.Off < last || e.End() > int64(len(b)) || e.validate() != nil {
				t.Fatalf("entry at %d of a file of %d bytes", e.Off, len(b))
			}
			last = e.End()
		}
	})
}

func FuzzScan(f *testing.F) {
	whole, _ := build(chunks(0, 3), false)
	f.Add(whole)
	f.Add(append(whole[:700:700], whole[300:]...))
	f.Fuzz(func(t *testing.T, b []byte) {
		sc := &Scanner{R: bytes.NewReader(b), ID: testID, Size: int64(len(b)), Sound: func(e Entry) error {
			if crypto.Sum(b[e.Off+RecordSize:e.End()]) != e.Sum {
				t.Fatalf("the record at %d is not sound", e.Off)
			}
			return nil
		}}
		if res, err := sc.Scan(context.Background(), min(HeaderSize, int64(len(b)))); err != nil || res.End > int64(len(b)) {
			t.Fatalf("%+v, %v", res, err)
		}
	})
}
