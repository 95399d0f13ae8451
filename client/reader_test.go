package client

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/index"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

const disk = "disk.img.didx"

// stored is a fake with one snapshot of n chunks.
func stored(t testing.TB, n int) (*fake, []string) {
	f := newFake(t)
	var chunks []string
	for i := range n {
		chunks = append(chunks, fmt.Sprintf("content of chunk %d", i))
	}
	wiretest.Store(t, f.memory, wiretest.Content{Snapshot: snap(10), Chunks: chunks})
	return f, chunks
}

func open(t testing.TB, c *Client) wire.Reader {
	t.Helper()
	r, err := c.Open(t.Context(), snap(10))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r
}

func openIndex(t testing.TB, r wire.Reader) *index.Reader {
	t.Helper()
	idx, err := r.Index(t.Context(), disk)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { idx.Close() })
	return idx
}

// readAll gets every chunk, side by side.
func readAll(t *testing.T, r wire.Reader, idx *index.Reader, want []string) {
	t.Helper()
	c := codec(t)
	var wg sync.WaitGroup
	slots := make(chan struct{}, 8)
	i := 0
	for e, err := range idx.All(0) {
		if err != nil {
			t.Fatal(err)
		}
		content := want[i]
		i++
		slots <- struct{}{}
		wg.Go(func() {
			defer func() { <-slots }()
			raw, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size})
			if err != nil {
				t.Error(err)
				return
			}
			plain, err := c.DecodeChunk(nil, e.ID, raw, int(e.Size))
			if err != nil || string(plain) != content {
				t.Errorf("chunk %s: %q, %v", e.ID.Short(), plain, err)
			}
		})
	}
	wg.Wait()
}

func TestReaderSurvivesLostConnections(t *testing.T) {
	for _, connections := range []int{1, 3} {
		f, chunks := stored(t, 200)
		var n atomic.Int32
		f.before = func(_ http.ResponseWriter, r *http.Request) bool {
			if r.URL.Path == "/chunk" && n.Add(1)%40 == 0 {
				f.cut()
			}
			return false
		}
		o := f.options()
		o.Connections = connections
		r := open(t, dial(t, o))
		readAll(t, r, openIndex(t, r), chunks)
		if f.count("GET /reader") <= connections {
			t.Errorf("%d connections: only %d were made", connections, f.count("GET /reader"))
		}
		if f.count("GET /download") < f.count("GET /reader") {
			t.Errorf("%d downloads over %d connections", f.count("GET /download"), f.count("GET /reader"))
		}
	}
}

func TestReaderGivesUp(t *testing.T) {
	f, _ := stored(t, 2)
	r := open(t, dial(t, f.options()))
	idx := openIndex(t, r)
	e, err := idx.At(0)
	if err != nil {
		t.Fatal(err)
	}
	f.before = func(http.ResponseWriter, *http.Request) bool { f.cut(); return false }
	if _, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size}); err == nil {
		t.Error("no error from a server that always hangs up")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Get(ctx, chunkstore.Ref{ID: e.ID, Size: e.Size}); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
	r.Close()
	if _, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size}); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("after close: %v", err)
	}
}

func TestEveryConnectionDownloadsTheIndex(t *testing.T) {
	f, chunks := stored(t, 30)
	o := f.options()
	o.Connections = 3
	r := open(t, dial(t, o))
	idx := openIndex(t, r)
	readAll(t, r, idx, chunks)
	if got := f.count("GET /reader"); got != 3 {
		t.Errorf("%d connections", got)
	}
	if got := f.count("GET /download"); got != 1+3 {
		t.Errorf("%d downloads, want the manifest and three indexes", got)
	}
}

func TestOneConnectionDownloadsOnce(t *testing.T) {
	f, chunks := stored(t, 30)
	r := open(t, dial(t, f.options()))
	idx := openIndex(t, r)
	readAll(t, r, idx, chunks)
	for range 2 {
		if _, err := r.Blob(t.Context(), wire.ManifestName); err != nil {
			t.Error(err)
		}
	}
	if got := f.count("GET /download"); got != 2 {
		t.Errorf("%d downloads, want the manifest and the index", got)
	}
}

func TestMissingThings(t *testing.T) {
	f, _ := stored(t, 2)
	c := dial(t, f.options())
	if _, err := c.Open(t.Context(), snap(11)); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("snapshot: %v", err)
	}
	r := open(t, c)
	idx := openIndex(t, r)
	if _, err := r.Index(t.Context(), "other.img.didx"); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("index: %v", err)
	}
	e, err := idx.At(0)
	if err != nil {
		t.Fatal(err)
	}
	f.memory.Drop(e.ID, nil)
	if _, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size}); !errors.Is(err, chunkstore.ErrNotExist) {
		t.Errorf("lost chunk: %v", err)
	}
	_, err = r.Get(t.Context(), chunkstore.Ref{ID: chunkstore.ID{9}, Size: 1})
	if !errors.Is(err, chunkstore.ErrNotExist) || errors.Is(err, wire.ErrUnauthenticated) {
		t.Errorf("chunk of another snapshot: %v", err)
	}
}

