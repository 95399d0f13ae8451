package main

import (
	"context"
	"fmt"
	"net/http"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

func (a *app) changeOwnerCommand() *cli.Command {
	return &cli.Command{
		Name: "change-owner", Usage: "give a backup group to another user or token", ArgsUsage: "GROUP AUTH-ID",
		Description: term.Describe(`Only its owner, or the user that a token belongs to, adds snapshots to a group. A repository that
is a path writes as root@pam.`,
			"holdfast change-owner -r backup.lan:tank vm/100 'root@pam!web'"),
		Action: a.action(term.Takes(2, 2), runChangeOwner),
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
	g, err := c.group(c.Arg(0))
	if err != nil {
		return err
	}
	owner, err := wire.ParseAuthID(c.Arg(1))
	if err != nil {
		return err
	}
	s, err := c.openRepository(ctx, readWrite)
	if err != nil {
		return err
	}
	defer closing(s, &err)
	if s.local != nil {
		err = s.local.SetOwner(ctx, g, owner)
	} else {
		err = s.remote.Do(ctx, client.Call{
			Method: http.MethodPost, Path: restPath("admin", "datastore", s.name.Datastore, "change-owner"),
			Params: fields("backup-type", g.Type, "backup-id", g.ID, "ns", string(g.NS), "new-owner", string(owner)),
		})
	}
	if err != nil {
		return fmt.Errorf("change owner of %s%s: %w", g, within(g.NS), err)
	}
	c.ui.Done(ownerRecord{"owner", string(g.NS), g.String(), string(owner)}, "%s%s belongs to %s", g, within(g.NS), owner)
	return nil
}
