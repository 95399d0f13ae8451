package image_test

import (
	"bytes"
	"errors"
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

// read is the content of an image, without a look at the chunks that are known to hold zeros.
func read(t *testing.T, img *image.Image) ([]byte, error) {
	t.Helper()
	var all []byte
	for e, err := range img.Index().All(0) {
		if err != nil {
			return all, err
		}
		plain := make(chunkstore.Plain, e.Size)
		if !img.IsZero(e) {
			if plain, err = img.Chunk(t.Context(), e, nil); err != nil {
				return all, err
			}
		}
		all = append(all, plain...)
	}
	return all, nil
}

// Any chunk can be read at any time, by many at once, into a buffer that was used before.
func TestChunks(t *testing.T) {
	contents := pieces(60)
	for _, key := range []*crypto.Key{nil, testKey(t)} {
		_, img := open(t, key, contents...)
		if want := len(strings.Join(contents, "")); img.Size() != int64(want) {
			t.Fatalf("size %d, want %d", img.Size(), want)
		}
		var wg sync.WaitGroup
		for g := range 4 {
			wg.Go(func() {
				r := rand.New(rand.NewPCG(uint64(g), 3))
				var buf chunkstore.Plain
				for range 200 {
					i := r.IntN(len(contents))
					e, err := img.Index().At(int64(i))
					if err == nil {
						buf, err = img.Chunk(t.Context(), e, buf)
					}
					if err != nil || string(buf) != contents[i] {
						t.Errorf("chunk %d differs, %v", i, err)
					}
				}
			})
		}
		wg.Wait()
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
	if got, err := read(t, img); err != nil || string(got) != zeros+"data" {
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
	got, err := read(t, img)
	if !errors.Is(err, chunkstore.ErrNotExist) || len(got) != int(e.Off) || !strings.Contains(err.Error(), "disk.img.didx at offset") {
		t.Errorf("read %d bytes: %v; want an error at %d", len(got), err, e.Off)
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
	forged, err := codec.Encode(nil, chunkstore.Plain("the wrong content"))
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
	raw, err := mf.Blob()
	if err != nil {
		t.Fatal(err)
	}
	m.SetFile(snap, wire.ManifestName, raw)
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
