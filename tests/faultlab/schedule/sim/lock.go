package sim

// Lock is a lock that one has alone, or several share. The zero value is free.
type Lock struct {
	alone   *Task
	taken   bool // by alone, or by somebody who is no task
	shared  int
	waiting []waiter
}

type waiter struct {
	t     *Task
	alone bool
}

func (l *Lock) free(alone bool) bool {
	if alone {
		return !l.taken && l.shared == 0
	}
	if l.taken {
		return false
	}
	// As with sync.RWMutex, nobody comes before a writer who is waiting.
	for _, w := range l.waiting {
		if w.alone {
			return false
		}
	}
	return true
}

// Take waits until the lock can be had.
func (l *Lock) Take(alone bool) {
	if !Point("lock", "") {
		return
	}
	t := current()
	for !l.open(t, alone) {
		if t == nil {
			panic("a lock is held that nobody will give back")
		}
		if !l.queued(t) {
			l.waiting = append(l.waiting, waiter{t, alone})
		}
		t.park(blocked)
	}
	l.unqueue(t)
	l.enter(t, alone)
}

// open reports whether t, who may be waiting, can have the lock now.
func (l *Lock) open(t *Task, alone bool) bool {
	if !l.queued(t) {
		return l.free(alone)
	}
	if alone {
		return !l.taken && l.shared == 0
	}
	return !l.taken
}

func (l *Lock) queued(t *Task) bool {
	for _, w := range l.waiting {
		if w.t == t {
			return true
		}
	}
	return false
}

func (l *Lock) unqueue(t *Task) {
	for i, w := range l.waiting {
		if w.t == t {
			l.waiting = append(l.waiting[:i:i], l.waiting[i+1:]...)
			return
		}
	}
}

func (l *Lock) enter(t *Task, alone bool) {
	if alone {
		l.alone, l.taken = t, true
	} else {
		l.shared++
	}
}

// Try takes the lock if that is possible at once.
func (l *Lock) Try(alone bool) bool {
	if !Point("trylock", "") || !l.free(alone) {
		return false
	}
	l.enter(current(), alone)
	return true
}

// Give gives the lock back.
func (l *Lock) Give(alone bool) {
	if _, alive := hold(); !alive {
		return
	}
	switch {
	case alone && l.taken:
		l.alone, l.taken = nil, false
	case !alone && l.shared > 0:
		l.shared--
	default:
		panic("unlock of a lock that is not held")
	}
	for _, w := range l.waiting {
		w.t.wakeUp()
	}
}

// wakeUp makes a task that waits for a lock look again.
func (t *Task) wakeUp() {
	t.life.mu.Lock()
	defer t.life.mu.Unlock()
	if t.state == blocked {
		t.state = runnable
	}
}

// Latch counts what is to be waited for. The zero value waits for nothing.
type Latch struct {
	n       int
	waiting []*Task
}

// Add changes the count; when it is zero, those who wait go on.
func (c *Latch) Add(n int) {
	if _, alive := hold(); !alive {
		return
	}
	if c.n += n; c.n > 0 {
		return
	}
	for _, t := range c.waiting {
		t.wakeUp()
	}
	c.waiting = nil
}

// Wait waits until the count is zero.
func (c *Latch) Wait() {
	t, alive := hold()
	for alive && c.n > 0 {
		if t == nil {
			panic("waiting outside of a task")
		}
		c.waiting = append(c.waiting, t)
		t.park(blocked)
	}
}
