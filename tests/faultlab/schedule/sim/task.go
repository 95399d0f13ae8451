package sim

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"testing/synctest"
	"time"
)

// The states of a task.
const (
	runnable = iota // it could go on
	running         // it goes on: at most one does
	blocked         // it waits for a lock of package simsync
	native          // it waits for a channel, as far as is known
	done
)

// Task is a goroutine that the scheduler knows.
type Task struct {
	labelled
	id    int
	name  string
	life  *Life
	wake  chan struct{}
	state int    // guarded by Life.mu
	fn    func() // what it does
	prio  int    // with Plan.Changes, the highest that is runnable goes on
	dying bool   // the machine has crashed and its deferred calls are running
}

// Life is one run of tasks on the machine, from a start to a crash or to the
// end of all of them.
type Life struct {
	w       *World
	crashed atomic.Bool
	running atomic.Pointer[Task]

	mu      sync.Mutex // guards all below
	tasks   []*Task
	natives int // tasks in state native
	plan    *plan
	fault   error // what was wrong: a deadlock, a panic
}

// Run lets fn run as the first task of a new life, and returns when all tasks
// have ended or the machine has crashed, which crashed tells. err is what no
// program may do: panic, wait for ever, or write outside its directory.
func (w *World) Run(p Plan, fn func()) (crashed bool, err error) {
	l := &Life{w: w, plan: newPlan(p)}
	w.life = l
	l.spawn("main", fn)
	for l.turn() {
	}
	l.unwind()
	w.Disk.unlockAll()
	return l.crashed.Load(), l.fault
}

// turn waits until nothing runs and lets the next task go on. It reports
// whether there is more to do.
func (l *Life) turn() bool {
	synctest.Wait()
	if l.crashed.Load() {
		return false
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if t := l.running.Load(); t != nil && t.state == running {
		t.state = native
		l.natives++
	}
	l.running.Store(nil)
	for range patience {
		if next := l.pick(); next != nil {
			l.start(next)
			return true
		}
		if l.natives == 0 {
			break
		}
		l.mu.Unlock() // it may be a timer
		time.Sleep(time.Second)
		synctest.Wait()
		l.mu.Lock()
	}
	for _, t := range l.tasks {
		if t.state != done && l.fault == nil {
			l.fault = fmt.Errorf("deadlock: task %s waits for ever\n%s", t.name, stacks())
		}
	}
	return false
}

// stacks describes all goroutines.
func stacks() string {
	b := make([]byte, 1<<18)
	return string(b[:runtime.Stack(b, true)])
}

// patience is how many seconds of the machine's time tasks may wait for timers.
const patience = 100

// unwind ends what is left of the tasks. One that waits for a channel that
// nobody is left to use stays, and is never looked at again.
func (l *Life) unwind() {
	l.crashed.CompareAndSwap(false, l.fault != nil)
	if !l.crashed.Load() {
		return
	}
	for i := 0; i < len(l.tasks); i++ {
		t := l.tasks[i]
		l.mu.Lock()
		parked := t.state == runnable || t.state == blocked
		l.mu.Unlock()
		if parked {
			t.wake <- struct{}{}
			synctest.Wait()
		}
	}
	synctest.Wait()
}

// spawn makes a task that will run fn.
func (l *Life) spawn(name string, fn func()) {
	l.mu.Lock()
	t := &Task{id: len(l.tasks), name: name, life: l, wake: make(chan struct{}, 1), fn: fn}
	t.prio = l.plan.priority()
	l.tasks = append(l.tasks, t)
	l.mu.Unlock()
	l.w.host().next <- t
}

func (t *Task) run(h *host) {
	defer t.end(h)
	<-t.wake
	if !t.life.crashed.Load() {
		t.fn()
	}
}

// end notes what has become of a task, and passes the turn on. Its goroutine is
// used again, unless it is ending.
func (t *Task) end(h *host) {
	l := t.life
	r := recover()
	if !t.dying {
		h.w.keep(h)
	}
	if l.crashed.Load() {
		l.mu.Lock()
		t.state = done
		l.mu.Unlock()
		return
	}
	if err, ok := r.(error); ok && !isRuntime(err) {
		l.w.Note("task %s: %v\n%s", t.name, err, debug.Stack())
		l.fail(fmt.Errorf("task %s: %w", t.name, err))
	} else if r != nil {
		l.fail(fmt.Errorf("task %s: panic: %v\n%s", t.name, r, debug.Stack()))
	}
	t.park(done)
}

func isRuntime(err error) bool {
	_, ok := err.(runtime.Error)
	return ok
}

// fail notes an error that ends the life.
func (l *Life) fail(err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fault == nil {
		l.fault = err
	}
	l.crashed.Store(true)
}

// pick chooses the task that goes on; nil if there is none. l.mu is held.
func (l *Life) pick() *Task {
	var ready []*Task
	for _, t := range l.tasks {
		if t.state == runnable {
			ready = append(ready, t)
		}
	}
	return l.plan.choose(ready)
}

// start lets a task go on. l.mu is held.
func (l *Life) start(t *Task) {
	t.state = running
	l.running.Store(t)
	t.wake <- struct{}{}
}

// park gives the turn away and returns when the task has it again. A task that
// is done does not get it again.
func (t *Task) park(state int) {
	l := t.life
	l.mu.Lock()
	if t.state == native {
		l.natives--
	}
	mine := l.running.Load() == t
	t.state = state
	if mine {
		l.running.Store(nil)
		// Somebody who has been woken by a channel may be on his way here. Then
		// the choice waits until he has arrived.
		if l.natives == 0 {
			if next := l.pick(); next != nil {
				l.start(next)
			}
		}
	}
	l.mu.Unlock()
	if state == done {
		return
	}
	<-t.wake
	if l.crashed.Load() {
		t.die()
	}
}

// die ends the goroutine. What it has deferred runs, without any effect.
func (t *Task) die() {
	t.dying = true
	runtime.Goexit()
}

// hold makes sure that this goroutine has the turn, and returns its task; nil
// if it is none. alive is false when the machine has crashed.
func hold() (t *Task, alive bool) {
	t = current()
	if t == nil {
		return nil, true
	}
	if t.life.crashed.Load() {
		if !t.dying {
			t.die()
		}
		return t, false
	}
	if t.life.running.Load() != t {
		t.park(runnable)
	}
	return t, true
}

// Point is where the scheduler may stop a task, and where the power may go. It
// reports whether the machine is still up; when it is not, this is the clean-up
// of a task that is being ended, and nothing must happen.
func Point(op, name string) bool {
	t, alive := hold()
	if t == nil || !alive {
		return alive
	}
	l := t.life
	p := l.plan
	p.Steps++
	l.w.trace(t, op, name)
	if p.crashes(op, name) {
		l.crashed.Store(true)
		l.w.trace(t, "crash", "")
		t.die()
	}
	if p.leave(t, op, name) {
		t.park(runnable)
	}
	return true
}

// Go runs fn as a task of its own. It stands for the go statement.
func Go(fn func()) {
	t, alive := hold()
	if t == nil {
		panic("go statement outside of a task")
	}
	if alive {
		t.life.spawn(fmt.Sprintf("%s.%d", t.name, len(t.life.tasks)), fn)
	}
}

// GoNamed is Go with a name for the trace.
func GoNamed(name string, fn func()) {
	if t, alive := hold(); t != nil && alive {
		t.life.spawn(name, fn)
	}
}
