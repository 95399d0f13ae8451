package client

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// until waits for a condition that comes about by itself.
func until(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for range 20_000 {
		if ok() {
			return
		}
		time.Sleep(time.Millisecond)
	}
	t.Fatalf("%s did not come about", what)
}

func noiseChunk(t *testing.T, seed byte, size int) chunkstore.Chunk {
	b := make([]byte, size)
	rand.NewChaCha8([32]byte{seed}).Read(b)
	return chunkOf(t, b)
}

// Only so many large bodies are on their way at once, and small ones pass them.
func TestLargeBodiesTakeTurns(t *testing.T) {
	f := newFake(t)
	var begun atomic.Int32
	read := make(chan struct{})
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "_chunk") {
			begun.Add(1)
			<-read // until then the body is larger than the window
		}
		return false
	}
	s := begin(t, dial(t, f.options()), snap(1))
	w := create(t, s, "disk.img.didx", -1)
	var puts sync.WaitGroup
	for i := range 3 * bodiesMax {
		c := noiseChunk(t, byte(i), 2<<20)
		puts.Go(func() {
			if _, err := w.PutChunk(t.Context(), c); err != nil {
				t.Error(err)
			}
		})
	}
	until(t, "a full line", func() bool { return begun.Load() == bodiesMax })
	if err := s.Blob(t.Context(), "small.conf.blob", noiseChunk(t, 99, 500).Blob); err != nil {
		t.Errorf("a small body: %v", err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Millisecond)
	defer cancel()
	if _, err := w.PutChunk(ctx, noiseChunk(t, 98, 2<<20)); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("a body whose turn does not come: %v", err)
	}
	if n := begun.Load(); n != bodiesMax {
		t.Errorf("%d bodies are on their way", n)
	}
	close(read)
	puts.Wait()
	if n := len(s.(*session).conn.turns); n > 0 {
		t.Errorf("%d turns were not given back", n)
	}
}

// Whatever a session was doing, nothing of it is left when it has been closed.
func TestSessionsEndWhole(t *testing.T) {
	f := newFake(t)
	c := dial(t, f.options())
	if _, err := c.Groups(t.Context(), ""); err != nil {
		t.Fatal(err)
	}
	before := runtime.NumGoroutine()
	hold := make(chan struct{})
	var begun atomic.Int32
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "_chunk") && begun.Add(1) > 3 {
			select {
			case <-hold:
			case <-r.Context().Done():
			}
		}
		return false
	}
	s, err := c.Begin(t.Context(), snap(1))
	if err != nil {
		t.Fatal(err)
	}
	w := create(t, s, "disk.img.didx", -1)
	var puts sync.WaitGroup
	var failed atomic.Int32
	for i := range 20 {
		chunk := noiseChunk(t, byte(i), 100_000)
		puts.Go(func() {
			if _, err := w.PutChunk(t.Context(), chunk); err != nil {
				failed.Add(1)
			}
		})
	}
	until(t, "some uploads", func() bool { return begun.Load() > 3 })
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	puts.Wait()
	close(hold)
	if failed.Load() == 0 {
		t.Error("uploads went on after the end of the session")
	}
	until(t, "the end of all goroutines", func() bool { return runtime.NumGoroutine() <= before })
}

func TestBusySessionIsTriedAgain(t *testing.T) {
	f := newFake(t)
	c := dial(t, f.options())
	first := begin(t, c, snap(1))
	var tries atomic.Int32
	f.before = func(_ http.ResponseWriter, r *http.Request) bool {
		if strings.HasSuffix(r.URL.Path, "/backup") && tries.Add(1) == 2 {
			first.Close() // as one whose client has gone
		}
		return false
	}
	begin(t, c, snap(2)).Close()
	if tries.Load() < 2 {
		t.Error("the group was never busy")
	}
	held := begin(t, c, snap(2))
	defer held.Close()
	if _, err := c.Begin(t.Context(), snap(3)); !errors.Is(err, wire.ErrBusy) {
		t.Errorf("a group that stays busy: %v", err)
	}
}

func TestConnectionsFollowTheDistance(t *testing.T) {
	for round, want := range map[time.Duration]int{time.Millisecond: 1, 50 * time.Millisecond: 2, 150 * time.Millisecond: 4, 3 * time.Second: 4} {
		c := &Client{}
		c.met(round + time.Second)
		c.met(round)
		c.met(round + time.Hour)
		if got := c.connections(); got != want {
			t.Errorf("%v: %d connections, want %d", round, got, want)
		}
		c.opts.Connections = 7
		if got := c.connections(); got != 7 {
			t.Errorf("%d connections, 7 were asked for", got)
		}
	}
}
