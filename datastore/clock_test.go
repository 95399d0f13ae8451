package datastore

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

const (
	hour = time.Hour
	day  = 24 * time.Hour
	year = 365 * day
)

// world is a machine whose wall clock can be set, and on which processes come
// and go.
type world struct {
	t    *testing.T
	path string
	real time.Duration // that has passed
	off  time.Duration // by which the wall clock is wrong
	boot int           // which start of the machine it is; 0 if the kernel does not tell
	up   time.Duration // when that was
	*clock
}

func newWorld(t *testing.T) *world {
	w := &world{t: t, path: filepath.Join(t.TempDir(), clockName)}
	w.restart(true)
	return w
}

// restart is a new process, after the old one was closed or killed.
func (w *world) restart(closed bool) {
	w.t.Helper()
	if w.clock != nil && closed {
		if err := w.save(); err != nil {
			w.t.Fatal(err)
		}
	}
	begin := w.real
	w.clock = newClock(w.path, nil, func() (string, time.Duration) {
		if w.boot == 0 {
			return "", 0
		}
		return fmt.Sprintf("%x-", w.boot), w.real - w.up
	})
	w.wall = func() int64 { return (30*year + w.real + w.off).Milliseconds() }
	w.mono = func() time.Duration { return w.real - begin }
	if err := w.start(func() (int64, error) { return 0, nil }); err != nil {
		w.t.Fatal(err)
	}
	if err := w.save(); err != nil {
		w.t.Fatal(err)
	}
}

// reboot is another start of the machine, which ends the process.
func (w *world) reboot(closed bool) {
	w.t.Helper()
	if closed {
		if err := w.save(); err != nil {
			w.t.Fatal(err)
		}
	}
	w.boot, w.up = w.boot+1, w.real
	w.restart(false)
}

// absent is a time without a process.
func (w *world) absent(d time.Duration) {
	w.t.Helper()
	if err := w.save(); err != nil {
		w.t.Fatal(err)
	}
	w.real += d
	w.restart(false)
}

func (w *world) now() time.Duration { return time.Duration(w.read()) * time.Millisecond }

// is expects the clock to have gone so far.
func (w *world) is(what string, want time.Duration) {
	w.t.Helper()
	if got := w.now(); got != want {
		w.t.Errorf("%s: the clock is at %v, want %v", what, got, want)
	}
}

func TestClockCountsTime(t *testing.T) {
	w := newWorld(t)
	w.is("new", 0)
	w.real += 40 * day
	w.is("in one process, however long", 40*day)
	w.restart(true)
	w.is("in the next one", 40*day)
	for range 10 {
		w.absent(day)
	}
	w.is("with a process every day", 50*day)
	w.absent(30 * day)
	w.is("after a month without one", 50*day+25*hour)
	w.real += 3 * hour
	w.restart(false)
	w.is("after a kill", 50*day+28*hour)
	w.real += 30 * time.Second
	w.restart(false)
	w.is("after a kill, less than what is saved", 50*day+28*hour+30*time.Second)
}

func TestClockIsNotHurried(t *testing.T) {
	for _, step := range []time.Duration{10 * year, -10 * year, 26 * hour, -hour} {
		w := newWorld(t)
		w.real += hour
		w.off += step
		w.is("in a running process", hour)
		w.restart(true)
		w.is("in the next process", hour)
		w.off -= step
		w.is("set right", hour)
		w.restart(true)
		w.is("set right, and another process", hour)
	}
}

// A step between two processes cannot be told from time that has passed. It
// costs a day, once, and setting the clock back gives and takes nothing.
func TestClockStepsBetweenProcesses(t *testing.T) {
	w := newWorld(t)
	w.off += 10 * year
	w.restart(false)
	w.is("ahead", 25*hour)
	w.restart(true)
	w.restart(false)
	w.is("still ahead", 25*hour)
	w.off -= 20 * year
	w.restart(false)
	w.is("behind", 25*hour)
	w.real += hour
	w.restart(true)
	w.is("still behind", 26*hour)
	w.off += 10 * year
	w.restart(false)
	w.is("right again", 26*hour)
	w.real += 10*year + 30*hour
	w.restart(false)
	w.is("when the time has come that it was set to", 51*hour)
}

// Within one start of the machine the wall clock counts for nothing, whatever it
// does and however often, and all time counts.
func TestClockOfOneStart(t *testing.T) {
	w := newWorld(t)
	w.reboot(true)
	for i := range 20 {
		w.off = []time.Duration{10 * year, 0, -10 * year, 26 * hour}[i%4]
		w.restart(i%2 == 0)
	}
	w.is("set twenty times", 0)
	w.absent(40 * day)
	w.is("after forty days without a process", 40*day)
	w.real += hour
	w.is("in a process", 40*day+hour)
	w.reboot(true)
	w.is("started again", 40*day+hour)
}

// A clock that flaps from one start to the next is believed once.
func TestFlappingClock(t *testing.T) {
	for name, next := range map[string]func(w *world){
		"the machine starts":       func(w *world) { w.reboot(false) },
		"the kernel does not tell": func(w *world) { w.restart(false) },
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(t)
			for i := range 40 {
				if err := w.save(); err != nil {
					t.Fatal(err)
				}
				w.off = time.Duration(i%2) * 10 * year
				w.real += time.Minute
				next(w)
			}
			if got := w.now(); got < clockStep || got > clockStep+40*time.Minute {
				t.Errorf("forty steps of the clock count for %v", got)
			}
		})
	}
}

