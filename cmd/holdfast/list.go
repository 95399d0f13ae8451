package main

import (
	"context"
	"fmt"
	"io"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/command/term"
	"holdfast/datastore/wire"
)

func (a *app) listCommand() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list backup groups",
		Description: term.Describe(`Lists the groups of a namespace that have a finished snapshot.`,
			"holdfast list -r /srv/store",
			"holdfast list -r /srv/store --recursive --json"),
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "recursive", Usage: "list the namespaces below, too"}},
		Action: a.action(term.Takes(0, 0), runList),
	}
}

// groupRecord describes a group.
type groupRecord struct {
	MessageType string   `json:"message_type"` // "group"
	Namespace   string   `json:"ns"`
	Group       string   `json:"group"`
	Type        string   `json:"type"`
	ID          string   `json:"id"`
	Count       int      `json:"count"`
	Owner       string   `json:"owner,omitempty"`
	LastTime    string   `json:"last_time"`
	LastFiles   []string `json:"last_files"`
}

func runList(ctx context.Context, c *call) error {
	s, err := c.openRepository(ctx, readOnly)
	if err != nil {
		return err
	}
	defer s.Close()
	groups, err := c.groups(ctx, s)
	if err != nil {
		return err
	}
	c.printGroups(groups)
	return nil
}

// groups are those of the command's namespace and, with --recursive, of all
// below.
func (c *call) groups(ctx context.Context, src wire.Source) ([]wire.GroupInfo, error) {
	spaces, err := c.namespaces(ctx, src, c.Flags.Bool("recursive"))
	if err != nil {
		return nil, err
	}
	var groups []wire.GroupInfo
	for _, ns := range spaces {
		g, err := src.Groups(ctx, ns)
		if err != nil {
			return nil, about("list groups", ns, err)
		}
		groups = append(groups, g...)
	}
	return groups, nil
}

// namespaces is the command's namespace and, if deep, all below.
func (c *call) namespaces(ctx context.Context, src wire.Source, deep bool) ([]wire.Namespace, error) {
	ns, err := c.namespace()
	if err != nil {
		return nil, err
	}
	if !deep {
		return []wire.Namespace{ns}, nil
	}
	all, err := src.Namespaces(ctx, ns)
	if err != nil {
		return nil, about("list namespaces", ns, err)
	}
	return all, nil
}

func (c *call) printGroups(groups []wire.GroupInfo) {
	rows := [][]string{{"group", "snapshots", "last backup", "owner", "files"}}
	for _, g := range groups {
		if c.ui.JSON {
			c.ui.Result(groupRecord{
				"group", string(g.Group.NS), g.Group.String(), g.Group.Type, g.Group.ID,
				g.Count, string(g.Owner), term.UnixTime(g.LastTime), notNil(g.LastFiles),
			}, nil)
			continue
		}
		rows = append(rows, []string{
			withNamespace(g.Group.NS, g.Group.String()), fmt.Sprint(g.Count),
			term.UnixTime(g.LastTime), orDash(string(g.Owner)), strings.Join(g.LastFiles, " "),
		})
	}
	c.printTable(rows, "no groups")
}

// printTable prints rows for people, or what stands for none of them.
func (c *call) printTable(rows [][]string, none string) {
	if c.ui.JSON {
		return
	}
	if len(rows) == 1 {
		c.ui.Notef("%s", none)
		return
	}
	c.ui.Result(nil, func(w io.Writer) { term.Table(w, rows) })
}

// withNamespace shows a name with its namespace in front, if that is not the
// root.
func withNamespace(ns wire.Namespace, name string) string {
	if ns == "" {
		return name
	}
	return fmt.Sprintf("%s: %s", ns, name)
}

// notNil keeps null out of JSON.
func notNil(list []string) []string {
	if list == nil {
		return []string{}
	}
	return list
}
