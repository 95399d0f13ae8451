package power

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

// cutsPerDisk is how many times one file system loses its power: what one cut
// has left is what the next one meets.
const cutsPerDisk = 8

// longest is the latest moment of a cut after the start of the script.
const longest = 400 * time.Millisecond

// chain is one file system that loses its power again and again.
type chain struct {
	programs
	fs     lab.FS
	seed   uint64
	random *rand.Rand
	disk   *lab.Disk
	world  *lab.World

	begun atomic.Bool // the power is being cut
	count counts
}

// counts are what happened.
type counts struct {
	cuts, acked int
	hit         map[string]int // steps that were cut, by their kind
}

func (c *counts) add(o counts) {
	c.cuts += o.cuts
	c.acked += o.acked
	for kind, n := range o.hit {
		c.hit[kind] += n
	}
}

// programs are what works on the repository until the power is gone: the agent
// if there is one. What comes after is always done by the sound program.
type programs struct{ holdfast, agent string }

// newChain formats and mounts a file system and makes a repository on it, with
// one snapshot.
func newChain(fs lab.FS, p programs, seed uint64) (*chain, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	c := &chain{programs: p, fs: fs, seed: seed, random: rand.New(rand.NewPCG(seed, 0)), count: counts{hit: map[string]int{}}}
	image := filepath.Join(dir, "disk.img")
	if err := fs.Format(image); err != nil {
		return nil, err
	}
	if c.disk, err = fs.Mount(image, filepath.Join(dir, "mount")); err != nil {
		return nil, err
	}
	c.world, err = here.NewWorld(filepath.Join(c.disk.Dir, "store"), seed)
	if err == nil {
		err = c.world.Step()
	}
	if err != nil {
		return nil, errors.Join(err, c.close())
	}
	return c, nil
}

func (c *chain) close() error {
	return errors.Join(c.disk.Unmount(), os.RemoveAll(filepath.Dir(c.disk.Image)))
}

// round runs the script until the power goes, and looks at what is left.
func (c *chain) round() error {
	c.begun.Store(false)
	cut := make(chan error, 1)
	wait, how := time.Duration(c.random.Int64N(int64(longest))), lab.CutAtOnce
	if c.random.IntN(4) == 0 {
		how = lab.CutLogFlushed
	}
	commits := c.random.IntN(4)
	go func() { cut <- c.cutAfter(wait, commits, how) }()
	c.world.Program = c.holdfast
	err := c.script()
	c.world.Program = here.Program
	err = errors.Join(err, <-cut, c.disk.Unmount())
	if err != nil {
		return err
	}
	c.count.cuts++
	again, err := c.fs.Mount(c.disk.Image, c.disk.Dir)
	if err != nil {
		return err
	}
	c.disk = again
	if err := c.world.Judge(); err != nil {
		return err
	}
	if c.random.IntN(2) == 0 {
		return nil
	}
	return c.world.GoOn()
}

// cutAfter waits and cuts. Meanwhile it lets the file system write its journal a
// few times, as it does now and then by itself: names then get to the disk before
// the data of files that nobody has synced.
func (c *chain) cutAfter(wait time.Duration, commits, how int) error {
	for range commits {
		time.Sleep(wait / time.Duration(commits+1))
		stray, err := os.Create(filepath.Join(c.disk.Dir, "stray"))
		if err != nil {
			return err
		}
		if err := errors.Join(stray.Sync(), stray.Close()); err != nil {
			return err
		}
	}
	time.Sleep(wait / time.Duration(commits+1))
	c.begun.Store(true)
	return c.disk.Cut(how)
}

// script runs commands until one meets the cut. One that fails before is an
// error.
func (c *chain) script() error {
	work := c.commands
	if c.agent != "" {
		work = c.agents
	}
	if err := work(); err != nil {
		return err
	}
	for _, kind := range c.world.Unsure() {
		c.count.hit[kind]++
	}
	return nil
}

// commands runs the program for each step.
func (c *chain) commands() error {
	for !c.begun.Load() {
		op, err := c.world.Next()
		if err != nil {
			return err
		}
		res, ok, err := c.world.Do(op)
		switch {
		case err != nil:
			return err
		case ok:
			c.count.acked++
		case !c.begun.Load():
			return fmt.Errorf("it failed before the cut: %s", res)
		}
	}
	return nil
}

// atOnce is how many steps an agent is given at a time.
const atOnce = 3

// agents lets one process do several steps at once until the power is gone.
func (c *chain) agents() (err error) {
	a, err := c.world.Agent(c.agent)
	if err != nil {
		if c.begun.Load() {
			return nil
		}
		return err
	}
	defer func() {
		_, e := a.Kill()
		err = errors.Join(err, e)
	}()
	for !c.begun.Load() || a.Running() > 0 {
		for a.Running() < atOnce && !c.begun.Load() {
			op, err := c.world.Next()
			if err != nil {
				return err
			}
			if op == nil {
				break
			}
			c.world.Begin(op)
			if err := a.Begin(op); err != nil {
				return err
			}
		}
		op, answer, err := a.Next()
		switch {
		case err != nil:
			return err
		case answer.Error == "":
			c.world.Done(op)
			c.count.acked++
		case !c.begun.Load():
			return fmt.Errorf("%s failed before the cut: %s", op, answer.Error)
		default:
			c.world.Failed(op)
		}
	}
	return nil
}

// run makes a number of cuts with a program. The error is the first violation.
func run(fs lab.FS, p programs, seed uint64, cuts int) (all counts, err error) {
	all.hit = map[string]int{}
	for all.cuts < cuts {
		c, err := newChain(fs, p, seed)
		if err != nil {
			return all, err
		}
		for range min(cutsPerDisk, cuts-all.cuts) {
			if err = c.round(); err != nil {
				break
			}
		}
		all.add(c.count)
		if err = errors.Join(err, c.close()); err != nil {
			return all, fmt.Errorf("%s, seed %d, cut %d: %w", fs.Name, seed, c.count.cuts, err)
		}
		seed++
	}
	return all, nil
}

// TestPowerCuts finds no violation of what the store promises.
func TestPowerCuts(t *testing.T) {
	agent, err := here.BuildAgent()
	if err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		name string
		fs   lab.FS
		programs
		cuts int
	}{
		{"ext4", lab.Ext4(), programs{holdfast: here.Program}, 50},
		{"xfs", lab.XFS(), programs{holdfast: here.Program}, 25},
		{"ext4 agent", lab.Ext4(), programs{here.Program, agent}, 50},
		{"xfs agent", lab.XFS(), programs{here.Program, agent}, 25},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			seed := uint64(time.Now().UnixNano())
			n, want := counts{hit: map[string]int{}}, tc.cuts*here.Scale
			for lab.More(n.cuts, want, n.hit[lab.Backup], want/8) && !t.Failed() {
				did, err := run(tc.fs, tc.programs, seed+uint64(n.cuts), max(want-n.cuts, cutsPerDisk))
				n.add(did)
				if err != nil {
					t.Error(err)
				}
			}
			t.Logf("%d cuts, %d steps acknowledged before them; cut were %v", n.cuts, n.acked, n.hit)
			if n.hit[lab.Backup] < want/8 || n.cuts >= 100 && n.hit[lab.GC] == 0 {
				t.Error("the cuts do not hit what they should")
			}
			t.Attr("faultlab.power-"+tc.fs.Name, strconv.Itoa(n.cuts))
		})
	}
}
