package admin

import (
	"context"
	"encoding/json"
	"fmt"
	"path/filepath"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire/api"
)

// Datastore is holdfast datastore with its subcommands.
func (r Room) Datastore() *cli.Command {
	return &cli.Command{
		Name: "datastore", Usage: "make, list and remove the datastores of a server",
		Description: term.Describe(`A datastore is a repository that a server serves. Its directory has the form of a repository
that is a path, and can be used as one while no server has it open.`),
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a datastore", ArgsUsage: "NAME [PATH]",
				Description: term.Describe(`Makes a datastore in the directory PATH of the server, which may exist if it is empty, or in one
below its data directory. With --reuse the directory is a repository already.`,
					"holdfast datastore create tank", "holdfast datastore create tank /srv/backup --comment 'all machines'"),
				Flags: []cli.Flag{repo.DataFlag(),
					&cli.StringFlag{Name: "comment", Usage: "keep `TEXT` with the datastore"},
					&cli.BoolFlag{Name: "reuse", Usage: "serve the repository that PATH is already"}, repo.TrashDaysFlag()},
				Action: r.action(term.Takes(1, 2), datastoreCreate),
			},
			{
				Name: "list", Usage: "list datastores",
				Description: term.Describe("Lists the datastores of a server that the caller may see.", "holdfast datastore list"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(0, 0), datastoreList),
			},
			{
				Name: "remove", Usage: "stop serving a datastore", ArgsUsage: "NAME",
				Description: term.Describe(`Removes a datastore from the server's list. Its directory stays as it is.`, "holdfast datastore remove tank"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(1, 1), datastoreRemove),
			},
		},
	}
}

// datastoreRecord describes a datastore.
type datastoreRecord struct {
	MessageType string `json:"message_type"` // "datastore"
	Name        string `json:"name"`
	Path        string `json:"path,omitempty"`
	Comment     string `json:"comment,omitempty"`
	Maintenance string `json:"maintenance,omitempty"`
}

func datastoreCreate(ctx context.Context, c *call) error {
	if path := c.Arg(1); path != "" && !filepath.IsAbs(path) {
		return term.Usagef("%q: want an absolute path, as the server has its own place to start from", path)
	}
	if c.Flags.Bool("reuse") && c.Arg(1) == "" {
		return term.Usagef("--reuse needs the PATH of the repository")
	}
	settings, err := repo.DatastoreSettings(c.Given)
	if err != nil {
		return err
	}
	if c.Flags.Bool("reuse") {
		if settings.Has("trash-days") {
			return term.Usagef("--trash-days is for a new datastore; a repository that is there has its own")
		}
		settings.Set("reuse-datastore", "true")
	}
	return c.repos.Managing(ctx, func(s *client.Client) error {
		rec := datastoreRecord{"datastore", c.Arg(0), c.Arg(1), c.Flags.String("comment"), ""}
		if err := repo.CreateDatastore(ctx, s, repo.Datastore{Name: rec.Name, Path: rec.Path, Comment: rec.Comment}, settings); err != nil {
			return fmt.Errorf("make datastore %s: %w", rec.Name, err)
		}
		c.UI.Done(rec, "made datastore %s", rec.Name)
		return nil
	})
}

func datastoreList(ctx context.Context, c *call) error {
	var list []api.DatastoreConfig
	if err := c.repos.Asking(ctx, client.Call{Op: api.ListConfigured}, &list); err != nil {
		return fmt.Errorf("list datastores: %w", err)
	}
	rows := [][]string{{"datastore", "path", "maintenance", "comment"}}
	for _, d := range list {
		rows = append(rows, []string{d.Name, term.OrDash(d.Path), term.OrDash(d.Maintenance), d.Comment})
		if c.UI.JSON {
			c.UI.Result(datastoreRecord{"datastore", d.Name, d.Path, d.Comment, d.Maintenance}, nil)
		}
	}
	c.UI.Listing(rows, "no datastores; make one with: holdfast datastore create NAME")
	return nil
}

func datastoreRemove(ctx context.Context, c *call) error {
	return c.repos.Managing(ctx, func(s *client.Client) error {
		var answer json.RawMessage
		err := s.Do(ctx, client.Call{Op: api.RemoveDatastore, At: []string{c.Arg(0)}, Into: &answer})
		if err == nil {
			err = repo.FinishTask(ctx, s, answer)
		}
		if err != nil {
			return fmt.Errorf("remove datastore %s: %w", c.Arg(0), err)
		}
		c.UI.Done(deletion{"datastore_removed", c.Arg(0)}, "removed datastore %s from the list; its directory stays", c.Arg(0))
		return nil
	})
}

// deletion is printed for what was removed.
type deletion struct {
	MessageType string `json:"message_type"`
	Name        string `json:"name"`
}
