package datastore

import (
	"bytes"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

func FuzzDecodeResume(f *testing.F) {
	key := newResumeKey(wire.Group{Type: "vm", ID: "100"}, wire.RootUser)
	head := append([]byte(resumeMagic), key[:]...)
	f.Add(head)
	f.Add(head[:len(head)-1])
	f.Add(wire.ChunkSize{ID: chunkstore.ID{1}, Size: 4096}.Append(head))
	f.Add(appendResumed(head, chunkstore.Ref{ID: chunkstore.ID{1}, Size: 4096, Class: chunkstore.ClassEncrypted}))
	f.Add(append(wire.ChunkSize{ID: chunkstore.ID{1}, Size: chunkstore.PlainSizeMax + 1}.Append(head), 1, 2, 3))
	f.Fuzz(func(t *testing.T, raw []byte) {
		key, list, ok := decodeResume(raw)
		if !ok {
			return
		}
		again := append([]byte(resumeMagic), key[:]...)
		for _, c := range list {
			if c.Size > chunkstore.PlainSizeMax {
				t.Fatalf("a chunk of %d bytes", c.Size)
			}
			again = appendResumed(again, c)
		}
		if !bytes.HasPrefix(raw, again) {
			t.Fatal("what was read is not what stands there")
		}
	})
}
