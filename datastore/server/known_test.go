package server

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/server/ledger"
)

func TestKnown(t *testing.T) {
	total := ledger.New(ledger.Limit{Name: "references", Total: 4, Share: 3})
	alice := ledger.Payer{Account: "alice"}
	k := newKnown(total, alice)
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
	other := newKnown(total, alice)
	if err := other.add(id(1), 1); err != nil {
		t.Error(err)
	}
	if err := other.add(id(2), 1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("beyond what all sessions of a user may have: %v", err)
	}
	if err := newKnown(total, ledger.Payer{Account: "bob"}).add(id(1), 1); err != nil {
		t.Errorf("another user: %v", err)
	}
	k.free()
	if err := other.add(id(2), 1); err != nil {
		t.Error(err)
	}
	other.free()
	if n := total.Of(alice); n != 0 {
		t.Errorf("%d are still counted", n)
	}
}

func TestBodiesWaitForMemory(t *testing.T) {
	alice := ledger.Payer{Account: "alice"}
	b := tight(chunkstore.SealedSizeMax)
	first, err := b.borrow(context.Background(), alice, chunkstore.SealedSizeMax)
	if err != nil || len(first.data) != chunkstore.SealedSizeMax {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := b.borrow(ctx, alice, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("more than there is: %v", err)
	}
	if _, err := b.borrow(context.Background(), alice, chunkstore.SealedSizeMax+1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("larger than any chunk: %v", err)
	}
	if _, err := b.borrowSoon(context.Background(), alice, 1); !errors.Is(err, errCrowded) {
		t.Errorf("more than there is soon: %v", err)
	}
	if _, err := b.borrowSoon(ctx, alice, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	first.free()
	shared := newBodies(ledger.New(ledger.Limit{Name: "memory", Total: chunkstore.SealedSizeMax, Share: 64 << 10}))
	if _, err := shared.borrowSoon(context.Background(), alice, 100<<10); !errors.Is(err, errCrowded) {
		t.Errorf("more than the user's share: %v", err)
	}
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 4<<20 + 44, 4<<20 + 4<<10 + 1} {
		l, err := b.borrow(context.Background(), alice, size)
		if err != nil || len(l.data) != size {
			t.Fatalf("%d bytes: %v", size, err)
		}
		l.free()
	}
	if b.account.Used() != 0 {
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
		g.shut(time.Hour, func() {})
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
