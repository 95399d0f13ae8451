package body

import (
	"bytes"
	"context"
	"errors"
	"io"
	"strings"
	"testing"

	"holdfast/chunkstore"
	"holdfast/datastore/server/budget"
	"holdfast/datastore/server/ledger"
)

func TestBodiesWaitForMemory(t *testing.T) {
	alice := ledger.Payer{Account: "alice"}
	memory := ledger.New(ledger.Limit{Name: "memory", Total: chunkstore.BlobSizeMax})
	k := New("", &budget.Accounts{Incoming: memory})
	first, err := k.borrow(context.Background(), memory, alice, chunkstore.BlobSizeMax)
	if err != nil || len(first.Data) != chunkstore.BlobSizeMax {
		t.Fatalf("%v", err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if _, err := k.borrow(ctx, memory, alice, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("more than there is: %v", err)
	}
	if _, err := k.borrow(context.Background(), memory, alice, chunkstore.BlobSizeMax+1); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("larger than any chunk: %v", err)
	}
	if _, err := k.borrowSoon(context.Background(), memory, alice, 1); !errors.Is(err, ErrCrowded) {
		t.Errorf("more than there is soon: %v", err)
	}
	if _, err := k.borrowSoon(ctx, memory, alice, 1); !errors.Is(err, context.Canceled) {
		t.Errorf("given up: %v", err)
	}
	first.Free()
	shared := ledger.New(ledger.Limit{Name: "memory", Total: chunkstore.BlobSizeMax, Share: 64 << 10})
	if _, err := k.borrowSoon(context.Background(), shared, alice, 100<<10); !errors.Is(err, ErrCrowded) {
		t.Errorf("more than the user's share: %v", err)
	}
	for _, size := range []int{0, 1, 64 << 10, 64<<10 + 1, 4<<20 + 44, 4<<20 + 4<<10 + 1} {
		l, err := k.borrow(context.Background(), memory, alice, size)
		if err != nil || len(l.Data) != size {
			t.Fatalf("%d bytes: %v", size, err)
		}
		l.Free()
	}
	if memory.Used() != 0 {
		t.Error("memory was not given back")
	}
}

func TestFill(t *testing.T) {
	for text, want := range map[string]error{"abcd": nil, "abc": ErrBodyShort, "": ErrBodyShort, "abcde": ErrBodyLong} {
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
