package snapshot

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// ChangeOwner is holdfast change-owner.
func (r Room) ChangeOwner() *cli.Command {
	return &cli.Command{
		Name: "change-owner", Usage: "give a backup group to another user or token", ArgsUsage: "GROUP AUTH-ID",
		Description: term.Describe(`Only its owner, or the user that a token belongs to, adds snapshots to a group. A repository that
is a path writes as root@pam.`,
			"holdfast change-owner -r backup.lan:tank vm/100 'root@pam!web'"),
		Action: r.action(term.Takes(2, 2), runChangeOwner),
	}
}

// ownerRecord tells whose a group is.
type ownerRecord struct {
	MessageType string `json:"message_type"` // "owner"
	Namespace   string `json:"ns"`
	Group       string `json:"group"`
	Owner       string `json:"owner"`
}

func runChangeOwner(ctx context.Context, c *call) (err error) {
	g, err := c.repos.Group(c.Arg(0))
	if err != nil {
		return err
	}
	owner, err := wire.ParseAuthID(c.Arg(1))
	if err != nil {
		return err
	}
	s, err := c.repos.Open(ctx, repo.Write)
	if err != nil {
		return err
	}
	defer repo.Closing(s, &err)
	if s.Local != nil {
		err = s.Local.SetOwner(ctx, g, owner)
	} else {
		err = s.Remote.Do(ctx, client.Call{
			Op: api.ChangeOwner, At: []string{s.Name.Datastore},
			Params: repo.Fields("backup-type", g.Type, "backup-id", g.ID, "ns", string(g.NS), "new-owner", string(owner)),
		})
	}
	if err != nil {
		return fmt.Errorf("change owner of %s%s: %w", g, repo.Within(g.NS), err)
	}
	c.UI.Done(ownerRecord{"owner", string(g.NS), g.String(), string(owner)}, "%s%s belongs to %s", g, repo.Within(g.NS), owner)
	return nil
}
