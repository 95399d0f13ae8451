package pack

import (
	"cmp"
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack/catalogue"
	"holdfast/chunkstore/pack/packfile"
	"holdfast/chunkstore/storetest"
	"holdfast/crypto"
)

var bg = context.Background()

// smallPacks makes a pack hold about ten of the chunks that chunks makes.
var smallPacks = Options{PackSize: 10_000}

// tempDir makes a directory in memory if the machine has a file system there:
// these tests sync thousands of times, and make their own faults.
func tempDir(t testing.TB) string {
	t.Helper()
	dir, err := os.MkdirTemp("/dev/shm", "holdfast-test-")
	if err != nil {
		return t.TempDir()
	}
	t.Cleanup(func() {
		if err := os.RemoveAll(dir); err != nil {
			t.Errorf("remove %s: %v", dir, err)
		}
	})
	return dir
}

// create makes an empty store.
func create(t testing.TB) string {
	t.Helper()
	dir := tempDir(t)
	if err := Create(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// A catalogue that is built anew is sorted in parts, if it is not very small.
func openAt(t testing.TB, dir string, o Options) *Store {
	t.Helper()
	o.rebuildBatch = cmp.Or(o.rebuildBatch, 16)
	s, err := Open(bg, dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// chunks makes n chunks of about 1,000 bytes.
func chunks(first, n int) []chunkstore.Chunk {
	cs := make([]chunkstore.Chunk, n)
	for i := range cs {
		cs[i] = storetest.Chunk(uint64(first+i), 900+(first+i)%200)
	}
	return cs
}

// fill puts chunks in one session, syncs, and waits until full packs are
// sealed.
func fill(t testing.TB, s *Store, cs []chunkstore.Chunk) {
	t.Helper()
	se, err := s.Begin(bg)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range cs {
		if _, err := se.Put(bg, c); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(se.Sync(bg), se.Close()); err != nil {
		t.Fatal(err)
	}
	s.sealDone.Wait()
}

func closeStore(t testing.TB, s *Store) {
	t.Helper()
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func holdsAll(t testing.TB, s *Store, cs []chunkstore.Chunk) {
	t.Helper()
	for _, c := range cs {
		storetest.Holds(t, s, c)
	}
}

// replace stores a chunk though it is there.
func replace(se chunkstore.Session, c chunkstore.Chunk) error {
	_, err := se.(*session).put(bg, c, true)
	return err
}

// current tells where a chunk is read from, condemned or not.
func (s *Store) current(k chunkstore.Key) (catalogue.Location, bool) {
	l, ok, err := s.find(bg, k)
	return l, ok && err == nil
}

// kill ends a store as if its process had been killed: nothing more is
// written, files and lock are gone.
func kill(t testing.TB, s *Store) {
	t.Helper()
	s.sealDone.Wait()
	s.mu.Lock()
	s.closed = true
	for _, w := range s.writers {
		w.close()
	}
	s.mu.Unlock()
	s.handles.closeAll()
	if err := errors.Join(s.cat.Close(), s.lock.release()); err != nil {
		t.Fatal(err)
	}
}

// copyTree copies a directory of files.
func copyTree(t testing.TB, from string) string {
	t.Helper()
	to := tempDir(t)
	if err := os.CopyFS(to, os.DirFS(from)); err != nil {
		t.Fatal(err)
	}
	return to
}

// packsIn returns the pack files of a store.
func packsIn(t testing.TB, dir string) []packfile.File {
	t.Helper()
	fs, err := packfile.List(packsDir(dir))
	if err != nil {
		t.Fatal(err)
	}
	return fs
}

func packPath(dir string, p packfile.File) string { return filepath.Join(packsDir(dir), p.Name()) }

// edit changes the bytes of a file in place.
func edit(t testing.TB, path string, change func([]byte) []byte) {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	b = change(b)
	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_TRUNC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.Write(b)
	if err := errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
}

func flip(at int) func([]byte) []byte {
	return func(b []byte) []byte {
		b[at] ^= 0x10
		return b
	}
}

// where returns the pack file and offset of a chunk.
func where(t testing.TB, s *Store, c chunkstore.Chunk) (packfile.File, catalogue.Location) {
	t.Helper()
	l, ok, err := s.lookup(bg, c.Key())
	if err != nil || !ok {
		t.Fatalf("chunk %s: %v, %v", c.ID, ok, err)
	}
	p := s.packs[l.Pack]
	return packfile.File{ID: p.ID, State: p.State}, l
}

var testPack = packfile.ID{1, 2, 3, 4, 5, 6, 7, 8}

// buildPack makes the bytes of a pack, with a footer or without.
func buildPack(cs []chunkstore.Chunk, sealed bool) ([]byte, []packfile.Entry) {
	b := packfile.EncodeHeader(testPack, 7)
	var es []packfile.Entry
	for _, c := range cs {
		e := packfile.Entry{Record: packfile.Record{Key: c.Key(), Stored: uint32(len(c.Blob)), Rank: 3, Sum: crypto.Sum(c.Blob)}, Off: int64(len(b))}
		es = append(es, e)
		b = append(append(b, packfile.EncodeRecord(e.Record, testPack)...), c.Blob...)
	}
	if sealed {
		b = append(b, packfile.EncodeFooter(b[:packfile.HeaderSize], es, int64(len(b)))...)
	}
	return b, es
}
