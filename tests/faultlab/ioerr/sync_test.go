package ioerr

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
)

// TestSyncFails lets each fsync of each step fail, one after the other, and the
// next one of the same file lie. What is acknowledged all the same has to survive
// a power cut.
func TestSyncFails(t *testing.T) {
	program, err := here.BuildFaultySync("holdfast", "./cmd/holdfast")
	if err != nil {
		t.Fatal(err)
	}
	for _, fs := range []lab.FS{lab.Ext4(), lab.XFS()} {
		for name, step := range steps() {
			if fs.Name == "xfs" && name != "first backup" && name != "gc" {
				continue // the calls are the same; these two make most kinds of them
			}
			t.Run(fs.Name+"/"+name, func(t *testing.T) {
				t.Parallel()
				for round := range here.Scale {
					b, err := newBase(fs, uint64(round))
					if err != nil {
						t.Fatal(err)
					}
					for n := 1; ; n++ {
						happened, err := b.failSync(program, n, step)
						if err != nil {
							t.Fatalf("fsync %d: %v", n, err)
						}
						if !happened {
							t.Logf("%d fsyncs failed", n-1)
							if n < 4 {
								t.Error("these are too few to prove anything")
							}
							t.Attr("faultlab.io-errors", strconv.Itoa(n-1))
							break
						}
					}
				}
			})
		}
	}
}

// failSync does a step in which the n-th fsync fails.
func (b *base) failSync(program string, n int, step func(*bench) (*lab.Op, error)) (happened bool, err error) {
	c, err := b.mount(uint64(n))
	if err != nil {
		return false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	op, err := step(c)
	if err != nil {
		return false, err
	}
	fault, err := here.NewSyncFault(n)
	if err != nil {
		return false, err
	}
	c.Env, c.Program = fault.Env, program
	res, ok, err := c.Do(op)
	c.Env, c.Program = nil, here.Program
	if err != nil {
		return false, err
	}
	happened, err = fault.Happened()
	switch {
	case err != nil:
		return happened, err
	case !happened && !ok:
		return false, fmt.Errorf("nothing failed, but: %s", res)
	case !ok && res.Err == "":
		return true, fmt.Errorf("it does not say why: %s", res)
	}
	return happened, c.afterCut()
}

// TestFinishedAgain lets each fsync of a backup fail whose client asks again for what
// was refused. The second answer has to be the first one, or true.
func TestFinishedAgain(t *testing.T) {
	t.Parallel()
	program, err := here.BuildFaultySync("agent", "./tests/faultlab/agent")
	if err != nil {
		t.Fatal(err)
	}
	b, err := newBase(lab.Ext4(), 1)
	if err != nil {
		t.Fatal(err)
	}
	refused, n := 0, 1
	for ; ; n++ {
		no, happened, err := b.failAgent(program, n, uint64(n), func(c *bench, a *lab.Agent, fault lab.SyncFault) (int, error) {
			return c.drive(a, 1, fault, func() (*lab.Op, error) { return c.Backup("vm/new") })
		})
		if err != nil {
			t.Fatalf("fsync %d: %v", n, err)
		}
		if !happened {
			break
		}
		refused += no
	}
	t.Logf("%d fsyncs failed, %d backups were refused", n-1, refused)
	if refused < 4 {
		t.Error("these are too few to prove anything")
	}
	t.Attr("faultlab.io-errors", strconv.Itoa(n-1))
}

// agentFaults is how many agents get an fsync that fails, at scale 1.
const agentFaults = 20

// stepsAfter is how many steps an agent is given.
const stepsAfter = 12

// TestSyncFailsInServer lets an fsync fail in a process that goes on afterwards
// and does other things besides.
func TestSyncFailsInServer(t *testing.T) {
	t.Parallel()
	program, err := here.BuildFaultySync("agent", "./tests/faultlab/agent")
	if err != nil {
		t.Fatal(err)
	}
	seed := uint64(time.Now().UnixNano())
	random := rand.New(rand.NewPCG(seed, 9))
	b, err := newBase(lab.Ext4(), seed)
	if err != nil {
		t.Fatal(err)
	}
	refused, met, rounds := 0, 0, agentFaults*here.Scale
	for i := 0; lab.More(i, rounds, min(met, rounds/2*refused), rounds/2); i++ {
		n := 1 + random.IntN(60)
		no, happened, err := b.failAgent(program, n, uint64(i), func(c *bench, a *lab.Agent, fault lab.SyncFault) (int, error) {
			return c.drive(a, stepsAfter, fault, c.Next)
		})
		if err != nil {
			t.Fatalf("seed %d, round %d, fsync %d: %v", seed, i, n, err)
		}
		refused += no
		if happened {
			met++
		}
	}
	t.Logf("%d fsyncs failed, after which %d steps were refused", met, refused)
	if met < rounds/2 || refused == 0 {
		t.Error("too few to prove anything")
	}
	t.Attr("faultlab.io-errors", strconv.Itoa(met))
}

// failAgent lets drive give an agent steps, one of which meets an fsync that fails.
func (b *base) failAgent(program string, n int, seed uint64, drive func(*bench, *lab.Agent, lab.SyncFault) (int, error)) (refused int, happened bool, err error) {
	c, err := b.mount(seed)
	if err != nil {
		return 0, false, err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	fault, err := here.NewSyncFault(n)
	if err != nil {
		return 0, false, err
	}
	c.Env = fault.Env
	a, err := c.Agent(program)
	c.Env = nil
	if err != nil {
		happened, e := fault.Happened()
		if e == nil && happened { // while it was being opened
			return 1, true, c.afterCut()
		}
		return 0, false, err
	}
	refused, err = drive(c, a, fault)
	_, e := a.Kill()
	if err = errors.Join(err, e); err != nil {
		return refused, false, err
	}
	if happened, err = fault.Happened(); err != nil {
		return refused, happened, err
	}
	return refused, happened, c.afterCut()
}

// drive gives an agent n steps, two at a time, and counts those that are refused.
func (b *bench) drive(a *lab.Agent, n int, fault lab.SyncFault, next func() (*lab.Op, error)) (refused int, err error) {
	for n > 0 || a.Running() > 0 {
		for n > 0 && a.Running() < 2 {
			op, err := next()
			if err != nil {
				return refused, err
			}
			if op == nil {
				break
			}
			n--
			b.Begin(op)
			if err := a.Begin(op); err != nil {
				return refused, err
			}
		}
		op, answer, err := a.Next()
		if err != nil {
			return refused, err
		}
		if answer.Error == "" {
			b.Done(op)
			continue
		}
		refused++
		b.Failed(op)
		if happened, err := fault.Happened(); err != nil || !happened {
			return refused, errors.Join(err, fmt.Errorf("nothing failed, but %s: %s", op, answer.Error))
		}
	}
	return refused, nil
}
