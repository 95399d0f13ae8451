package pack_test

import (
	"context"
	"errors"
	"sync"
	"testing"

	"holdfast/chunkstore"
	"holdfast/chunkstore/pack"
	"holdfast/chunkstore/storetest"
)

func open(t *testing.T, o pack.Options) (dir string, s *pack.Store) {
	t.Helper()
	dir = t.TempDir()
	if err := pack.Create(dir); err != nil {
		t.Fatal(err)
	}
	s, err := pack.Open(context.Background(), dir, o)
	if err != nil {
		t.Fatal(err)
	}
	return dir, s
}

func TestConformance(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunkstore.Store {
		_, s := open(t, pack.Options{})
		return s
	})
}

func TestConformanceSmallPacks(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunkstore.Store {
		_, s := open(t, pack.Options{PackSize: 4096})
		return s
	})
}

// reopening is a pack store that is closed and opened again whenever its last
// session ends, so that everything is read from disk.
type reopening struct {
	t   *testing.T
	dir string
	o   pack.Options

	mu   sync.Mutex
	s    *pack.Store
	open int // sessions
}

func TestConformanceReopened(t *testing.T) {
	storetest.Run(t, func(t *testing.T) chunkstore.Store {
		o := pack.Options{PackSize: 100_000}
		dir, s := open(t, o)
		return &reopening{t: t, dir: dir, o: o, s: s}
	})
}

func (r *reopening) store() *pack.Store {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.s
}

func (r *reopening) Get(ctx context.Context, k chunkstore.Key) (chunkstore.Blob, error) {
	return r.store().Get(ctx, k)
}

func (r *reopening) Stat(ctx context.Context, k chunkstore.Key) (chunkstore.Info, error) {
	return r.store().Stat(ctx, k)
}

func (r *reopening) Check(ctx context.Context, k chunkstore.Key) error {
	return r.store().Check(ctx, k)
}

func (r *reopening) Walk(ctx context.Context, fn func(chunkstore.Key, chunkstore.Info) error) error {
	return r.store().Walk(ctx, fn)
}

func (r *reopening) Close() error { return r.store().Close() }

func (r *reopening) Begin(ctx context.Context) (chunkstore.Session, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	se, err := r.s.Begin(ctx)
	if err != nil {
		return nil, err
	}
	r.open++
	return &reopeningSession{Session: se, r: r}, nil
}

type reopeningSession struct {
	chunkstore.Session
	r    *reopening
	once sync.Once
}

func (se *reopeningSession) Close() error {
	err := se.Session.Close()
	se.once.Do(func() {
		r := se.r
		r.mu.Lock()
		defer r.mu.Unlock()
		if r.open--; r.open > 0 {
			return
		}
		if err = errors.Join(err, r.s.Close()); err != nil {
			return
		}
		r.s, err = pack.Open(context.Background(), r.dir, r.o)
	})
	return err
}
