package clock

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

const (
	day  = 24 * time.Hour
	year = 365 * day
)

// How many steps of the clock there are at scale 1.
const (
	commandSteps = 50
	agentSteps   = 50
)

// trashDays is the longest trash time: what is in it must stay whatever the clock
// says, since each step may cost a day of it and there are fewer steps than days.
const trashDays = 3650

// step chooses how wrong the clock is next.
func step(random *rand.Rand) time.Duration {
	sizes := []time.Duration{time.Second, time.Hour, 25 * time.Hour, 40 * day, year, 10 * year}
	by := sizes[random.IntN(len(sizes))]
	if random.IntN(2) == 0 {
		return -by
	}
	return by
}

// newWorld is a repository that is worked on by a clock that is wrong.
func newWorld(seed uint64) (*lab.World, *lab.Clock, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, nil, err
	}
	w, err := here.NewWorldWithTrash(filepath.Join(dir, "store"), seed, trashDays)
	if err != nil {
		return nil, nil, err
	}
	c, err := here.NewClock()
	return w, c, err
}

// TestCommands sets the clock before every command.
func TestCommands(t *testing.T) {
	t.Parallel()
	program, err := here.BuildWrongClock("holdfast", "./cmd/holdfast")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 10))
	w, c, err := newWorld(seed)
	if err != nil {
		t.Fatal(err)
	}
	w.Program, w.Env = program, c.Env
	works(t, w, c)
	for i := range commandSteps * here.Scale {
		if i%1000 == 999 { // no more steps than days
			if w, c, err = newWorld(seed + uint64(i)); err != nil {
				t.Fatal(err)
			}
			w.Program, w.Env = program, c.Env
		}
		c.Set(step(random))
		if err := w.Step(); err != nil {
			t.Fatalf("seed %d, step %d: %v", seed, i, err)
		}
		if i%10 == 9 {
			if err := w.GoOn(); err != nil {
				t.Fatalf("seed %d, after step %d: %v", seed, i, err)
			}
		}
	}
	if err := w.RestoreAll(); err != nil {
		t.Error(err)
	}
	t.Attr("faultlab.clock-steps", strconv.Itoa(commandSteps*here.Scale))
}

// works makes sure that the clock can be set: a backup that names no time gets the
// one of the clock.
func works(t *testing.T, w *lab.World, c *lab.Clock) {
	t.Helper()
	c.Set(10 * year)
	file := filepath.Join(filepath.Dir(w.Path), "file")
	if err := os.WriteFile(file, []byte("content"), 0o600); err != nil {
		t.Fatal(err)
	}
	dir, err := here.MkdirTemp()
	if err != nil {
		t.Fatal(err)
	}
	r, err := here.NewRepo(filepath.Join(dir, "store"), dir)
	if err != nil {
		t.Fatal(err)
	}
	r.Program, r.Env = w.Program, w.Env
	res, err := r.Run("backup", "-r", r.Path, "--json", "--no-progress", "--keyfile", r.Key, "--backup-id", "x", "file.conf:"+file)
	if err != nil || res.Code != lab.ExitOK {
		t.Fatal(res, err)
	}
	list, err := r.List()
	if err != nil || len(list) != 1 {
		t.Fatal(list, err)
	}
	at, err := time.Parse(time.RFC3339, filepath.Base(list[0]))
	if err != nil || time.Until(at) < 9*year {
		t.Fatalf("the clock was not set: %s, %v", list[0], err)
	}
}

// TestAgent sets the clock again and again while a process does several things at
// once.
func TestAgent(t *testing.T) {
	t.Parallel()
	program, err := here.BuildWrongClock("agent", "./tests/faultlab/agent")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 11))
	done := 0
	for done < agentSteps*here.Scale {
		n, err := agentRun(program, seed, random)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		done += n
		seed++
	}
	t.Attr("faultlab.clock-steps", strconv.Itoa(done))
}

