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
		Description: describe(`Makes a repository in the directory PATH, or in the one that -r or $HOLDFAST_REPOSITORY names.
The directory may exist if it is empty.`,
			"holdfast init /srv/store"),
		Action: a.action(arity{0, 1}, initRepository),
	}
}

type initRecord struct {
	MessageType string `json:"message_type"` // "initialized"
	Repository  string `json:"repository"`
}

func initRepository(_ context.Context, c *call) error {
	path := c.arg(0)
	if path == "" {
		r, err := c.repository()
		if err != nil {
			return err
		}
		path = r.Path
	} else if c.flags.IsSet("repository") {
		return usagef("give the path once: as argument or with -r")
	}
	if err := datastore.Create(path); err != nil {
		return fmt.Errorf("make repository %s: %w", path, err)
	}
	r := wire.Repository{Path: path}
	c.ui.done(initRecord{"initialized", r.String()}, "made repository %s", r)
	return nil
}
