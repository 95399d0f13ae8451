package kill

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	"holdfast/tests/faultlab/lab"
	"holdfast/tests/harness"
)

var here *lab.Lab

func TestMain(m *testing.M) { os.Exit(lab.Run(m, &here)) }

// How many kills there are at scale 1.
const (
	callKills  = 220
	agentKills = 80
)

// workers is how many repositories are worked on at a time.
const workers = 2

// killsPerStore is how often a repository is killed before a new one is made.
const killsPerStore = 40

// killer is a repository that is killed again and again.
type killer struct {
	*lab.World
	random *rand.Rand
	calls  map[string]lab.Calls // by the kind of step
	hits   map[string]int
	rounds int
}

func newKiller(seed uint64) (*killer, error) {
	dir, err := here.MkdirTemp()
	if err != nil {
		return nil, err
	}
	w, err := here.NewWorld(filepath.Join(dir, "store"), seed)
	if err != nil {
		return nil, err
	}
	k := &killer{World: w, random: rand.New(rand.NewPCG(seed, 3)), calls: map[string]lab.Calls{}, hits: map[string]int{}}
	for range 14 { // steps that go well, to know their calls
		op, err := w.Next()
		if err != nil {
			return nil, err
		}
		w.Begin(op)
		calls, err := w.Trace(op, lab.Changing())
		if err != nil {
			return nil, err
		}
		if k.calls[op.Kind] == nil {
			k.calls[op.Kind] = lab.Calls{}
		}
		k.calls[op.Kind].Add(calls)
	}
	return k, nil
}

// killCall kills a step at a system call, until one is hit.
func (k *killer) killCall() error {
	for {
		op, err := k.Next()
		if err != nil {
			return err
		}
		p := k.calls[op.Kind].Pick(k.random)
		k.Env, k.Wrap = lab.OneThread(), lab.Strace(p.Call, fmt.Sprintf("signal=SIGKILL:when=%d", p.N))
		res, ok, err := k.Do(op)
		k.Env, k.Wrap = nil, nil
		switch {
		case err != nil:
			return err
		case ok:
			continue // it has come to its end before
		case res.Code != lab.ExitSignal:
			return fmt.Errorf("killed at %s, but: %s", p, res)
		}
		k.hits[op.Kind]++
		if err := k.after(); err != nil {
			return fmt.Errorf("%s killed at %s: %w", op, p, err)
		}
		return nil
	}
}

// atOnce is how many steps an agent does at a time.
const atOnce = 3

// killAgent kills a process that does several things at once.
func (k *killer) killAgent(program string) error {
	a, err := k.Agent(program)
	if err != nil {
		return err
	}
	timer := time.AfterFunc(time.Duration(k.random.Int64N(int64(120*time.Millisecond))), func() { a.Kill9() })
	defer timer.Stop()
	if err := k.feed(a); err != nil {
		_, e := a.Kill()
		return errors.Join(err, e)
	}
	if _, err := a.Kill(); err != nil {
		return err
	}
	for _, kind := range k.Unsure() {
		k.hits[kind]++
	}
	return k.after()
}

// feed gives an agent steps until it is dead.
func (k *killer) feed(a *lab.Agent) error {
	for {
		for a.Running() < atOnce {
			op, err := k.Next()
			if err != nil {
				return err
			}
			if op == nil {
				break
			}
			k.Begin(op)
			if err := a.Begin(op); err != nil {
				return nil
			}
		}
		op, answer, err := a.Next()
		if err != nil {
			return nil
		}
		if answer.Error != "" {
			return fmt.Errorf("%s failed: %s", op, answer.Error)
		}
		k.Done(op)
	}
}

// after looks at the repository that a kill has left.
func (k *killer) after() error {
	if err := k.Judge(); err != nil {
		return err
	}
	if k.rounds++; k.rounds%4 != 0 {
		return nil
	}
	return k.GoOn()
}

// run kills n times. A repository whose tracer failed is left as it is, a few
// times.
func run(n int, kill func(*killer) error) (hits map[string]int, err error) {
	hits = map[string]int{}
	seed, lost := uint64(time.Now().UnixNano()), 0
	for done := 0; done < n; seed++ {
		k, err := killMany(seed, min(killsPerStore, n-done), kill)
		if errors.Is(err, harness.ErrTracer) && lost < 3 {
			lost++
			continue
		}
		if err != nil {
			return hits, fmt.Errorf("seed %d: %w", seed, err)
		}
		done += k.rounds
		for kind, n := range k.hits {
			hits[kind] += n
		}
	}
	return hits, nil
}

// killMany kills one repository n times.
func killMany(seed uint64, n int, kill func(*killer) error) (*killer, error) {
	k, err := newKiller(seed)
	if err != nil {
		return nil, err
	}
	for range n {
		if err := kill(k); err != nil {
			return nil, fmt.Errorf("kill %d of %s: %w", k.rounds, k.Path, err)
		}
	}
	if err := errors.Join(k.GoOn(), k.RestoreAll(), os.RemoveAll(filepath.Dir(k.Path))); err != nil {
		return nil, fmt.Errorf("at the end: %w", err)
	}
	return k, nil
}

// TestKillPoints finds no violation of what the store promises.
func TestKillPoints(t *testing.T) {
	agent, err := here.BuildAgent()
	if err != nil {
		t.Fatal(err)
	}
	byAgent := func(k *killer) error { return k.killAgent(agent) }
	for i := range workers {
		for _, tc := range []struct {
			name  string
			kills int
			kill  func(*killer) error
		}{
			{"calls", callKills, (*killer).killCall},
			{"agent", agentKills, byAgent},
		} {
			t.Run(fmt.Sprintf("%s %d", tc.name, i), func(t *testing.T) {
				t.Parallel()
				n := tc.kills * here.Scale / workers
				hits, err := run(n, tc.kill)
				if err != nil {
					t.Fatal(err)
				}
				t.Logf("%d kills, hit were %v", n, hits)
				if hits[lab.Backup] == 0 || n >= 100 && hits[lab.GC] == 0 {
					t.Error("the kills do not hit what they should")
				}
				t.Attr("faultlab.kills", strconv.Itoa(n))
			})
		}
	}
}
