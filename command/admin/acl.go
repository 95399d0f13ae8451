package admin

import (
	"context"
	"fmt"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// ACL is holdfast acl with its subcommands.
func (r Room) ACL() *cli.Command {
	return &cli.Command{
		Name: "acl", Usage: "say who may do what on a server",
		Description: term.Describe(`A role is given to a user or token on a path: / for everything, /datastore/NAME for a
datastore, /datastore/NAME/NAMESPACE for a namespace. It counts below the path, too, until a
deeper path has roles of its own. Roles: Admin, Audit, NoAccess, DatastoreAdmin,
DatastoreReader, DatastoreBackup, DatastorePowerUser, DatastoreAudit, DatastorePutOnly.`),
		Subcommands: []*cli.Command{
			{
				Name: "set", Usage: "give a role", ArgsUsage: "PATH ROLE",
				Description: term.Describe("Gives a role on a path to a user or token.", "holdfast acl set /datastore/tank DatastoreBackup --auth-id anna@pbs"),
				Flags: []cli.Flag{repo.DataFlag(), authIDFlag(),
					&cli.BoolFlag{Name: "no-propagate", Usage: "let it count on the path alone, not below it"}},
				Action: r.action(term.Takes(2, 2), aclSet),
			},
			{
				Name: "list", Usage: "list who has which roles",
				Description: term.Describe("Lists the roles that were given.", "holdfast acl list"),
				Flags:       []cli.Flag{repo.DataFlag()},
				Action:      r.action(term.Takes(0, 0), aclList),
			},
			{
				Name: "remove", Usage: "take a role away", ArgsUsage: "PATH ROLE",
				Description: term.Describe("Takes a role on a path away from a user or token.", "holdfast acl remove /datastore/tank DatastoreBackup --auth-id anna@pbs"),
				Flags:       []cli.Flag{repo.DataFlag(), authIDFlag()},
				Action:      r.action(term.Takes(2, 2), aclRemove),
			},
		},
	}
}

func authIDFlag() cli.Flag {
	return &cli.StringFlag{Name: "auth-id", Usage: "the `ID` of the user or token"}
}

// aclRecord is a role that was given, or taken away.
type aclRecord struct {
	MessageType string `json:"message_type"` // "acl" or "acl_removed"
	Path        string `json:"path"`
	Role        string `json:"role"`
	AuthID      string `json:"auth_id"`
	Propagate   bool   `json:"propagate"`
}

// aclArguments reads the arguments of set and remove.
func (c *call) aclArguments() (path, role string, id wire.AuthID, err error) {
	if !c.Flags.IsSet("auth-id") {
		return "", "", "", term.Usagef("--auth-id is needed: whose role it is")
	}
	id, err = wire.ParseAuthID(c.Flags.String("auth-id"))
	return c.Arg(0), c.Arg(1), id, err
}

func aclSet(ctx context.Context, c *call) error {
	path, role, id, err := c.aclArguments()
	if err != nil {
		return err
	}
	q := setACL(path, role, id)
	propagate := !c.Flags.Bool("no-propagate")
	if !propagate {
		q.Params.Set("propagate", "false")
	}
	if err := c.repos.Asking(ctx, q, nil); err != nil {
		return fmt.Errorf("give %s the role %s on %s: %w", id, role, path, knownRoles(err))
	}
	c.UI.Done(aclRecord{"acl", path, role, string(id), propagate}, "gave %s the role %s on %s", id, role, path)
	return nil
}

// knownRoles tells of the roles there are if one was unknown.
func knownRoles(err error) error {
	if repo.BadParameter(err) && strings.Contains(err.Error(), "role \"") {
		return term.Hintf(err, "holdfast acl --help lists the roles")
	}
	return err
}

func aclRemove(ctx context.Context, c *call) error {
	path, role, id, err := c.aclArguments()
	if err != nil {
		return err
	}
	q := setACL(path, role, id)
	q.Params.Set("delete", "true")
	if err := c.repos.Asking(ctx, q, nil); err != nil {
		return fmt.Errorf("take the role %s on %s from %s: %w", role, path, id, err)
	}
	c.UI.Done(aclRecord{"acl_removed", path, role, string(id), false}, "took the role %s on %s from %s", role, path, id)
	return nil
}

func aclList(ctx context.Context, c *call) error {
	var list []api.ACLItem
	if err := c.repos.Asking(ctx, client.Call{Op: api.ListACLs}, &list); err != nil {
		return fmt.Errorf("list roles: %w", err)
	}
	rows := [][]string{{"path", "role", "user or token", "counts"}}
	for _, e := range list {
		counts := "there and below"
		if !e.Propagate {
			counts = "there only"
		}
		rows = append(rows, []string{e.Path, e.Role, string(e.ID), counts})
		if c.UI.JSON {
			c.UI.Result(aclRecord{"acl", e.Path, e.Role, string(e.ID), e.Propagate}, nil)
		}
	}
	c.UI.Listing(rows, "no roles were given")
	return nil
}
