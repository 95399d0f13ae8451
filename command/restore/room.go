// Package restore is the command that writes an archive of a snapshot back: its
// flags, what it refuses before it begins, its progress and its record. What is done
// with the data is decided in client/restore.
package restore

import (
	"context"
	"io"
	"time"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/secret"
	"holdfast/command/term"
)

// Room is what the command needs of its surroundings.
type Room struct {
	UI      *term.Output
	Now     func() time.Time
	Out     io.Writer // standard output
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
