package pipeline

import (
	"context"
	"errors"
	"iter"
	"math/rand/v2"
	"runtime"
	"sync/atomic"
	"testing"
	"time"
)

func count(n int) iter.Seq2[int, error] {
	return func(yield func(int, error) bool) {
		for i := range n {
			if !yield(i, nil) {
				return
			}
		}
	}
}

func TestOrderedKeepsOrderAndBounds(t *testing.T) {
	const n, workers, depth = 2000, 4, 9
	var working, alive, workingMost, aliveMost atomic.Int64
	raise := func(now int64, most *atomic.Int64) {
		for old := most.Load(); now > old && !most.CompareAndSwap(old, now); old = most.Load() {
		}
	}
	var got []int
	err := Ordered(t.Context(), Limits{Workers: workers, Depth: depth}, count(n), Stages[int, int]{
		Work: func(_ context.Context, i int) (int, error) {
			raise(working.Add(1), &workingMost)
			raise(alive.Add(1), &aliveMost)
			if rand.IntN(4) == 0 {
				runtime.Gosched()
			}
			working.Add(-1)
			return i * 2, nil
		},
		Consume: func(v int) error { alive.Add(-1); got = append(got, v); return nil },
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != n {
		t.Fatalf("%d results, want %d", len(got), n)
	}
	for i, v := range got {
		if v != 2*i {
			t.Fatalf("result %d is %d, want %d", i, v, 2*i)
		}
	}
	if workingMost.Load() > workers || aliveMost.Load() > depth {
		t.Errorf("%d worked on at once (limit %d), %d alive (limit %d)", workingMost.Load(), workers, aliveMost.Load(), depth)
	}
}

func TestOrderedReturnsTheFirstErrorAndEnds(t *testing.T) {
	boom := errors.New("boom")
	ok := Stages[int, int]{
		Work:    func(_ context.Context, i int) (int, error) { return i, nil },
		Consume: func(int) error { return nil },
	}
	inWork, inConsume := ok, ok
	inWork.Work = func(_ context.Context, i int) (int, error) {
		if i == 50 {
			return 0, boom
		}
		return i, nil
	}
	inConsume.Consume = func(i int) error {
		if i == 50 {
			return boom
		}
		return nil
	}
	inItems := func(yield func(int, error) bool) {
		for i := range 50 {
			if !yield(i, nil) {
				return
			}
		}
		yield(0, boom)
	}
	for name, c := range map[string]struct {
		items iter.Seq2[int, error]
		s     Stages[int, int]
	}{"work": {count(1000), inWork}, "consume": {count(1000), inConsume}, "items": {inItems, ok}} {
		t.Run(name, func(t *testing.T) {
			before := runtime.NumGoroutine()
			if err := Ordered(t.Context(), Limits{Workers: 3, Depth: 6}, c.items, c.s); !errors.Is(err, boom) {
				t.Fatalf("error is %v, want boom", err)
			}
			for i := 0; runtime.NumGoroutine() > before && i < 10_000; i++ {
				time.Sleep(time.Millisecond)
			}
			if now := runtime.NumGoroutine(); now > before {
				t.Errorf("%d goroutines before, %d after", before, now)
			}
		})
	}
}

func TestOrderedStopsWithItsContext(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	err := Ordered(ctx, Limits{Workers: 2, Depth: 4}, count(1<<30), Stages[int, int]{
		Work: func(_ context.Context, i int) (int, error) { return i, nil },
		Consume: func(i int) error {
			if i == 100 {
				cancel()
			}
			return nil
		},
	})
	if !errors.Is(err, context.Canceled) {
		t.Fatalf("error is %v, want canceled", err)
	}
}

func TestPool(t *testing.T) {
	made := 0
	p := NewPool(2, func() *int { made++; v := made; return &v })
	a, errA := p.Get(t.Context())
	b, errB := p.Get(t.Context())
	if errA != nil || errB != nil || a == b {
		t.Fatalf("Get: %v %v", errA, errB)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := p.Get(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Get from an empty pool: %v", err)
	}
	p.Put(a)
	if c, err := p.Get(t.Context()); err != nil || c != a {
		t.Fatalf("Get after Put: %v %v, want the same thing again", c, err)
	}
	if made != 2 {
		t.Errorf("%d things made, want 2", made)
	}
}
