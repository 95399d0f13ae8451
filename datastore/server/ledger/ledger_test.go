package ledger

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"testing/synctest"
)

func TestShares(t *testing.T) {
	token := func(n int) Payer { return Payer{Account: fmt.Sprint("u!", n), Holder: "u"} }
	admin := Payer{Account: "u!admin", Holder: "u", Admin: true}
	r := New(Limit{Name: "places", Total: 10, Kept: 2, Share: 5, Each: 3})
	for i, step := range []struct {
		payer Payer
		n     int64
		want  error
	}{
		{token(1), 3, nil}, {token(1), 1, ErrShare},
		{token(2), 2, nil}, {token(2), 1, ErrShare}, // the user's share
		{Payer{Account: "v"}, 3, nil}, {Payer{Account: "v"}, 1, ErrShare},
		{Payer{Account: "w"}, 1, ErrFull}, // the rest is kept
		{admin, 2, nil}, {admin, 1, ErrFull},
	} {
		if _, err := r.Try(step.payer, step.n); !errors.Is(err, step.want) {
			t.Errorf("step %d: %v, want %v", i, err, step.want)
		}
	}
	if r.Used() != 10 || r.Of(token(1)) != 3 || r.Of(admin) != 2 {
		t.Errorf("used %d, of a token %d, of the administrator %d", r.Used(), r.Of(token(1)), r.Of(admin))
	}
}

// Whoever has nothing goes before whoever waits with much in hand, however long
// that one's queue is.
func TestTurnOfWhoHasLeast(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limit{Name: "places", Total: 2})
		hog, other := Payer{Account: "hog"}, Payer{Account: "other"}
		first, _ := r.Try(hog, 1)
		second, _ := r.Try(hog, 1)
		turns := make(chan string, 200)
		wait := func(p Payer) {
			h, err := r.Take(t.Context(), p, 1)
			if err == nil {
				turns <- p.Account
				h.Free()
			}
		}
		for range 100 {
			go wait(hog)
		}
		synctest.Wait()
		go wait(other)
		synctest.Wait()
		first.Free()
		synctest.Wait()
		if who := <-turns; who != "other" {
			t.Errorf("the turn is %s's", who)
		}
		second.Free()
		synctest.Wait()
		if len(turns) != 100 || r.Used() != 0 {
			t.Errorf("%d turns, %d used", len(turns), r.Used())
		}
	})
}

// A large wish is not passed for ever by small ones of others.
func TestLargeWishHasItsTurn(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limit{Name: "bytes", Total: 10})
		a, _ := r.Try(Payer{Account: "a"}, 6)
		got := make(chan *Hold, 2)
		take := func(who string, n int64) {
			h, _ := r.Take(t.Context(), Payer{Account: who}, n)
			got <- h
		}
		go take("large", 8)
		synctest.Wait()
		go take("small", 1)
		synctest.Wait()
		if len(got) != 0 {
			t.Fatal("the small one went first")
		}
		a.Free()
		synctest.Wait()
		if len(got) != 2 {
			t.Errorf("%d have their turn", len(got))
		}
	})
}

func TestWaitEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limit{Name: "places", Total: 1})
		held, _ := r.Try(Payer{Account: "a"}, 1)
		ctx, cancel := context.WithCancel(t.Context())
		failed := make(chan error, 1)
		go func() {
			_, err := r.Take(ctx, Payer{Account: "b"}, 1)
			failed <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-failed; !errors.Is(err, context.Canceled) {
			t.Errorf("got %v", err)
		}
		held.Free()
		held.Free()
		if r.Used() != 0 {
			t.Errorf("%d used", r.Used())
		}
		if _, err := r.Take(t.Context(), Payer{Account: "a"}, 2); !errors.Is(err, ErrShare) {
			t.Errorf("more than there is: %v", err)
		}
	})
}

// Whatever many do at once, no bound is passed and everything comes back.
func TestBoundsHold(t *testing.T) {
	l := Limit{Name: "bytes", Total: 40, Kept: 10, Share: 20, Each: 12}
	r := New(l)
	var all sync.WaitGroup
	for i := range 16 {
		p := Payer{Account: fmt.Sprint("u", i%4, "!", i), Holder: fmt.Sprint("u", i%4), Admin: i == 0}
		all.Go(func() {
			random := rand.New(rand.NewPCG(uint64(i), 1))
			for range 500 {
				h, err := r.Take(t.Context(), p, 1+random.Int64N(l.Each))
				if err != nil {
					t.Error(err)
					return
				}
				_ = h.More(random.Int64N(5))
				if used, own := r.Used(), r.Of(p); used > l.Total || own > l.Share || !p.Admin && own > l.Each {
					t.Errorf("%d used, %d by %s", used, own, p.Account)
				}
				h.Shrink(random.Int64N(l.Each))
				h.Free()
			}
		})
	}
	all.Wait()
	if r.Used() != 0 || len(r.holders) != 0 || len(r.each) != 0 || len(r.waiting) != 0 {
		t.Errorf("left: %d used, %v, %v", r.Used(), r.holders, r.each)
	}
}

// Where a caller can hold one place only, the next turn is that of whoever has waited
// longest since its last one, not that of the rest of a long queue.
func TestTurnsGoRound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limit{Name: "places", Total: 1})
		turns := make(chan string, 200)
		free := make(chan struct{})
		wait := func(p Payer) {
			h, err := r.Take(t.Context(), p, 1)
			if err == nil {
				turns <- p.Account
				<-free
				h.Free()
			}
		}
		for range 50 {
			go wait(Payer{Account: "hog"})
		}
		synctest.Wait()
		go wait(Payer{Account: "other"})
		synctest.Wait()
		for range 51 {
			free <- struct{}{}
			synctest.Wait()
		}
		<-turns
		if a, b := <-turns, <-turns; a != "other" && b != "other" {
			t.Errorf("turns of %s and %s", a, b)
		}
	})
}

// What is kept for administrators is theirs, however many others wait and however long
// those have waited.
func TestKeptPartIsNotWaitedFor(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := New(Limit{Name: "places", Total: 3, Kept: 1, Share: 1})
		for _, who := range []string{"a", "b"} {
			if _, err := r.Try(Payer{Account: who}, 1); err != nil {
				t.Fatal(err)
			}
		}
		ctx, cancel := context.WithCancel(t.Context())
		got := make(chan string, 2)
		for _, p := range []Payer{{Account: "c"}, {Account: "admin", Admin: true}} {
			go func() {
				if _, err := r.Take(ctx, p, 1); err == nil {
					got <- p.Account
				}
			}()
			synctest.Wait()
		}
		if len(got) != 1 || <-got != "admin" {
			t.Error("the administrator waits for somebody who waits for others")
		}
		cancel()
		synctest.Wait()
	})
}
