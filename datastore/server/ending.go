package server

import (
	"context"
	"errors"
	"sync"
	"time"

	"holdfast/datastore/server/rest"
)

// recheckTime is how often a session in which nothing happens asks for its rights:
// what expires, nobody changes.
const recheckTime = time.Minute

// endedError is the cause of the end of a session's context when the server has ended
// it. It tells the client why.
type endedError struct{ why error }

func (e *endedError) Error() string { return e.why.Error() }
func (e *endedError) Unwrap() error { return e.why }

// errFarewell is the cause of the end of a session that has done what it was for.
var errFarewell = errors.New("the session has been finished for long")

// guard asks for the rights of the session with each change of users, rights and
// owners, and now and then, and ends it when they are gone: whoever does not ask
// anything would keep the group, and what it builds on, from others. It returns when
// the session has ended.
func (v *conversation) guard() {
	tick := time.NewTicker(recheckTime)
	defer tick.Stop()
	for {
		changed, given := v.server.o.Access.Changed(), v.given()
		_, err := v.allowed()
		var refusal *rest.StatusError
		if errors.As(err, &refusal) {
			v.cancel(&endedError{refusal})
			return
		}
		select {
		case <-v.ctx.Done():
			return
		case <-changed:
		case <-given:
		case <-tick.C:
		}
	}
}

// guarded starts guard; stop ends it.
func (v *conversation) guarded() (stop func()) {
	over := make(chan struct{})
	go func() {
		defer close(over)
		v.guard()
	}()
	return func() {
		v.cancel(nil)
		<-over
	}
}

// lull ends a session of which nothing is asked for long.
type lull struct {
	over func()

	mu    sync.Mutex
	limit time.Duration // 0 for none
	asks  int           // requests that are being answered
	last  bool          // what is asked changes nothing any more
	timer *time.Timer
	gone  bool
}

// newLull returns one that calls over once, from a goroutine of its own.
func newLull(limit time.Duration, over func()) *lull {
	r := &lull{limit: limit, over: over}
	r.timer = time.AfterFunc(max(limit, 1), r.look)
	if limit == 0 {
		r.timer.Stop()
	}
	return r
}

// begin notes that something is asked, until end.
func (r *lull) begin() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.asks++
}

func (r *lull) end() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.asks--; r.asks == 0 && !r.last && !r.gone && r.limit > 0 {
		r.timer.Reset(r.limit)
	}
}

// finish lets the session live for so long, whatever is asked of it.
func (r *lull) finish(d time.Duration, over func()) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone {
		return
	}
	r.last, r.over = true, over
	r.timer.Reset(d)
}

// stop says that the session has ended.
func (r *lull) stop() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.gone = true
	r.timer.Stop()
}

func (r *lull) look() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.gone || r.limit == 0 && !r.last || r.asks > 0 && !r.last {
		return // the last answer begins it anew
	}
	r.gone = true
	r.over()
}

// idle ends the session for having been asked nothing.
func (v *conversation) idle() {
	v.cancel(&endedError{rest.BadRequest("the session was ended, since nothing was asked of it for %v", v.server.o.Limits.SessionIdleTime)})
}

// part ends the session when it has been finished for long.
func (v *conversation) part() { v.cancel(errFarewell) }

// within is a context of a session in that of its task.
func (v *conversation) within(task context.Context) {
	v.ctx, v.cancel = context.WithCancelCause(task)
}
