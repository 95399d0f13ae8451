// Package serve is the command that runs a server: its configuration, its start and
// its end, what the service manager is told, and its certificate. What a server
// does with a request is in datastore/server.
package serve

import (
	"context"
	"io"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
)

// Room is what the commands need of their surroundings.
type Room struct {
	UI      *term.Output
	Err     io.Writer // standard error
	Env     map[string]string
	Signals *term.Signals
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