// agentRun is one repository with one agent. It returns how often the clock was
// set.
func agentRun(program string, seed uint64, random *rand.Rand) (n int, err error) {
	w, c, err := newWorld(seed)
	if err != nil {
		return 0, err
	}
	defer os.RemoveAll(filepath.Dir(w.Path))
	w.Env = c.Env
	a, err := w.Agent(program)
	w.Env = nil
	if err != nil {
		return 0, err
	}
	const steps, atOnce = 36, 3
	for left := steps; left > 0 || a.Running() > 0; {
		for left > 0 && a.Running() < atOnce {
			op, err := w.Next()
			if err != nil {
				return n, err
			}
			if op == nil {
				break
			}
			left--
			w.Begin(op)
			if err := a.Begin(op); err != nil {
				return n, err
			}
		}
		time.Sleep(time.Duration(random.Int64N(int64(4 * time.Millisecond)))) // into the middle of something
		c.Set(step(random))
		n++
		op, answer, err := a.Next()
		if err != nil {
			return n, err
		}
		if answer.Error != "" {
			return n, fmt.Errorf("%s failed: %s", op, answer.Error)
		}
		w.Done(op)
	}
	if err := a.Close(); err != nil {
		return n, err
	}
	if err := w.GoOn(); err != nil {
		return n, err
	}
	return n, w.RestoreAll()
}

// newForgotten makes a world with some snapshots, one of them in the trash for a week,
// and the clock of program, which works on it.
func newForgotten(t *testing.T, program string, snapshots int) (*lab.World, *lab.Clock) {
	t.Helper()
	dir, err := here.MkdirTemp()
	if err != nil {
		t.Fatal(err)
	}
	w, err := here.NewWorldWithTrash(filepath.Join(dir, "store"), 1, 7)
	if err != nil {
		t.Fatal(err)
	}
	c, err := here.NewClock()
	if err != nil {
		t.Fatal(err)
	}
	w.Program, w.Env = program, c.Env
	for range snapshots {
		op, err := w.Backup("vm/1")
		if err == nil {
			err = w.MustDo(op)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	if err := w.MustDo(w.Forget(w.Any())); err != nil {
		t.Fatal(err)
	}
	return w, c
}

// TestStepCostsADay sets the clock ten years forward, and back, once: what is in
// the trash for a week is still there, with all but a day of its time.
func TestStepCostsADay(t *testing.T) {
	t.Parallel()
	program, err := here.BuildWrongClock("holdfast", "./cmd/holdfast")
	if err != nil {
		t.Fatal(err)
	}
	for _, by := range []time.Duration{10 * year, -10 * year} {
		w, c := newForgotten(t, program, 4)
		c.Set(by)
		for range 3 { // the clock stays as wrong as it is
			if err := w.MustDo(w.GC()); err != nil {
				t.Fatal(err)
			}
		}
		if left := leftOf(t, w); left < 6*day-2*time.Hour {
			t.Errorf("a step by %v leaves %v of 7 days", by, left)
		}
		if err := w.GoOn(); err != nil { // brings it back
			t.Error(err)
		}
	}
}

// TestFlappingClock collects garbage in turns with the right clock and with one
// that is ten years ahead: what is in the trash for a week stays.
func TestFlappingClock(t *testing.T) {
	t.Parallel()
	program, err := here.BuildWrongClock("holdfast", "./cmd/holdfast")
	if err != nil {
		t.Fatal(err)
	}
	w, c := newForgotten(t, program, 2)
	const flaps = 8 // each second one would cost a day
	for i := range flaps {
		c.Set(time.Duration((i+1)%2) * 10 * year)
		if err := w.MustDo(w.GC()); err != nil {
			t.Fatal(err)
		}
	}
	if left := leftOf(t, w); left < 6*day-2*time.Hour {
		t.Errorf("%d steps of the clock leave %v of 7 days", flaps, left)
	}
	if err := w.GoOn(); err != nil { // brings it back
		t.Error(err)
	}
	t.Attr("faultlab.clock-steps", strconv.Itoa(flaps))
}

// leftOf is how long the only snapshot in the trash stays.
func leftOf(t *testing.T, w *lab.World) time.Duration {
	t.Helper()
	res, err := w.Run("snapshot", "list", "-r", w.Path, "--json", "--deleted")
	if err != nil {
		t.Fatal(err)
	}
	var rec struct {
		LeftSeconds int64 `json:"left_seconds"`
	}
	if err := json.Unmarshal([]byte(res.Out), &rec); err != nil {
		t.Fatal(res, err)
	}
	return time.Duration(rec.LeftSeconds) * time.Second
}
