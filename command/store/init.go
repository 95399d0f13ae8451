package store

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
)

// Init is holdfast init.
func (r Room) Init() *cli.Command {
	return &cli.Command{
		Name: "init", Usage: "make a new, empty repository", ArgsUsage: "[PATH]",
		Description: term.Describe(`Makes a repository in the directory PATH, or the one that -r or $HOLDFAST_REPOSITORY names: a path,
whose directory may exist if it is empty, or a datastore on a server, for which the right to
make datastores is needed.`,
			"holdfast init /srv/store", "holdfast init -r 'root@pam!admin@backup.lan:tank'"),
		Flags:  []cli.Flag{repo.TrashDaysFlag()},
		Action: r.action(term.Takes(0, 1), initRepository),
	}
}

type initRecord struct {
	MessageType string `json:"message_type"` // "initialized"
	Repository  string `json:"repository"`
}

func initRepository(ctx context.Context, c *call) error {
	r, err := c.newRepository()
	if err != nil {
		return err
	}
	if err := c.makeRepository(ctx, r); err != nil {
		err = fmt.Errorf("make repository %s: %w", r, err)
		if repo.NoSpace(err) {
			err = term.Hintf(err, "make room and run the command again; what is there of it already is no obstacle")
		}
		return err
	}
	c.UI.Done(initRecord{"initialized", r.String()}, "made repository %s", r)
	return nil
}

// newRepository is the one to be made: the argument, always a path, or the one
// that -r or the environment names.
func (c *call) newRepository() (wire.Repository, error) {
	path := c.Arg(0)
	switch {
	case path == "":
		return c.repos.Name()
	case c.Flags.IsSet("repository"):
		return wire.Repository{}, term.Usagef("give the path once: as argument or with -r")
	case strings.ContainsAny(path, `/\:@~$`):
		r, err := wire.ParseRepository(path)
		if err == nil && !r.IsPath() {
			err = term.Hintf(term.Usagef("%s is a datastore on a server, and not a path", r), "say -r %s to make that; a path of this name is ./%s", r, path)
		}
		return r, err
	}
	return wire.Repository{Path: path}, nil
}

func (c *call) makeRepository(ctx context.Context, r wire.Repository) error {
	if r.IsPath() {
		o, err := repo.CreateOptions(c.Given)
		if err != nil {
			return err
		}
		return datastore.Create(r.Path, o)
	}
	settings, err := repo.DatastoreSettings(c.Given)
	if err != nil {
		return err
	}
	s, err := c.repos.Dial(ctx, r)
	if err != nil {
		return err
	}
	defer s.Close()
	return repo.CreateDatastore(ctx, s, repo.Datastore{Name: r.Datastore}, settings)
}
