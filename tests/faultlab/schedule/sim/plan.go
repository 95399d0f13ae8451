package sim

import (
	"math/rand/v2"
	"strings"
)

// Plan says how tasks take turns.
type Plan struct {
	Seed uint64
	// CrashAt is the step at which the machine loses its power; 0 means never.
	// With CrashOp, steps count from the first call of that name, of a file
	// whose name ends with CrashName.
	CrashAt            int
	CrashOp, CrashName string
	// Rare is how many steps a task makes on average before another one gets
	// the turn; 0 means that it keeps it until it has to wait.
	Rare int
	// Changes, if not 0, makes the tasks take turns by priority, which
	// changes that often: few changes find what needs a long run of one
	// task in the midst of another.
	Changes int
	// StallAt, together with Changes, makes the task wait for all others that
	// has made this rename, counted from 1: what it has done is not durable
	// then. With StallName, only renames of names that hold it count.
	StallAt   int
	StallName string
	// Within is about how many steps the life has; changes of priority
	// fall into them.
	Within int
}

// plan is a Plan that is being followed.
type plan struct {
	Plan
	Steps int
	rnd   *rand.Rand
	next  int   // with Rare, the step of the next change of turns
	at    []int // with Changes, the steps at which priorities change, sorted
	low   int

	renames int
	stalled *Task // it will have to wait at its next step
}

func newPlan(p Plan) *plan {
	q := &plan{Plan: p, rnd: rand.New(rand.NewPCG(p.Seed, 0x9e3779b97f4a7c15))}
	for range p.Changes {
		q.at = append(q.at, 1+q.rnd.IntN(max(1, p.Within)))
	}
	q.draw()
	return q
}

// crashes reports whether the power goes at this step.
func (p *plan) crashes(op, name string) bool {
	if p.CrashOp != "" {
		if op == p.CrashOp && strings.HasSuffix(name, p.CrashName) {
			p.CrashAt, p.CrashOp = p.CrashAt+p.Steps, ""
		}
		return false
	}
	return p.Steps == p.CrashAt
}

func (p *plan) draw() {
	if p.Rare > 0 {
		p.next = p.Steps + 1 + p.rnd.IntN(2*p.Rare)
	}
}

func (p *plan) priority() int {
	if p.Changes == 0 {
		return 0
	}
	return 1 + p.rnd.IntN(1<<20)
}

// note counts renames.
func (p *plan) note(t *Task, op, name string) {
	if op != "rename" || !strings.Contains(name, p.StallName) {
		return
	}
	if p.renames++; p.renames == p.StallAt {
		p.stalled = t
	}
}

// leave reports whether t has to give the turn away at this step.
func (p *plan) leave(t *Task, op, name string) bool {
	if p.Changes > 0 && p.stalled == t {
		p.stalled = nil
		p.low--
		t.prio = p.low
		return true
	}
	p.note(t, op, name)
	if p.Changes > 0 {
		for _, at := range p.at {
			if at == p.Steps {
				p.low--
				t.prio = p.low
				return true
			}
		}
		return false
	}
	if p.Rare > 0 && p.Steps >= p.next {
		p.draw()
		return true
	}
	return false
}

// choose picks one of the tasks that could go on.
func (p *plan) choose(ready []*Task) *Task {
	switch {
	case len(ready) == 0:
		return nil
	case p.Changes > 0:
		best := ready[0]
		for _, t := range ready {
			if t.prio > best.prio {
				best = t
			}
		}
		return best
	case p.Rare > 0:
		return ready[p.rnd.IntN(len(ready))]
	}
	return ready[0]
}