// The time in which the machine is off counts if the wall clock is right, also if
// it was wrong while the machine ran.
func TestClockCountsTimeOff(t *testing.T) {
	w := newWorld(t)
	w.reboot(true)
	for range 5 {
		w.real += 10 * hour
		w.off = 10 * year
		if err := w.save(); err != nil {
			t.Fatal(err)
		}
		w.off = 0
		w.real += 8 * hour
		w.reboot(false)
	}
	w.is("five days of ten hours, with nights", 90*hour)
}

func TestClockWithAnyHistory(t *testing.T) {
	r := rand.New(rand.NewPCG(1, 2))
	for round := range 60 {
		w := newWorld(t)
		if round%2 == 0 {
			w.reboot(true)
		}
		steps, last, high := 0, w.now(), w.now()
		for range 50 {
			killed := false
			op := r.IntN(5)
			asked := op == 4 || op > 1 && round%2 == 1 // the wall clock
			switch op {
			case 0:
				w.real += time.Duration(r.Int64N(int64(40 * hour))).Truncate(time.Millisecond)
			case 1:
				w.off = []time.Duration{0, 10 * year, -10 * year, 26 * hour, time.Duration(r.Int64N(int64(20 * year))).Truncate(time.Millisecond)}[r.IntN(5)]
			case 4:
				killed = r.IntN(2) == 0
				if round%2 == 0 {
					w.reboot(!killed)
				} else {
					w.restart(!killed)
				}
			case 2:
				w.restart(true)
			case 3:
				killed = true // and loses what was not saved
				w.restart(false)
			}
			if asked && w.off > high { // only a time that is later than all before is believed
				high = w.off
				steps++
			}
			now := w.now()
			if most := w.real + time.Duration(steps)*clockStep; now < last && !killed || now > most {
				t.Fatalf("from %v to %v, at most %v have passed", last, now, most)
			}
			last = now
		}
	}
}

func TestClockThatCannotBeSaved(t *testing.T) {
	w := newWorld(t)
	w.real += 100 * day
	if err := os.Mkdir(w.path+".no", 0o700); err != nil {
		t.Fatal(err)
	}
	for range 5 { // no process can add to what the last one could not save
		w.real += day
		w.clock.path = filepath.Join(w.path+".no", "no", clockName)
		if err := w.save(); err == nil {
			t.Error("saved")
		}
		before, err := os.ReadFile(w.path)
		if err != nil {
			t.Fatal(err)
		}
		w.restart(false)
		w.is("in the next one", 25*hour)
		if err := os.WriteFile(w.path, before, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// A damaged or lost file never shortens: the clock goes back to the last
// removal that is known.
func TestClockDamaged(t *testing.T) {
	good := clockState{mark: (9 * day).Milliseconds(), wall: (30 * year).Milliseconds(), seen: 5, boot: "0a-1", up: 77}.encode()
	if c, ok := decodeClock(good); !ok || c.mark != (9*day).Milliseconds() {
		t.Fatalf("%+v %v", c, ok)
	}
	floor := (5 * day).Milliseconds()
	damaged := [][]byte{nil, {}, good[:len(good)-1], append(bytes.Clone(good), '\n'), bytes.Repeat([]byte("x"), clockMax+1), bytes.ToUpper(good)}
	for bit := range 8 * len(good) {
		flipped := bytes.Clone(good)
		flipped[bit/8] ^= 1 << (bit % 8)
		damaged = append(damaged, flipped)
	}
	path := filepath.Join(t.TempDir(), clockName)
	for _, raw := range damaged {
		if raw == nil {
			os.Remove(path)
		} else if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		c := newClock(path, nil, nil)
		c.uptime = func() (string, time.Duration) { return "1", time.Hour }
		if err := c.start(func() (int64, error) { return floor, nil }); err != nil || c.read() != floor {
			t.Errorf("%.40q: %d, %v", raw, c.read(), err)
		}
	}
	c := newClock(path, nil, nil)
	if err := c.start(func() (int64, error) { return 0, os.ErrPermission }); !errors.Is(err, os.ErrPermission) {
		t.Errorf("without the last removal: %v", err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := c.start(func() (int64, error) { return floor, nil }); err != nil || c.read() < floor {
		t.Errorf("a directory: %v", err)
	}
}

func FuzzDecodeClock(f *testing.F) {
	f.Add(clockState{mark: 1, wall: 2}.encode())
	f.Add(clockState{mark: 1, wall: 2, boot: "f-0", up: 3}.encode())
	f.Add([]byte("holdfast clock 2\nmark -1\nwall 0\nseen 0\nboot -\nup 0\nsum "))
	f.Fuzz(func(t *testing.T, raw []byte) {
		c, ok := decodeClock(raw)
		if ok && (c.mark < 0 || c.mark > markMax || !bytes.Equal(c.encode(), raw)) {
			t.Errorf("%q is %+v", raw, c)
		}
	})
}

func FuzzDecodeWhere(f *testing.F) {
	f.Add([]byte(`{"ns":"a/b","type":"vm","id":"100","time":10,"mark":7,"owner":"eve@pbs","deleted":5}`), int64(7))
	f.Add([]byte(`{"ns":"..","type":"vm","id":"..","time":10}`), int64(0))
	f.Fuzz(func(t *testing.T, raw []byte, mark int64) {
		w, err := decodeWhere(raw, mark)
		if err == nil && (checkGroup(w.snapshot().Group) != nil || w.snapshot().Validate() != nil || w.Mark != mark) {
			t.Errorf("%q is %+v", raw, w)
		}
	})
}

func FuzzTrashEntry(f *testing.F) {
	f.Add(trashName(7, 3))
	f.Add("ffffffffffffffff-00000000")
	f.Fuzz(func(t *testing.T, name string) {
		if e, ok := trashEntry(name); ok && (e.name != name || e.mark < 0) {
			t.Errorf("%q is %+v", name, e)
		}
	})
}
