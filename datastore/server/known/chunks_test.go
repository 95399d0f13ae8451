package known

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
	k := New(total, alice)
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
		if fresh, err := k.Add(step.ref); errors.Is(err, chunkstore.ErrInvalid) != step.bad || fresh != step.fresh {
			t.Errorf("add %v: %v, %v", step.ref, fresh, err)
		}
	}
	if s := k.Of(chunkstore.ID{1}); s != (Sizes{plain: 11}) {
		t.Errorf("sizes of 1: %v", s)
	}
	if s := k.Of(chunkstore.ID{3}); s != (Sizes{}) {
		t.Error("a refused chunk is known")
	}
	other := New(total, alice)
	if _, err := other.Add(ref(2, 1, plain)); !errors.Is(err, chunkstore.ErrInvalid) {
		t.Errorf("beyond what all sessions of a user may have: %v", err)
	}
	if _, err := New(total, ledger.Payer{Account: "bob"}).Add(ref(1, 1, plain)); err != nil {
		t.Errorf("another user: %v", err)
	}
	k.Free()
	if _, err := other.Add(ref(2, 1, plain)); err != nil {
		t.Error(err)
	}
	other.Free()
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
	k := New(all, ledger.Payer{Account: "alice"})
	for i := range n {
		if fresh, err := k.Add(ref(i)); !fresh || err != nil {
			t.Fatalf("%d: %v, %v", i, fresh, err)
		}
	}
	runtime.GC()
	runtime.ReadMemStats(&after)
	if each := (int64(after.HeapAlloc) - int64(before.HeapAlloc)) / n; each > most {
		t.Errorf("a reference takes %d bytes", each)
	}
	for i := range n {
		want := Sizes{}
		want[ref(i).Class] = ref(i).Size
		if got := k.Of(ref(i).ID); got != want {
			t.Fatalf("%d: %v, want %v", i, got, want)
		}
	}
	if got := k.Of(ref(n).ID); got != (Sizes{}) {
		t.Errorf("what was never added is known: %v", got)
	}
	if k.Free(); all.Used() != 0 || k.Of(ref(0).ID) != (Sizes{}) {
		t.Error("it was not freed")
	}
}

// What a reference means depends on the class of its archive alone.
func TestKnownSizesByClass(t *testing.T) {
	plain, sealed := chunkstore.Classes(0).With(chunkstore.ClassPlain), chunkstore.Classes(0).With(chunkstore.ClassEncrypted)
	for _, tc := range []struct {
		known   Sizes
		allowed chunkstore.Classes
		size    uint32
		left    chunkstore.Classes
	}{
		{Sizes{}, chunkstore.AllClasses, 0, 0},
		{Sizes{7, 0}, chunkstore.AllClasses, 7, plain},
		{Sizes{7, 0}, sealed, 0, 0},
		{Sizes{0, 9}, chunkstore.AllClasses, 9, sealed},
		{Sizes{0, 9}, plain, 0, 0},
		{Sizes{7, 9}, chunkstore.AllClasses, 9, sealed},
		{Sizes{7, 9}, plain, 7, plain},
		{Sizes{7, 7}, chunkstore.AllClasses, 7, chunkstore.OtherClasses},
	} {
		if size, left := tc.known.In(tc.allowed); size != tc.size || left != tc.left {
			t.Errorf("%v in %b: %d, %b", tc.known, tc.allowed, size, left)
		}
	}
}
