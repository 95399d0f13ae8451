package datastore_test

import (
	"fmt"
	"testing"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore"
	"holdfast/datastore/index"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
)

// BenchmarkFinish finishes snapshots of 200,000 chunks that are all in the store.
func BenchmarkFinish(b *testing.B) {
	const chunks = 200_000
	path := b.TempDir() + "/store"
	if err := datastore.Create(path, datastore.CreateOptions{}); err != nil {
		b.Fatal(err)
	}
	s, err := datastore.Open(b.Context(), path, datastore.Options{})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	entries := storeMany(b, s, chunks)
	b.ResetTimer()
	for i := range b.N {
		b.StopTimer()
		ss := sessionOf(b, s, int64(i)+10, entries)
		b.StartTimer()
		if err := ss.Finish(b.Context()); err != nil {
			b.Fatal(err)
		}
		b.StopTimer()
		ss.Close()
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/chunks, "ns/reference")
}

// storeMany puts chunks into the store that differ.
func storeMany(b *testing.B, s *datastore.Store, n int) (entries []index.Entry) {
	b.Helper()
	codec := plainCodec(b)
	ss, err := s.BeginSession(b.Context(), datastore.SessionOptions{Snapshot: at(1)})
	if err != nil {
		b.Fatal(err)
	}
	defer ss.Close()
	for i := range n {
		content := chunkstore.Plain(fmt.Sprintf("chunk number %d", i))
		raw, err := codec.Encode(nil, content)
		if err != nil {
			b.Fatal(err)
		}
		c := chunkstore.Chunk{ID: codec.Name(content), PlainSize: uint32(len(content)), Blob: raw}
		if _, err := ss.PutChunk(b.Context(), "disk.img.didx", c); err != nil {
			b.Fatal(err)
		}
		var off uint64
		if i > 0 {
			off = entries[i-1].Off + uint64(entries[i-1].Size)
		}
		entries = append(entries, index.Entry{Off: off, Size: c.PlainSize, ID: c.ID})
	}
	writeImage(b, ss, entries)
	if err := ss.Finish(b.Context()); err != nil {
		b.Fatal(err)
	}
	return entries
}

// sessionOf is a session that has nothing left to do but to finish.
func sessionOf(b *testing.B, s *datastore.Store, time int64, entries []index.Entry) *datastore.Session {
	b.Helper()
	ss, err := s.BeginSession(b.Context(), datastore.SessionOptions{Snapshot: at(time)})
	if err != nil {
		b.Fatal(err)
	}
	writeImage(b, ss, entries)
	return ss
}

func writeImage(b *testing.B, ss *datastore.Session, entries []index.Entry) {
	b.Helper()
	w, err := ss.Create(b.Context(), "disk.img.didx", -1)
	if err != nil {
		b.Fatal(err)
	}
	sum := index.NewSummer(index.Dynamic)
	for _, e := range entries {
		sum.Add(e)
	}
	if err := w.Append(b.Context(), entries); err != nil {
		b.Fatal(err)
	}
	if err := w.Close(b.Context(), sum.Summary()); err != nil {
		b.Fatal(err)
	}
	sm := sum.Summary()
	snap := ss.Snapshot()
	m := manifest.Manifest{Type: snap.Group.Type, ID: snap.Group.ID, Time: snap.Time,
		Files: []manifest.File{{Name: "disk.img.didx", CryptMode: crypto.ModeNone, Size: sm.Size, Csum: sm.Csum}}}
	raw, err := m.Blob()
	if err != nil {
		b.Fatal(err)
	}
	if err := ss.Blob(b.Context(), wire.ManifestName, raw); err != nil {
		b.Fatal(err)
	}
}
