// Package task holds the commands about the tasks of a server: listing them, their
// logs, stopping them. What a task is, is in datastore/task.
package task

import (
	"context"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
)

// Room is what the commands need of their surroundings.
type Room struct {
	UI      *term.Output
	Secrets secret.Source
}

// call is one command being carried out.
type call struct {
	Room
	term.Given
	repos repo.Opener
}

// action makes a command's action from do after checking the number of its
// arguments.
func (r Room) action(n term.Arity, do func(context.Context, *call) error) cli.ActionFunc {
	return term.Action(n, func(ctx context.Context, given term.Given) error {
		return do(ctx, &call{r, given, repo.New(r.Secrets, given)})
	})
}
