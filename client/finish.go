package client

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// How long it may take to find out whether a snapshot was made.
const (
	// finishGrace is how long an answer to finish is waited for when the caller
	// has given up.
	finishGrace = 10 * time.Second
	// settleMost is how long the group of a session whose connection broke is
	// asked about while it is busy, settleSoon the same when the caller has
	// given up.
	settleMost = time.Hour
	settleSoon = 20 * time.Second
	// settlePace is the longest pause between two looks.
	settlePace = 5 * time.Second
)

// Finish implements wire.Session. It is asked for once only: when the answer is
// lost the server is asked what became of it. A caller that gives up meanwhile
// is told within finishGrace and settleSoon; what he has asked for goes on.
func (ss *session) Finish(ctx context.Context) error {
	if err := errors.Join(ctx.Err(), ss.failure()); err != nil {
		return err
	}
	err := ss.askFinish(ctx)
	var answer *StatusError
	switch {
	case err == nil:
		return nil
	case !errors.As(err, &answer):
		err = ss.settle(ctx, err)
	}
	if err != nil {
		return fmt.Errorf("finish snapshot %s: %w", ss.snap, err)
	}
	return nil
}

// askFinish makes the request. It survives the end of ctx for a moment.
func (ss *session) askFinish(ctx context.Context) error {
	asking, cancel := context.WithTimeout(context.WithoutCancel(ctx), finishMost)
	defer cancel()
	defer after(ctx, finishGrace, func() {
		ss.client.log("finish of %s was asked for already; waiting up to %v for its end", ss.snap, finishGrace)
	}, cancel)()
	err := ss.conn.data(asking, query{op: api.Finish, long: true}, nil)
	switch {
	case err == nil || asking.Err() == nil:
		return err
	case ctx.Err() != nil:
		return ctx.Err()
	}
	return &brokenError{fmt.Sprintf("%s has worked on it for %v: the session was given up", ss.client.host, finishMost), ErrSilent}
}

// after calls begin when ctx ends, and end some time later, unless stop is
// called before.
func after(ctx context.Context, later time.Duration, begin, end func()) (stop func()) {
	over, stop := context.WithCancel(context.WithoutCancel(ctx))
	context.AfterFunc(ctx, func() {
		if over.Err() != nil {
			return
		}
		begin()
		t := time.AfterFunc(later, end)
		context.AfterFunc(over, func() { t.Stop() })
	})
	return stop
}

// settle finds out what became of a finish without an answer, which cause has
// ended. It held the group until a moment ago, and its time was not taken, so that
// hardly anybody else can have made a snapshot of that name.
func (ss *session) settle(ctx context.Context, cause error) error {
	c := ss.client
	c.log("the answer to finish of %s did not come (%v); looking what became of it", ss.snap, cause)
	ss.conn.close() // so that a session that was not asked to finish ends
	looking, cancel := context.WithTimeout(context.WithoutCancel(ctx), settleMost)
	defer cancel()
	defer after(ctx, settleSoon, func() {}, cancel)()
	began, wait := time.Now(), c.poll
	for {
		made, busy, err := ss.outcome(looking)
		switch {
		case made:
			return nil
		case err == nil && !busy:
			return cause
		case err != nil && (!errors.Is(err, ErrUnavailable) || time.Since(began) > c.retry.longest):
			return &unknownError{cause}
		case err == nil:
			began = time.Now() // the server can be reached
		}
		if c.pause(looking, wait) != nil {
			return &unknownError{cause}
		}
		wait = min(2*wait, settlePace)
	}
}

// unknownError is a finish of which nobody can tell what became of it.
type unknownError struct{ cause error }

func (e *unknownError) Error() string { return fmt.Sprintf("%v: %v", wire.ErrUnknown, e.cause) }
func (e *unknownError) Unwrap() error { return wire.ErrUnknown }

// outcome looks whether the snapshot exists, and whether the session may still
// make it. What has ended before the listing was asked for is in it.
func (ss *session) outcome(ctx context.Context) (made, busy bool, err error) {
	busy, unseen := ss.running(ctx)
	entries, err := ss.client.snapshotEntries(ctx, ss.snap.Group)
	if err != nil && !errors.Is(err, chunkstore.ErrNotExist) {
		return false, busy, err
	}
	for _, e := range entries {
		if e.Type == ss.snap.Group.Type && e.ID == ss.snap.Group.ID && e.Time == ss.snap.Time && e.Size != nil {
			return ss.isIn(e), busy, nil
		}
	}
	return false, busy, unseen
}

// isIn tells whether a snapshot has what this session has sent. One of another
// session under the same name is possible if this one had lost its group.
func (ss *session) isIn(e snapshotEntry) bool {
	ss.mu.Lock()
	defer ss.mu.Unlock()
	for name, size := range ss.sent {
		i := slices.IndexFunc(e.Files, func(f api.FileItem) bool { return f.Name == name })
		if i < 0 {
			return false
		}
		if has := e.Files[i].Size; size != nil && has != nil && *has != *size {
			return false
		}
	}
	return true
}

// running looks for a backup of the group among the tasks of the server. The
// names of tasks leave the namespace out, so that it may be another one's.
func (ss *session) running(ctx context.Context) (bool, error) {
	c := ss.client
	var tasks []api.TaskItem
	params := url.Values{"running": {"true"}, "limit": {"0"}, "typefilter": {"backup"}}
	if err := c.Do(ctx, Call{Op: api.ListTasks, At: []string{node}, Params: params, Into: &tasks}); err != nil {
		return false, fmt.Errorf("look whether the backup still runs: %w", err)
	}
	for _, t := range tasks {
		if t.Type == "backup" && strings.HasPrefix(t.Worker(), c.opts.Repository.Datastore+":") && strings.HasSuffix(t.Worker(), ":"+ss.snap.Group.String()) {
			return true, nil
		}
	}
	return false, nil
}
