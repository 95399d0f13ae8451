// Package store holds the commands about a repository as a whole: making one, how
// full it is, pruning, garbage collection, verifying, repair and its catalogue. A
// repository on a server is worked on by that server, whose log is shown.
package store

import (
	"context"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
)

// Room is what the commands need of their surroundings.
type Room struct {
	UI      *term.Output
	Now     func() time.Time
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
