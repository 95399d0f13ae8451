// Package key holds the commands about encryption keys and master keys: making,
// showing, printing and recovering them. Where the key of another command comes
// from is in command/secret.
package key

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
