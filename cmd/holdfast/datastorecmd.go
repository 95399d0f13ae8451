package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

func (a *app) datastoreCommand() *cli.Command {
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
				Flags: []cli.Flag{dataFlag(),
					&cli.StringFlag{Name: "comment", Usage: "keep `TEXT` with the datastore"},
					&cli.BoolFlag{Name: "reuse", Usage: "serve the repository that PATH is already"}, trashDaysFlag()},
				Action: a.action(term.Takes(1, 2), datastoreCreate),
			},
			{
				Name: "list", Usage: "list datastores",
				Description: term.Describe("Lists the datastores of a server that the caller may see.", "holdfast datastore list"),
				Flags:       []cli.Flag{dataFlag()},
				Action:      a.action(term.Takes(0, 0), datastoreList),
			},
			{
				Name: "remove", Usage: "stop serving a datastore", ArgsUsage: "NAME",
				Description: term.Describe(`Removes a datastore from the server's list. Its directory stays as it is.`, "holdfast datastore remove tank"),
				Flags:       []cli.Flag{dataFlag()},
				Action:      a.action(term.Takes(1, 1), datastoreRemove),
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
	settings, err := c.datastoreSettings()
	if err != nil {
		return err
	}
	if c.Flags.Bool("reuse") {
		if settings.Has("trash-days") {
			return term.Usagef("--trash-days is for a new datastore; a repository that is there has its own")
		}
		settings.Set("reuse-datastore", "true")
	}
	return c.managing(ctx, func(s *client.Client) error {
		rec := datastoreRecord{"datastore", c.Arg(0), c.Arg(1), c.Flags.String("comment"), ""}
		if err := createDatastore(ctx, s, rec, settings); err != nil {
			return fmt.Errorf("make datastore %s: %w", rec.Name, err)
		}
		c.ui.Done(rec, "made datastore %s", rec.Name)
		return nil
	})
}

// datastoreSettings are what was said about a new datastore. What was not is left
// out: a real PBS does not know it.
func (c *call) datastoreSettings() (url.Values, error) {
	params := url.Values{}
	if !c.Flags.IsSet("trash-days") {
		return params, nil
	}
	o, err := c.createOptions()
	params.Set("trash-days", strconv.Itoa(o.TrashDays))
	return params, err
}

// createDatastore has a server make a datastore and waits until it is there.
func createDatastore(ctx context.Context, s *client.Client, d datastoreRecord, settings url.Values) error {
	params := fields("name", d.Name, "comment", d.Comment)
	if d.Path != "" {
		params.Set("path", filepath.Clean(d.Path))
	}
	maps.Copy(params, settings)
	var answer json.RawMessage
	err := s.Do(ctx, client.Call{Method: http.MethodPost, Path: "/config/datastore", Params: params, Into: &answer})
	var refused *client.StatusError
	if errors.As(err, &refused) && strings.Contains(refused.Text, "already exists") {
		return term.Meaning(err, wire.ErrExists)
	}
	if err != nil {
		return err
	}
	return finishTask(ctx, s, answer)
}

// finishTask waits for the task that an answer names, if it names one.
func finishTask(ctx context.Context, s *client.Client, answer json.RawMessage) error {
	var upid string
	if json.Unmarshal(answer, &upid) != nil || !strings.HasPrefix(upid, "UPID:") {
		return nil
	}
	return s.FollowTask(ctx, upid, func(string) {})
}

func datastoreList(ctx context.Context, c *call) error {
	var list []struct {
		Name        string `json:"name"`
		Path        string `json:"path"`
		Comment     string `json:"comment"`
		Maintenance string `json:"maintenance-mode"`
	}
	if err := c.asking(ctx, client.Call{Method: http.MethodGet, Path: "/config/datastore"}, &list); err != nil {
		return fmt.Errorf("list datastores: %w", err)
	}
	rows := [][]string{{"datastore", "path", "maintenance", "comment"}}
	for _, d := range list {
		rows = append(rows, []string{d.Name, orDash(d.Path), orDash(d.Maintenance), d.Comment})
		if c.ui.JSON {
			c.ui.Result(datastoreRecord{"datastore", d.Name, d.Path, d.Comment, d.Maintenance}, nil)
		}
	}
	c.printTable(rows, "no datastores; make one with: holdfast datastore create NAME")
	return nil
}

func datastoreRemove(ctx context.Context, c *call) error {
	return c.managing(ctx, func(s *client.Client) error {
		var answer json.RawMessage
		err := s.Do(ctx, client.Call{Method: http.MethodDelete, Path: restPath("config", "datastore", c.Arg(0)), Into: &answer})
		if err == nil {
			err = finishTask(ctx, s, answer)
		}
		if err != nil {
			return fmt.Errorf("remove datastore %s: %w", c.Arg(0), err)
		}
		c.ui.Done(deletion{"datastore_removed", c.Arg(0)}, "removed datastore %s from the list; its directory stays", c.Arg(0))
		return nil
	})
}
