package pipeline

import (
	"context"
	"errors"
	"math/rand/v2"
	"sync"
	"testing"
	"time"
)

func TestWindowBounds(t *testing.T) {
	const pieces, bytes = 10, 8 << 20
	w := NewWindow(pieces, bytes)
	var mu sync.Mutex
	alive, most, sum, sumMost := 0, 0, 0, 0
	var wg sync.WaitGroup
	for g := range 30 {
		wg.Go(func() {
			r := rand.New(rand.NewPCG(uint64(g), 1))
			for range 60 {
				size := r.IntN(3 << 20)
				b, err := w.Take(t.Context(), size)
				if err != nil || len(b) != 0 || cap(b) < size {
					t.Errorf("take %d: %d of %d, %v", size, len(b), cap(b), err)
					return
				}
				mu.Lock()
				alive, sum = alive+1, sum+cap(b)
				most, sumMost = max(most, alive), max(sumMost, sum)
				mu.Unlock()
				b = append(b, byte(g))
				if r.IntN(3) == 0 {
					time.Sleep(time.Microsecond)
				}
				if b[0] != byte(g) {
					t.Error("somebody else has the same buffer")
				}
				mu.Lock()
				alive, sum = alive-1, sum-cap(b)
				mu.Unlock()
				w.Give(b)
			}
		})
	}
	wg.Wait()
	if most > pieces || sumMost > bytes || w.held > bytes {
		t.Errorf("%d buffers of %d bytes at once, %d kept", most, sumMost, w.held)
	}
	if most < 3 {
		t.Errorf("never more than %d at once", most)
	}
}

func TestWindowUsesBuffersAgain(t *testing.T) {
	w := NewWindow(4, 4<<20)
	first, err := w.Take(t.Context(), 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	first = append(first, 1)
	w.Give(first)
	second, ok := w.TryTake(1<<20 - 5)
	if !ok || &second[:1][0] != &first[0] {
		t.Error("the buffer was not used again")
	}
}

func TestWindowIsFull(t *testing.T) {
	w := NewWindow(2, 1<<20)
	first, err := w.Take(t.Context(), 100<<20) // alone, but not never
	if err != nil || cap(first) < 100<<20 {
		t.Fatalf("take: %v", err)
	}
	if _, ok := w.TryTake(1); ok {
		t.Error("there was room beside a buffer of everything")
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := w.Take(ctx, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("take: %v", err)
	}
	w.Give(first)
	if b, ok := w.TryTake(1); !ok || w.held > 1<<20 {
		t.Errorf("%d bytes are kept, room %v", w.held, b != nil)
	}
}
