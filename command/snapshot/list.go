package snapshot

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
)

// List is holdfast list.
func (r Room) List() *cli.Command {
	return &cli.Command{
		Name: "list", Usage: "list backup groups",
		Description: term.Describe(`Lists the groups of a namespace that have a finished snapshot.`,
			"holdfast list -r /srv/store",
			"holdfast list -r /srv/store --recursive --json"),
		Flags:  []cli.Flag{&cli.BoolFlag{Name: "recursive", Usage: "list the namespaces below, too"}},
		Action: r.action(term.Takes(0, 0), runList),
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
	s, err := c.repos.Open(ctx, repo.Read)
	if err != nil {
		return err
	}
	defer s.Close()
	groups, err := c.repos.Groups(ctx, s, c.Flags.Bool("recursive"))
	if err != nil {
		return err
	}
	c.printGroups(groups)
	return nil
}

func (c *call) printGroups(groups []wire.GroupInfo) {
	rows := [][]string{{"group", "snapshots", "last backup", "owner", "files"}}
	for _, g := range groups {
		if c.UI.JSON {
			c.UI.Result(groupRecord{
				"group", string(g.Group.NS), g.Group.String(), g.Group.Type, g.Group.ID,
				g.Count, string(g.Owner), term.UnixTime(g.LastTime), term.NotNil(g.LastFiles),
			}, nil)
			continue
		}
		rows = append(rows, []string{
			repo.WithNamespace(g.Group.NS, g.Group.String()), fmt.Sprint(g.Count),
			term.UnixTime(g.LastTime), term.OrDash(string(g.Owner)), strings.Join(g.LastFiles, " "),
		})
	}
	c.UI.Listing(rows, "no groups")
}
