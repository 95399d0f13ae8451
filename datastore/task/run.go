package task

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"sync"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
)

// Spec says what a task is about.
type Spec struct {
	// Type is one of the worker types of section 5.2 of the protocol
	// specification, such as "backup".
	Type string
	// ID is what the work is done on, such as "tank:vm/100". One that is too
	// long for a UPID is cut.
	ID string
	// Auth is who asked for it.
	Auth wire.AuthID
}

// ErrAborted is the cause of the end of a task's context when Stop or Close
// has been called. A task that returns it, or the error of its context, ends
// as aborted.
var ErrAborted = errors.New("abort requested - aborting task")

// StopError is the cause of the end of a task's context when somebody has
// stopped it. It is an ErrAborted.
type StopError struct{ By wire.AuthID }

func (e *StopError) Error() string { return "stopped by " + string(e.By) }
func (e *StopError) Unwrap() error { return ErrAborted }

// abortRequest is the line that an abort leaves in the log.
const abortRequest = "received abort request ..."

// Task is a piece of work under way. All methods are safe for concurrent use.
type Task struct {
	registry *Registry
	upid     wire.UPID
	ctx      context.Context
	cancel   context.CancelCauseFunc
	done     chan struct{} // closed when the task has ended

	mu       sync.Mutex // guards what follows
	log      logWriter
	warnings int
	aborted  bool
	ended    bool
}

// Begin begins a task whose work the caller does and ends with End. Its
// context ends with ctx, and when Stop or Close asks for it. A Spec that makes
// no UPID is wire.ErrName; too many tasks at a time are wire.ErrBusy.
func (r *Registry) Begin(ctx context.Context, s Spec) (*Task, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return nil, fmt.Errorf("begin task %s: %w", s.Type, ErrClosed)
	}
	if len(r.running) >= r.limits.running {
		return nil, fmt.Errorf("begin task %s: %d tasks are running: %w", s.Type, len(r.running), wire.ErrBusy)
	}
	u, err := r.name(s)
	if err != nil {
		return nil, fmt.Errorf("begin task: %w", err)
	}
	t := &Task{registry: r, upid: u, done: make(chan struct{})}
	t.log = logWriter{now: r.now, max: r.limits.log}
	switch s.Type {
	case "backup", "reader", "benchmark":
		if r.limits.session > 0 {
			t.log.max = r.limits.session
		}
	}
	if t.log.f, err = createLog(r.root, u); takesNothing(err) {
		t.log.max = min(t.log.max, memoryLogMax)
		t.log.f, err = r.createMemoryLog(u)
	}
	if err != nil {
		return nil, fmt.Errorf("begin task %s: %w", s.Type, err)
	}
	t.ctx, t.cancel = context.WithCancelCause(ctx)
	r.running[u] = t
	r.append(record{upid: u})
	return t, nil
}

// upidMax is the longest text form of a UPID that its parser takes, in bytes.
const upidMax = 1024

// name makes a UPID that no other task has.
func (r *Registry) name(s Spec) (wire.UPID, error) {
	u := r.self
	u.Start, u.Type, u.ID, u.Auth = r.now().Unix(), s.Type, s.ID, s.Auth
	u.ID = u.ID[:min(len(u.ID), upidMax)]
	for {
		u.TaskID = r.counter
		r.counter++
		for u.ID != "" && len(u.String()) > upidMax {
			u.ID = u.ID[:len(u.ID)-1]
		}
		parsed, err := wire.ParseUPID(u.String())
		if err != nil {
			return wire.UPID{}, err
		}
		// After a restart of the machine a process may have the numbers of
		// an earlier one.
		if r.running[parsed] == nil && r.known[parsed] == nil {
			return parsed, nil
		}
	}
}

// Go begins a task and has do work on it in a goroutine of its own. The task
// ends with the error of do; a panic in do ends it too, and its stack goes to
// the log.
func (r *Registry) Go(s Spec, do func(*Task) error) (wire.UPID, error) {
	t, err := r.Begin(context.Background(), s)
	if err != nil {
		return wire.UPID{}, err
	}
	go func() { t.End(t.guard(do)) }()
	return t.upid, nil
}

// guard turns a panic into an error: one request must not end the server.
func (t *Task) guard(do func(*Task) error) (err error) {
	defer func() {
		if v := recover(); v != nil {
			for line := range strings.Lines(string(debug.Stack())) {
				t.Logf("%s", strings.TrimSpace(line))
			}
			err = fmt.Errorf("internal error: %v", v)
		}
	}()
	return do(t)
}

// UPID names the task.
func (t *Task) UPID() wire.UPID { return t.upid }

// Context ends when the task is to stop; its cause wraps ErrAborted then.
func (t *Task) Context() context.Context { return t.ctx }

// Logf adds a line to the log. Control characters become spaces, and what is
// longer than 4 KiB is cut. After End it does nothing.
func (t *Task) Logf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	text := fmt.Sprintf(format, args...)
	if strings.HasPrefix(text, "TASK ") {
		text = " " + text // only End tells the state
	}
	t.log.line(text)
}

// Warnf adds a warning to the log. A task with warnings that ends without an
// error is a success that tells how many there were.
func (t *Task) Warnf(format string, args ...any) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended {
		return
	}
	t.warnings++
	t.log.line("warning: " + fmt.Sprintf(format, args...))
}

// End ends the task: nil is a success. Only the first call counts.
func (t *Task) End(err error) {
	t.mu.Lock()
	if t.ended {
		t.mu.Unlock()
		return
	}
	t.ended = true
	status := t.outcome(err)
	end := t.log.now().Unix()
	t.log.last(stateLine(status))
	size := t.log.size
	t.mu.Unlock()
	t.cancel(context.Canceled)
	t.registry.finish(&entry{upid: t.upid, end: end, status: status, log: size})
	close(t.done)
}

// outcome makes the exit string of a task.
func (t *Task) outcome(err error) string {
	switch {
	case err == nil && t.warnings == 0:
		return statusOK
	case err == nil:
		return fmt.Sprintf("%s%d", warningsPrefix, t.warnings)
	case t.aborted && (errors.Is(err, context.Canceled) || errors.Is(err, ErrAborted)):
		if t.upid.Type == "backup" {
			return "task aborted"
		}
		return ErrAborted.Error()
	}
	return errorStatus(err.Error())
}

// abort asks the task to stop, for a cause that is an ErrAborted.
func (t *Task) abort(cause error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.ended || t.aborted {
		return
	}
	t.aborted = true
	t.log.always(abortRequest)
	if cause != ErrAborted {
		t.log.always(cause.Error())
	}
	t.cancel(cause)
}

// Stop asks a task to stop, for somebody, and does not wait for it: the cause of
// its context is a *StopError. One that has ended is left as it is; one that is
// not known is chunkstore.ErrNotExist.
func (r *Registry) Stop(u wire.UPID, by wire.AuthID) error {
	r.mu.Lock()
	t, ended := r.running[u], r.known[u]
	r.mu.Unlock()
	switch {
	case t != nil:
		t.abort(&StopError{by})
	case ended == nil:
		return fmt.Errorf("stop task %s: %w", u, chunkstore.ErrNotExist)
	}
	return nil
}

// finish moves a task from those that run to those that have ended.
func (r *Registry) finish(e *entry) {
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.running, e.upid)
	r.add(e)
	if r.index.closed {
		return
	}
	r.rotate()
	r.append(record{upid: e.upid, ended: true, end: e.end, status: e.status})
}
