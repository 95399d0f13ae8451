package image_test

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/blob"
	"holdfast/crypto"
	"holdfast/datastore/image"
	"holdfast/datastore/manifest"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

var snap = wire.Snapshot{Group: wire.Group{Type: "vm", ID: "100"}, Time: 1000}

func testKey(t *testing.T) *crypto.Key {
	t.Helper()
	k, err := crypto.NewKey(bytes.Repeat([]byte{7}, 32))
	if err != nil {
		t.Fatal(err)
	}
	return k
}

// open stores the contents as chunks and opens the archive.
func open(t *testing.T, key *crypto.Key, contents ...string) (*wiretest.Memory, *image.Image) {
	t.Helper()
	m := &wiretest.Memory{}
	wiretest.Store(t, m, wiretest.Content{Snapshot: snap, Key: key, Chunks: contents})
	img, err := reopen(t, m, key)
	if err != nil {
		t.Fatal(err)
	}
	return m, img
}

func reopen(t *testing.T, m *wiretest.Memory, key *crypto.Key) (*image.Image, error) {
	t.Helper()
	r, err := m.Open(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	mf, err := image.OpenManifest(t.Context(), r, image.Trust{Key: key})
	if err != nil {
		return nil, err
	}
	img, err := image.Open(t.Context(), image.Options{Reader: r, File: mf.Files[0], Key: key, Workers: 2})
	if err == nil {
		t.Cleanup(func() { img.Close() })
	}
	return img, err
}

// pieces are chunks of many lengths, zeros among them.
func pieces(n int) []string {
	r := rand.New(rand.NewPCG(1, 2))
	var list []string
	for i := range n {
		b := make([]byte, 1+r.IntN(9000))
		if i%5 == 0 {
			b = make([]byte, 4096*(1+i%3))
		} else {
			for j := range b {
				b[j] = byte(r.IntN(256))
			}
		}
		list = append(list, string(b))
	}
	return list
}

func TestReadAt(t *testing.T) {
	contents := pieces(60)
	want := strings.Join(contents, "")
	for _, key := range []*crypto.Key{nil, testKey(t)} {
		_, img := open(t, key, contents...)
		if img.Size() != int64(len(want)) {
			t.Fatalf("size %d, want %d", img.Size(), len(want))
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 3))
				for range 200 {
					off := r.IntN(len(want))
					p := make([]byte, r.IntN(30000))
					n, err := img.ReadAt(p, int64(off))
					if end := min(off+len(p), len(want)); string(p[:n]) != want[off:end] {
						t.Errorf("read %d at %d: differs", len(p), off)
					} else if (err != nil) != (n < len(p)) || err != nil && !errors.Is(err, io.EOF) {
						t.Errorf("read %d at %d: %d, %v", len(p), off, n, err)
					}
				}
			})
		}
		wg.Wait()
	}
}

func TestReadAtOutside(t *testing.T) {
	_, img := open(t, nil, "content")
	if _, err := img.ReadAt(make([]byte, 1), -1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("before the beginning: %v", err)
	}
	if n, err := img.ReadAt(make([]byte, 1), 7); n != 0 || !errors.Is(err, io.EOF) {
		t.Errorf("at the end: %d %v", n, err)
	}
}

func TestZeroChunksAreKnownByName(t *testing.T) {
	zeros := string(make([]byte, 8192))
	m, img := open(t, testKey(t), zeros, "data")
	e, err := img.Index().At(0)
	if err != nil {
		t.Fatal(err)
	}
	if !img.IsZero(e) {
		t.Error("a zero chunk is not known")
	}
	m.Drop(e.ID, nil) // its name proves the content, so it need not be there
	p := make([]byte, 8192)
	if _, err := img.ReadAt(p, 0); err != nil || string(p) != zeros {
		t.Errorf("read: %v", err)
	}
	if e, err = img.Index().At(1); err != nil || img.IsZero(e) {
		t.Errorf("data is taken for zeros: %v", err)
	}
}

func TestGapIsAnErrorNeverZeros(t *testing.T) {
	contents := pieces(9)
	m, img := open(t, nil, contents...)
	e, err := img.Index().At(3)
	if err != nil {
		t.Fatal(err)
	}
	m.Drop(e.ID, nil)
	p := make([]byte, img.Size())
	n, err := img.ReadAt(p, 0)
	if !errors.Is(err, chunkstore.ErrNotExist) || n > int(e.Off) || !strings.Contains(err.Error(), "disk.img.didx at offset") {
		t.Errorf("read %d bytes: %v; want an error at %d", n, err, e.Off)
	}
}

func TestOtherContentUnderAName(t *testing.T) {
	m, img := open(t, nil, "the right content", "another")
	e, err := img.Index().At(0)
	if err != nil {
		t.Fatal(err)
	}
	codec, err := blob.NewCodec(blob.Options{})
	if err != nil {
		t.Fatal(err)
	}
	forged, err := codec.Seal(nil, chunkstore.Plain("the wrong content"))
	if err != nil {
		t.Fatal(err)
	}
	m.Drop(e.ID, forged)
	if _, err := img.Chunk(t.Context(), e, nil); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("chunk: %v", err)
	}
}

func TestIndexMustBeTheManifests(t *testing.T) {
	m := &wiretest.Memory{}
	wiretest.Store(t, m, wiretest.Content{Snapshot: snap, Chunks: []string{"a", "b", "c"}})
	other := &wiretest.Memory{}
	wiretest.Store(t, other, wiretest.Content{Snapshot: snap, Chunks: []string{"a", "c", "b"}})
	m.SetFile(snap, "disk.img.didx", other.File(snap, "disk.img.didx"))
	if _, err := reopen(t, m, nil); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("open: %v", err)
	}
}

func TestManifestMustBeTheSnapshots(t *testing.T) {
	m := &wiretest.Memory{}
	wiretest.Store(t, m, wiretest.Content{Snapshot: snap, Key: testKey(t), Chunks: []string{"a"}})
	mf, err := manifest.Open(m.File(snap, wire.ManifestName))
	if err != nil {
		t.Fatal(err)
	}
	mf.ID = "101"
	if err := mf.Sign(testKey(t)); err != nil {
		t.Fatal(err)
	}
	sealed, err := mf.Seal()
	if err != nil {
		t.Fatal(err)
	}
	m.SetFile(snap, wire.ManifestName, sealed)
	if _, err := reopen(t, m, testKey(t)); !errors.Is(err, crypto.ErrTampered) {
		t.Errorf("open: %v", err)
	}
}

func TestKeyIsNeeded(t *testing.T) {
	m, _ := open(t, testKey(t), "a")
	if _, err := reopen(t, m, nil); !errors.Is(err, crypto.ErrNoKey) {
		t.Errorf("open: %v", err)
	}
}

// bounded is a reader of another side, which it does not trust with more than it is told.
type bounded struct {
	wire.Reader
	sizes map[string]uint64
}

func (b *bounded) Bound(sizes map[string]uint64) { b.sizes = sizes }

// Whoever reads the manifest of a snapshot makes it the bound of what is taken of its files: a
// server that sends on and on fills no disk before it is found out.
func TestManifestBoundsItsFiles(t *testing.T) {
	m, img := open(t, nil, "hello ", "world")
	r, err := m.Open(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	b := &bounded{Reader: r}
	if _, err := image.OpenManifest(t.Context(), b, image.Trust{}); err != nil {
		t.Fatal(err)
	}
	if got := b.sizes["disk.img.didx"]; int64(got) != img.Size() {
		t.Errorf("the index is bounded by %v, want %d bytes", b.sizes, img.Size())
	}
}
