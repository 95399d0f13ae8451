package catalogue

import (
	"bytes"
	"errors"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/packfile"
)

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
		defer c.Close()
		var at chunkstore.Key
		for done := false; !done; {
			var err error
			if at, done, err = c.Scan(at, 100, func(chunkstore.Key, Location) {}); err != nil {
				t.Fatalf("bbolt cannot read what was found sound: %v", err)
			}
		}
	})
}

func FuzzCatalogueValues(f *testing.F) {
	key := chunkstore.Key{ID: chunkstore.ID{1}}.Append(nil)
	l := Location{Pack: 1, Off: 64, Stored: 100}
	f.Add(key, encodeLocation(key, l))
	l.Sum[0] = 1
	f.Add(key, encodeLocation(key, l.Claiming(3, packfile.Entry{Off: 900})))
	f.Add(packKey(3), encodePackInfo(3, PackInfo{ID: packfile.ID{1}, State: packfile.StateOpen, Length: 64}))
	f.Fuzz(func(t *testing.T, k, v []byte) {
		if l, err := decodeLocation(k, v); err == nil && (l.Off < packfile.HeaderSize || l.Stored > chunkstore.BlobSizeMax) {
			t.Errorf("%+v", l)
		}
		if _, p, err := decodePackInfo(k, v); err == nil && p.Length < 0 {
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