func TestHostileDownloads(t *testing.T) {
	f, _ := stored(t, 2)
	r := open(t, dial(t, f.options()))
	idx := openIndex(t, r)
	e, err := idx.At(0)
	if err != nil {
		t.Fatal(err)
	}
	f.before = func(w http.ResponseWriter, r *http.Request) bool {
		switch r.URL.Path {
		case "/download":
			io.WriteString(w, "this is no index")
		case "/chunk":
			io.Copy(w, io.LimitReader(endless{}, chunkstore.BlobSizeMax+1))
		default:
			return false
		}
		return true
	}
	if _, err := r.Get(t.Context(), chunkstore.Ref{ID: e.ID, Size: e.Size}); !errors.Is(err, errAnswer) {
		t.Errorf("a chunk that is too large: %v", err)
	}
	if _, err := r.Index(t.Context(), disk); !errors.Is(err, chunkstore.ErrCorrupt) {
		t.Errorf("an index that is none: %v", err)
	}
}

// What the manifest has announced is the most that is taken of a file: a server that
// sends on and on fills no disk.
func TestNoMoreThanAnnounced(t *testing.T) {
	for name, read := range map[string]func(context.Context, wire.Reader) error{
		"an index": func(ctx context.Context, r wire.Reader) error { _, err := r.Index(ctx, disk); return err },
		"a blob": func(ctx context.Context, r wire.Reader) error {
			_, err := r.Blob(ctx, "qemu-server.conf.blob")
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			f, _ := stored(t, 2)
			r := open(t, dial(t, f.options()))
			r.(wire.Bounder).Bound(map[string]uint64{disk: 3000, "qemu-server.conf.blob": 3000})
			f.before = func(w http.ResponseWriter, r *http.Request) bool {
				if r.URL.Path != "/download" {
					return false
				}
				io.Copy(w, io.LimitReader(endless{}, 100<<20))
				return true
			}
			err := read(t.Context(), r)
			if !errors.Is(err, errAnswer) || !strings.Contains(err.Error(), "more than") {
				t.Errorf("%v", err)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	var b bounds
	if b.mostIndex("a.didx") != indexMax || b.mostBlob("a.blob") != chunkstore.BlobSizeMax {
		t.Error("nothing is known, and something is refused")
	}
	b.Bound(map[string]uint64{"a.didx": 3 << 20, "a.blob": 100, "b.didx": 1 << 60, "b.blob": 1 << 60, "c.didx": 0})
	for name, want := range map[string]int64{"a.didx": 4096 + 3<<20*40, "b.didx": indexMax, "c.didx": 4096, "d.didx": indexMax} {
		if got := b.mostIndex(name); got != want {
			t.Errorf("%s: %d bytes, want %d", name, got, want)
		}
	}
	for name, want := range map[string]int{"a.blob": 100, "b.blob": chunkstore.BlobSizeMax, "c.blob": chunkstore.BlobSizeMax} {
		if got := b.mostBlob(name); got != want {
			t.Errorf("%s: %d bytes, want %d", name, got, want)
		}
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

// The index is in a file without a name.
func TestSpoolLeavesNothing(t *testing.T) {
	dir := t.TempDir()
	t.Setenv("TMPDIR", dir)
	f, _ := stored(t, 5)
	idx := openIndex(t, open(t, dial(t, f.options())))
	list, err := os.ReadDir(dir)
	if err != nil || len(list) != 0 {
		t.Errorf("left behind: %v, %v", list, err)
	}
	if idx.Count() != 5 {
		t.Errorf("%d entries", idx.Count())
	}
}

// A machine that has nowhere to keep a file restores all the same.
func TestSpoolWithoutADisk(t *testing.T) {
	f, _ := stored(t, 5)
	r := open(t, dial(t, f.options()))
	t.Setenv("TMPDIR", "/nonexistent")
	if idx := openIndex(t, r); idx.Count() != 5 {
		t.Errorf("%d entries", idx.Count())
	}
	if n := f.count("GET /reader"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

// A disk that is full is not the network's fault, and what does not fit into memory
// is not put there.
func TestSpoolErrorIsNotTriedAgain(t *testing.T) {
	f, _ := stored(t, 5)
	c := dial(t, f.options())
	c.inMemory = 4096
	r := open(t, c)
	t.Setenv("TMPDIR", "/nonexistent")
	if _, err := r.Index(t.Context(), disk); !errors.Is(err, errLocal) {
		t.Errorf("%v", err)
	}
	if n := f.count("GET /reader"); n != 1 {
		t.Errorf("%d connections", n)
	}
}

func TestManifestIsTheCallers(t *testing.T) {
	f, _ := stored(t, 1)
	r := open(t, dial(t, f.options()))
	for range 2 {
		b, err := r.Blob(t.Context(), wire.ManifestName)
		if err != nil || !bytes.Equal(b, f.memory.File(snap(10), wire.ManifestName)) {
			t.Fatalf("manifest: %v", err)
		}
		clear(b)
	}
}
