package sim

import (
	"math/rand/v2"
)

// Plan says how tasks take turns.
type Plan struct {
	Seed uint64
	// CrashAt is the step at which the machine loses its power; 0 means never.
	CrashAt int
	// Rare is how many steps a task makes on average before another one gets
	// the turn; 0 means that it keeps it until it has to wait.
	Rare int
	// Changes, if not 0, makes the tasks take turns by priority, which
	// changes that often: few changes find what needs a long run of one
	// task in the midst of another.
	Changes int
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
}

func newPlan(p Plan) *plan {
	q := &plan{Plan: p, rnd: rand.New(rand.NewPCG(p.Seed, 0x9e3779b97f4a7c15))}
	for range p.Changes {
		q.at = append(q.at, 1+q.rnd.IntN(max(1, p.Within)))
	}
	q.draw()
	return q
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

// leave reports whether t has to give the turn away at this step.
func (p *plan) leave(t *Task) bool {
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
