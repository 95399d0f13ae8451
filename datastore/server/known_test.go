package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/semaphore"

	"holdfast/chunkstore"
)

func TestKnown(t *testing.T) {
	total := &account{max: 3}
	k := newKnown(total)
	k.max = 2
	id := func(b byte) chunkstore.ID { return chunkstore.ID{b} }
	for _, step := range []struct {
		id   byte
		size uint32
		bad  bool
	}{{1, 10, false}, {2, 20, false}, {1, 11, false}, {3, 30, true}} {
		if err := k.add(id(step.id), step.size); errors.Is(err, chunkstore.ErrInvalid) != step.bad {
			t.Errorf("add %d: %v", step.id, err)
		}
	}
	if size, ok := k.size(id(1)); !ok || size != 11 {
		t.Errorf("size of 1: %d, %v", size, ok)
	}
	if _, ok := k.size(id(3)); ok {
		t.Error("a refused chunk is known")
	}
	other := newKnown(total)
	if err := other.add(id(1), 1); err != nil {
		t.Error(err)
	}
	if err := other.add(id(2), 1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("beyond what all sessions may have: %v", err)
	}
	k.free()
	if err := other.add(id(2), 1); err != nil {
		t.Error(err)
	}
	other.free()
	if total.used != 0 {
		t.Errorf("%d are still counted", total.used)
	}
}

func TestBodiesWaitForMemory(t *testing.T) {
	b := newBodies(chunkstore.SealedSizeMax)
	first, err := b.borrow(context.Background(), nil, chunkstore.SealedSizeMax)
	if err != nil || len(first.data) != chunkstore.SealedSizeMax {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.borrow(ctx, nil, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("more than there is: %v", err)
	}
	if _, err := b.borrow(context.Background(), nil, chunkstore.SealedSizeMax+1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("larger than any chunk: %v", err)
	}
	if _, err := b.borrowSoon(context.Background(), nil, 1); !errors.Is(err, errCrowded) {
		t.Errorf("more than there is soon: %v", err)
	}
	if _, err := b.borrowSoon(ctx, nil, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	first.free()
	share := semaphore.NewWeighted(64 << 10)
	if _, err := b.borrowSoon(context.Background(), share, 100<<10); !errors.Is(err, errCrowded) {
		t.Errorf("more than the session's share: %v", err)
	}
	share = semaphore.NewWeighted(chunkstore.SealedSizeMax)
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 4<<20 + 44, 4<<20 + 4<<10 + 1} {
		l, err := b.borrow(context.Background(), share, size)
		if err != nil || len(l.data) != size {
			t.Fatalf("%d bytes: %v", size, err)
		}
		l.free()
	}
	if !b.budget.TryAcquire(chunkstore.SealedSizeMax) || !share.TryAcquire(chunkstore.SealedSizeMax) {
		t.Error("memory was not given back")
	}
}

func TestFill(t *testing.T) {
	for text, want := range map[string]error{"abcd": nil, "abc": errBodyShort, "": errBodyShort, "abcde": errBodyLong} {
		got := make([]byte, 4)
		for name, r := range map[string]io.Reader{"whole": strings.NewReader(text), "bytewise": io.MultiReader(strings.NewReader(text[:len(text)/2]), strings.NewReader(text[len(text)/2:]))} {
			if err := fill(got, r); !errors.Is(err, want) {
				t.Errorf("%q %s: %v, want %v", text, name, err, want)
			}
			if want == nil && !bytes.Equal(got, []byte(text)) {
				t.Errorf("%q became %q", text, got)
			}
		}
	}
}

func TestGate(t *testing.T) {
	var g gate
	if !g.enter() {
		t.Fatal("the gate is shut")
	}
	shut := make(chan struct{})
	go func() {
		g.shut()
		close(shut)
	}()
	for g.enter() { // until it has begun to shut
		g.inside.Done()
		time.Sleep(time.Millisecond)
	}
	select {
	case <-shut:
		t.Error("it did not wait for who is inside")
	default:
	}
	g.inside.Done()
	<-shut
}
