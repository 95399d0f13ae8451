package client

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"holdfast/chunkstore"
	"holdfast/datastore/wire/api"
)

// TaskError is the end of a task that did not go well.
type TaskError struct {
	UPID   string
	Status string // what the server says
}

func (e *TaskError) Error() string { return fmt.Sprintf("the task has failed: %s", e.Status) }

// Is tells which errors of the table of failures the status of the task means: it has
// nothing but its text.
func (e *TaskError) Is(target error) bool {
	return isOneOf(api.FailuresSaid(http.StatusBadRequest, e.Status), target)
}

const (
	// logLines is how many lines are asked for at a time, as the reference
	// client does (section 4.8 of the protocol specification).
	logLines = 500
	// taskPoll is how long to wait for more of a running task at first, and
	// taskPollMax at most: short tasks are not waited for longer than they run.
	taskPoll    = 50 * time.Millisecond
	taskPollMax = time.Second
	// stampLen is the length of the time before each line, with its colon.
	stampLen = 27
)

// node is what the one node of a server may be called.
const node = "localhost"

// logAnswer is the answer about the log of a task.
type logAnswer struct {
	Data   []api.LogLine `json:"data"`
	Total  int           `json:"total"`
	Active bool          `json:"active"`
}

// FollowTask calls line for every line of a task's log, without its time, until
// the task has ended. A task that did not end well is a *TaskError. When ctx
// ends the task goes on.
func (c *Client) FollowTask(ctx context.Context, upid string, line func(string)) error {
	if !strings.HasPrefix(upid, "UPID:") {
		return fmt.Errorf("task %q: want a UPID: %w", printable(upid), chunkstore.ErrInvalid)
	}
	wait := c.poll
	for start := 1; ; {
		a, err := c.taskLog(ctx, upid, start)
		if err != nil {
			return fmt.Errorf("read the log of a task: %w", err)
		}
		for _, l := range a.Data {
			if l.N != start {
				return fmt.Errorf("read the log of a task: %w: line %d where %d should be", errAnswer, l.N, start)
			}
			line(withoutStamp(l.Text))
			start++
		}
		if start <= a.Total && len(a.Data) > 0 {
			continue
		}
		if !a.Active {
			return c.taskEnd(ctx, upid)
		}
		if err := c.pause(ctx, wait); err != nil {
			return err
		}
		wait = min(2*wait, taskPollMax)
	}
}

func (c *Client) pause(ctx context.Context, d time.Duration) error {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (c *Client) taskLog(ctx context.Context, upid string, start int) (logAnswer, error) {
	var a logAnswer
	params := url.Values{"start": {strconv.Itoa(start)}, "limit": {strconv.Itoa(logLines)}, "test-status": {"true"}}
	err := c.Do(ctx, Call{Op: api.TaskLog, At: []string{node, upid}, Params: params, Whole: &a})
	return a, err
}

// taskEnd asks how a task ended.
func (c *Client) taskEnd(ctx context.Context, upid string) error {
	var status api.TaskStatus
	if err := c.Do(ctx, Call{Op: api.TaskState, At: []string{node, upid}, Into: &status}); err != nil {
		return fmt.Errorf("read the status of a task: %w", err)
	}
	exit := "stopped with unknown status"
	if status.Exit != nil && *status.Exit != "" {
		exit = *status.Exit
	}
	if exit == "OK" || strings.HasPrefix(exit, "WARNINGS") {
		return nil
	}
	return &TaskError{UPID: upid, Status: printable(exit)}
}

func withoutStamp(s string) string {
	if len(s) >= stampLen && s[stampLen-2:stampLen] == ": " {
		s = s[stampLen:]
	}
	return printable(s)
}
