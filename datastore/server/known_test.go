package server

import (
	"errors"
	"fmt"
	"runtime"
	"testing"

	"holdfast/chunkstore"
	"holdfast/crypto"
	"holdfast/datastore/server/ledger"
)

func TestKnown(t *testing.T) {
	total := ledger.New(ledger.Limit{Name: "references", Total: 4, Share: 3})
	alice := ledger.Payer{Account: "alice"}
	k := newKnown(total, alice)
	k.max = 3
	ref := func(b byte, size uint32, c chunkstore.Class) chunkstore.Ref {
		return chunkstore.Ref{ID: chunkstore.ID{b}, Size: size, Class: c}
	}
	const plain, sealed = chunkstore.ClassPlain, chunkstore.ClassEncrypted
	for _, step := range []struct {
		ref        chunkstore.Ref
		fresh, bad bool
	}{
		{ref(1, 10, plain), true, false}, {ref(2, 20, plain), true, false}, {ref(1, 11, plain), false, false},
		{ref(2, 21, sealed), true, false}, {ref(3, 30, plain), false, true},
	} {
		if fresh, err := k.add(step.ref); errors.Is(err, chunkstore.ErrInvalid) != step.bad || fresh != step.fresh {
			t.Errorf("add %v: %v, %v", step.ref, fresh, err)
		}
	}
	if s := k.of(chunkstore.ID{1}); s != (sizes{plain: 11}) {
		t.Errorf("sizes of 1: %v", s)
	}
	if s := k.of(chunkstore.ID{3}); s != (sizes{}) {
		t.Error("a refused chunk is known")
	}
	other := newKnown(total, alice)
	if _, err := other.add(ref(2, 1, plain)); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("beyond what all sessions of a user may have: %v", err)
	}
	if _, err := newKnown(total, ledger.Payer{Account: "bob"}).add(ref(1, 1, plain)); err != nil {
		t.Errorf("another user: %v", err)
	}
	k.free()
	if _, err := other.add(ref(2, 1, plain)); err != nil {
		t.Error(err)
	}
	other.free()
	if n := total.Of(alice); n != 0 {
		t.Errorf("%d are still counted", n)
	}
}

// TestKnownIsSmall remembers so much that pages split, in whatever order it comes, and
// measures the memory: a reference takes no more than the bound on them stands for.
func TestKnownIsSmall(t *testing.T) {
	const n, most = 300_000, 32
	all := ledger.New(ledger.Limit{Name: "references", Total: n})
	ref := func(i int) chunkstore.Ref {
		return chunkstore.Ref{ID: chunkstore.ID(crypto.Sum(fmt.Append(nil, i))), Size: uint32(i + 1), Class: chunkstore.Class(i % 2)}
	}
	var before, after runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	k := newKnown(all, ledger.Payer{Account: "alice"})
	for i := range n {
		if fresh, err := k.add(ref(i)); !fresh || err != nil {
			t.Fatalf("%d: %v, %v", i, fresh, err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > most {
		t.Errorf("a reference takes %d bytes", each)
	}
	for i := range n {
		want := sizes{}
		want[ref(i).Class] = ref(i).Size
		if got := k.of(ref(i).ID); got != want {
			t.Fatalf("%d: %v, want %v", i, got, want)
		}
	}
	if got := k.of(ref(n).ID); got != (sizes{}) {
		t.Errorf("what was never added is known: %v", got)
	}
	if k.free(); all.Used() != 0 || k.of(ref(0).ID) != (sizes{}) {
		t.Error("it was not freed")
	}
}

// What a reference means depends on the class of its archive alone.
func TestKnownSizesByClass(t *testing.T) {
	plain, sealed := chunkstore.Classes(0).With(chunkstore.ClassPlain), chunkstore.Classes(0).With(chunkstore.ClassEncrypted)
	for _, tc := range []struct {
		known   sizes
		allowed chunkstore.Classes
		size    uint32
		left    chunkstore.Classes
	}{
		{sizes{}, chunkstore.AllClasses, 0, 0},
		{sizes{7, 0}, chunkstore.AllClasses, 7, plain},
		{sizes{7, 0}, sealed, 0, 0},
		{sizes{0, 9}, chunkstore.AllClasses, 9, sealed},
		{sizes{0, 9}, plain, 0, 0},
		{sizes{7, 9}, chunkstore.AllClasses, 9, sealed},
		{sizes{7, 9}, plain, 7, plain},
		{sizes{7, 7}, chunkstore.AllClasses, 7, chunkstore.OtherClasses},
	} {
		if size, left := tc.known.in(tc.allowed); size != tc.size || left != tc.left {
			t.Errorf("%v in %b: %d, %b", tc.known, tc.allowed, size, left)
		}
	}
}
