package sim

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"
)

// plans are ways of taking turns.
func plans(seed uint64) []Plan {
	return []Plan{{Seed: seed}, {Seed: seed, Rare: 2}, {Seed: seed, Changes: 3, Within: 60}}
}

// TestLocksExclude lets tasks count under a lock, and without one.
func TestLocksExclude(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer The().Rest()
		lost := 0
		for seed := range uint64(50) {
			for _, p := range plans(seed) {
				locked, free := count(t, p)
				if locked != 40 {
					t.Fatalf("%+v: %d of 40 under the lock", p, locked)
				}
				lost += 40 - free
			}
		}
		if lost == 0 {
			t.Error("without a lock nothing was ever lost: no task was stopped")
		}
	})
}

func count(t *testing.T, p Plan) (locked, free int) {
	var l Lock
	var wait Latch
	crashed, err := The().Run(p, func() {
		for range 4 {
			wait.Add(1)
			Go(func() {
				defer wait.Add(-1)
				for range 10 {
					n := free
					l.Take(true)
					m := locked
					Point("work", "")
					locked = m + 1
					l.Give(true)
					free = n + 1
				}
			})
		}
		wait.Wait()
	})
	if crashed || err != nil {
		t.Fatalf("%+v: %v, %v", p, crashed, err)
	}
	return locked, free
}

// TestChannels has tasks wait for one another in a way that the machine does
// not know of.
func TestChannels(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer The().Rest()
		for seed := range uint64(50) {
			for _, p := range plans(seed) {
				sum := 0
				crashed, err := The().Run(p, func() {
					c, done := make(chan int), make(chan bool)
					Go(func() {
						for n := range c {
							Point("work", "")
							sum += n
						}
						close(done)
					})
					for i := range 10 {
						c <- i
						Point("work", "")
					}
					close(c)
					<-done
				})
				if crashed || err != nil || sum != 45 {
					t.Fatalf("%+v: %v, %v, %d", p, crashed, err, sum)
				}
			}
		}
	})
}

func TestDeadlockAndPanic(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer The().Rest()
		var a, b Lock
		_, err := The().Run(Plan{Rare: 1}, func() {
			var wait Latch
			wait.Add(1)
			a.Take(true)
			Go(func() {
				b.Take(true)
				a.Take(true)
				wait.Add(-1)
			})
			wait.Wait()
		})
		if err == nil || !strings.Contains(err.Error(), "deadlock") {
			t.Errorf("two tasks wait for each other: %v", err)
		}
		boom := errors.New("boom")
		if _, err := The().Run(Plan{}, func() { panic(boom) }); !errors.Is(err, boom) {
			t.Errorf("a task panics: %v", err)
		}
	})
}

// TestCrashStopsAll crashes at every step: nothing may happen after it.
func TestCrashStopsAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer The().Rest()
		for at := 1; at < 30; at++ {
			steps := 0
			var l Lock
			crashed, err := The().Run(Plan{Seed: 1, Rare: 2, CrashAt: at}, func() {
				for range 3 {
					Go(func() {
						l.Take(true)
						defer l.Give(true)
						for range 20 {
							if Point("work", "") {
								steps++
							}
						}
					})
				}
			})
			if !crashed || err != nil || steps >= at {
				t.Errorf("crash at %d: %v, %v, %d steps", at, crashed, err, steps)
			}
		}
	})
}

// TestSameSeedSameOrder runs tasks twice.
func TestSameSeedSameOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		defer The().Rest()
		order := func(p Plan) (s string) {
			_, err := The().Run(p, func() {
				for _, name := range []string{"a", "b", "c"} {
					Go(func() {
						for range 10 {
							Point("work", "")
							s += name
						}
					})
				}
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		}
		different := map[string]bool{}
		for seed := range uint64(20) {
			p := Plan{Seed: seed, Rare: 2}
			first := order(p)
			if again := order(p); again != first {
				t.Errorf("seed %d: %s, and then %s", seed, first, again)
			}
			different[first] = true
		}
		if len(different) < 10 {
			t.Errorf("20 seeds gave %d orders", len(different))
		}
	})
}
