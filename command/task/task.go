package task

import (
	"context"
	"fmt"
	"net/url"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Command is holdfast task with its subcommands.
func (r Room) Command() *cli.Command {
	return &cli.Command{
		Name: "task", Usage: "look at what a server does and did",
		Description: term.Describe(`Every backup, restore, prune, gc and verification of a server is a task with a name, a log and an
end. Without rights on the server one sees one's own tasks.`),
		Subcommands: []*cli.Command{
			{
				Name: "list", Usage: "list tasks",
				Description: term.Describe("Lists tasks, running ones first, then the newest.", "holdfast task list -r backup.lan:tank", "holdfast task list --running"),
				Flags: []cli.Flag{repo.DataFlag(),
					&cli.UintFlag{Name: "limit", Value: 50, Usage: "list at most `N` tasks, 0 for all (default 50)"},
					&cli.BoolFlag{Name: "running", Usage: "list only tasks that run"},
					&cli.BoolFlag{Name: "errors", Usage: "list only tasks that failed, and those that run"}},
				Action: r.action(term.Takes(0, 0), taskList),
			},
			{
				Name: "log", Usage: "print the log of a task", ArgsUsage: "UPID",
				Description: term.Describe("Prints the log of a task; with --follow until it ends.", "holdfast task log UPID:..."),
				Flags:       []cli.Flag{repo.DataFlag(), &cli.BoolFlag{Name: "follow", Aliases: []string{"f"}, Usage: "go on until the task ends; one that fails ends with exit status 1"}},
				Action:      r.action(term.Takes(1, 1), taskLog),
			},
			{
				Name: "stop", Usage: "stop a task", ArgsUsage: "UPID",
				Description: term.Describe("Asks a task to end.", "holdfast task stop UPID:..."),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(1, 1), taskStop),
			},
		},
	}
}

// taskRecord describes a task.
type taskRecord struct {
	MessageType string `json:"message_type"` // "task"
	UPID        string `json:"upid"`
	Type        string `json:"type"`
	ID          string `json:"id"`
	AuthID      string `json:"auth_id"`
	Started     string `json:"started"`
	Finished    string `json:"finished,omitempty"`
	Status      string `json:"status"` // "running", or how it ended
}

// node is what the one node of a server may be called.
const node = "localhost"

func taskList(ctx context.Context, c *call) error {
	var list []api.TaskItem
	params := url.Values{"limit": {strconv.FormatUint(uint64(c.Flags.Uint("limit")), 10)}}
	for _, flag := range []string{"running", "errors"} {
		if c.Flags.Bool(flag) {
			params.Set(flag, "true")
		}
	}
	err := c.repos.Asking(ctx, client.Call{Op: api.ListTasks, At: []string{node}, Params: params}, &list)
	if err != nil {
		return fmt.Errorf("list tasks: %w", err)
	}
	rows := [][]string{{"started", "type", "about", "user or token", "status", "task"}}
	for _, t := range list {
		rec := taskRecord{"task", t.UPID, t.Type, t.Worker(), t.User, term.UnixTime(t.Start), term.UnixTime(t.End), t.Status}
		if t.End == 0 {
			rec.Status = "running"
		}
		rows = append(rows, []string{rec.Started, rec.Type, term.OrDash(rec.ID), rec.AuthID, firstOf(rec.Status), rec.UPID})
		if c.UI.JSON {
			c.UI.Result(rec, nil)
		}
	}
	c.UI.Listing(rows, "no tasks")
	return nil
}

// firstOf shortens the text of an error for a table.
func firstOf(text string) string {
	text, _, _ = strings.Cut(text, "\n")
	const most = 60
	if r := []rune(text); len(r) > most {
		return string(r[:most-1]) + "…"
	}
	return text
}

// logPage is how many lines of a log are asked for at once.
const logPage = 500

func taskLog(ctx context.Context, c *call) error {
	if _, err := wire.ParseUPID(c.Arg(0)); err != nil {
		return err
	}
	show := func(line string) { repo.ShowLine(c.UI, line) }
	return c.repos.Managing(ctx, func(s *client.Client) error {
		if c.Flags.Bool("follow") {
			return s.FollowTask(ctx, c.Arg(0), show)
		}
		for start := 1; ; start += logPage {
			var lines []api.LogLine
			params := url.Values{"start": {strconv.Itoa(start)}, "limit": {strconv.Itoa(logPage)}}
			err := s.Do(ctx, client.Call{Op: api.TaskLog, At: []string{node, c.Arg(0)}, Params: params, Into: &lines})
			if err != nil {
				return fmt.Errorf("log of the task: %w", err)
			}
			for _, l := range lines {
				show(l.Text)
			}
			if len(lines) < logPage {
				return nil
			}
		}
	})
}

// stopRecord names a task that was asked to end.
type stopRecord struct {
	MessageType string `json:"message_type"` // "task_stopped"
	UPID        string `json:"upid"`
}

func taskStop(ctx context.Context, c *call) error {
	if _, err := wire.ParseUPID(c.Arg(0)); err != nil {
		return err
	}
	if err := c.repos.Asking(ctx, client.Call{Op: api.StopTask, At: []string{node, c.Arg(0)}, Again: true}, nil); err != nil {
		return fmt.Errorf("stop the task: %w", err)
	}
	c.UI.Done(stopRecord{"task_stopped", c.Arg(0)}, "asked the task to end")
	return nil
}
