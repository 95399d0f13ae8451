// Package snapshot holds the commands about groups and snapshots: listing them,
// notes and protection, removing them and bringing them back, and who owns them.
// No data is read here.
package snapshot

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
	In      io.Reader // standard input
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
