package main

import (
	"context"
	"fmt"

	"github.com/urfave/cli/v2"

	"holdfast/datastore"
	"holdfast/datastore/wire"
)

func (a *app) initCommand() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "make a new, empty repository", ArgsUsage: "[PATH]",
		Description: describe(`Makes a repository in the directory PATH, or the one that -r or $HOLDFAST_REPOSITORY names: a path,
whose directory may exist if it is empty, or a datastore on a server, for which the right to
make datastores is needed.`,
			"holdfast init /srv/store", "holdfast init -r 'root@pam!admin@backup.lan:tank'"),
		Flags:  []cli.Flag{trashDaysFlag()},
		Action: a.action(arity{0, 1}, initRepository),
	}
}

type initRecord struct {
	MessageType string `json:"message_type"` // "initialized"
	Repository  string `json:"repository"`
}

func initRepository(ctx context.Context, c *call) error {
	r := wire.Repository{Path: c.arg(0)}
	if !r.IsPath() {
		var err error
		if r, err = c.repository(); err != nil {
			return err
		}
	} else if c.flags.IsSet("repository") {
		return usagef("give the path once: as argument or with -r")
	}
	if err := c.makeRepository(ctx, r); err != nil {
		return fmt.Errorf("make repository %s: %w", r, err)
	}
	c.ui.done(initRecord{"initialized", r.String()}, "made repository %s", r)
	return nil
}

func (c *call) makeRepository(ctx context.Context, r wire.Repository) error {
	if r.IsPath() {
		o, err := c.createOptions()
		if err != nil {
			return err
		}
		return datastore.CreateWith(r.Path, o)
	}
	settings, err := c.datastoreSettings()
	if err != nil {
		return err
	}
	s, err := c.dial(ctx, r)
	if err != nil {
		return err
	}
	defer s.Close()
	return createDatastore(ctx, s, datastoreRecord{Name: r.Datastore}, settings)
}
