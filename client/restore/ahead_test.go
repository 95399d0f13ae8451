package restore

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/client/backup"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/wiretest"
)

// far is a Source whose Readers are those of a server far away: they answer
// only once so many chunks have been asked for together.
type far struct {
	wire.Source
	pieces int
	bytes  int64
	eager  bool // answers at once

	mu        sync.Mutex
	now, most int
	asked     map[chunkstore.ID]int
	full      chan struct{} // closed when the window has once been full
}

func newFar(m *wiretest.Memory) *far {
	return &far{Source: m, pieces: 8, bytes: 32 << 20, asked: make(map[chunkstore.ID]int), full: make(chan struct{})}
}

func (f *far) Open(ctx context.Context, s wire.Snapshot) (wire.Reader, error) {
	r, err := f.Source.Open(ctx, s)
	if err != nil {
		return nil, err
	}
	return farReader{r, f}, nil
}

type farReader struct {
	wire.Reader
	far *far
}

func (r farReader) Window() (int, int64) { return r.far.pieces, r.far.bytes }

func (r farReader) Get(ctx context.Context, ref chunkstore.Ref) (chunkstore.Blob, error) {
	return r.GetInto(ctx, ref, nil)
}

func (r farReader) GetInto(ctx context.Context, ref chunkstore.Ref, room []byte) (chunkstore.Blob, error) {
	f := r.far
	f.mu.Lock()
	f.now++
	f.most = max(f.most, f.now)
	f.asked[ref.ID]++
	if f.now == f.pieces && !f.eager {
		f.eager = true
		close(f.full)
	}
	eager := f.eager
	f.mu.Unlock()
	defer func() {
		f.mu.Lock()
		f.now--
		f.mu.Unlock()
	}()
	if !eager {
		select {
		case <-f.full:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	s, err := r.Reader.Get(ctx, ref)
	if err != nil {
		return nil, err
	}
	return append(room[:0], s...), nil
}

// As many chunks are asked for as the reader wants, and no more, however few
// workers there are.
func TestFarSourcesAreKeptBusy(t *testing.T) {
	want := content(3, 24<<20)
	m := stored(t, want)
	f := newFar(m)
	path := filepath.Join(t.TempDir(), "out.raw")
	o := options(t, m, path)
	o.Source, o.Workers = f, 2
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustRead(t, path), want) {
		t.Error("what comes back differs")
	}
	if f.most != f.pieces {
		t.Errorf("%d chunks were asked for at once, want %d", f.most, f.pieces)
	}
	for id, n := range f.asked {
		if n > 1 {
			t.Errorf("chunk %s was asked for %d times", id.Short(), n)
		}
	}
}

// A chunk that occurs often is held until its last use.
func TestFarSourceOfEqualChunks(t *testing.T) {
	piece := content(9, 4<<20)
	want := bytes.Repeat(piece, 12)
	m := stored(t, want, func(o *backup.Options) {
		path := filepath.Join(t.TempDir(), "in.raw")
		writeFile(t, path, want)
		o.Fixed, o.Archives[0].Path = true, path
	})
	f := newFar(m)
	f.eager = true
	path := filepath.Join(t.TempDir(), "out.raw")
	o := options(t, m, path)
	o.Source = f
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustRead(t, path), want) {
		t.Error("what comes back differs")
	}
}

func TestDifferentialRestoreFromAfar(t *testing.T) {
	want := content(3, 20<<20)
	m := stored(t, want)
	f := newFar(m)
	f.eager = true
	path := filepath.Join(t.TempDir(), "out.raw")
	old := bytes.Clone(want)
	copy(old[9<<20:], make([]byte, 100))
	writeFile(t, path, old)
	o := options(t, m, path)
	o.Source, o.Differential = f, true
	if _, err := Run(t.Context(), o); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(mustRead(t, path), want) {
		t.Error("what comes back differs")
	}
	if len(f.asked) != 1 {
		t.Errorf("%d chunks were asked for, one has changed", len(f.asked))
	}
}

// However a restore ends, nothing goes on behind it.
func TestFarRestoreEndsWhole(t *testing.T) {
	b := content(5, 20<<20)
	ended := errors.New("no room")
	for name, want := range map[string]error{"cancelled": context.Canceled, "target fails": ended, "chunk missing": chunkstore.ErrNotExist} {
		t.Run(name, func(t *testing.T) {
			m := stored(t, b)
			f := newFar(m)
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			o := options(t, m, "-")
			o.Source, o.Out = f, &bytes.Buffer{}
			switch want {
			case context.Canceled:
				f.pieces = 1 << 20 // never full: everything waits
				time.AfterFunc(10*time.Millisecond, cancel)
			case ended:
				o.Out = failing{ended}
			default:
				drop(t, m)
			}
			before := runtime.NumGoroutine()
			if _, err := Run(ctx, o); !errors.Is(err, want) {
				t.Fatalf("error is %v, want %v", err, want)
			}
			f.mu.Lock()
			defer f.mu.Unlock()
			if f.now > 0 {
				t.Errorf("%d chunks are still being asked for", f.now)
			}
			for i := 0; runtime.NumGoroutine() > before && i < 10_000; i++ {
				time.Sleep(time.Millisecond)
			}
			if now := runtime.NumGoroutine(); now > before {
				t.Errorf("%d goroutines, %d before", now, before)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }

// drop removes a chunk in the middle of the image.
func drop(t *testing.T, m *wiretest.Memory) {
	t.Helper()
	r, err := m.Open(t.Context(), snap)
	if err != nil {
		t.Fatal(err)
	}
	idx, err := r.Index(t.Context(), "disk0.img.didx")
	if err != nil {
		t.Fatal(err)
	}
	e, err := idx.At(idx.Count() / 2)
	if err != nil {
		t.Fatal(err)
	}
	m.Drop(e.ID, nil)
}

func writeFile(t *testing.T, path string, b []byte) {
	t.Helper()
	if err := os.WriteFile(path, b, 0o600); err != nil {
		t.Fatal(err)
	}
}
