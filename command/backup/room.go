// Package backup is the command that makes snapshots: its flags, what it reads and
// from where, its progress and its record. What is done with the data is decided in
// client/backup.
package backup

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
	In      io.Reader // standard input
	Err     io.Writer // standard error
	Env     map[string]string
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
