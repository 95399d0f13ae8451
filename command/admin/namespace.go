package admin

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/url"
	"strings"

	"github.com/urfave/cli/v2"

	"holdfast/client"
	"holdfast/command/repo"
	"holdfast/command/term"
	"holdfast/datastore"
	"holdfast/datastore/wire"
	"holdfast/datastore/wire/api"
)

// Namespace is holdfast namespace with its subcommands.
func (r Room) Namespace() *cli.Command {
	return &cli.Command{
		Name: "namespace", Usage: "make, list and remove namespaces",
		Description: term.Describe(`Namespaces divide a repository, as a/b; machines in different ones share chunks and nothing else.
On a server they must be made before a backup names them.`),
		Subcommands: []*cli.Command{
			{
				Name: "create", Usage: "make a namespace", ArgsUsage: "NAMESPACE",
				Description: term.Describe("Makes a namespace; the one above it must exist.", "holdfast namespace create -r backup.lan:tank customers",
					"holdfast namespace create --data /var/lib/holdfast --datastore tank customers/web"),
				Flags:  []cli.Flag{repo.DataFlag(), repo.StoreFlag()},
				Action: r.action(term.Takes(1, 1), namespaceCreate),
			},
			{
				Name: "list", Usage: "list namespaces", ArgsUsage: "[NAMESPACE]",
				Description: term.Describe("Lists a namespace and all below it.", "holdfast namespace list -r backup.lan:tank"),
				Flags:       []cli.Flag{repo.DataFlag(), repo.StoreFlag()},
				Action:      r.action(term.Takes(0, 1), namespaceList),
			},
			{
				Name: "delete", Usage: "remove a namespace", ArgsUsage: "NAMESPACE",
				Description: term.Describe("Removes an empty namespace, or with --delete-groups one with all its backups but the protected ones.",
					"holdfast namespace delete -r backup.lan:tank customers"),
				Flags:  []cli.Flag{repo.DataFlag(), repo.StoreFlag(), &cli.BoolFlag{Name: "delete-groups", Usage: "remove the backups in it, too"}},
				Action: r.action(term.Takes(1, 1), namespaceDelete),
			},
		},
	}
}

// namespaceRecord names a namespace.
type namespaceRecord struct {
	MessageType string `json:"message_type"` // "namespace" or "namespace_removed"
	Namespace   string `json:"ns"`
}

// namedNamespace reads the argument, which must not be the root.
func (c *call) namedNamespace() (wire.Namespace, error) {
	ns, err := wire.ParseNamespace(c.Arg(0))
	if err == nil && ns == "" {
		err = term.Usagef("the root is there already and stays")
	}
	return ns, err
}

func namespaceCreate(ctx context.Context, c *call) error {
	ns, err := c.namedNamespace()
	if err != nil {
		return err
	}
	parent, name := "", string(ns)
	if i := strings.LastIndexByte(name, '/'); i >= 0 {
		parent, name = name[:i], name[i+1:]
	}
	err = c.repos.OnDatastore(ctx,
		c.repos.ChangingPath(ctx, func(s *datastore.Store) error { return s.CreateNamespace(ctx, ns) }),
		func(s *client.Client, store string) error {
			return s.Do(ctx, client.Call{
				Op: api.CreateNamespace, At: []string{store},
				Params: url.Values{"name": {name}, "parent": {parent}},
			})
		})
	if err != nil {
		return fmt.Errorf("make namespace %s: %w", ns, err)
	}
	c.UI.Done(namespaceRecord{"namespace", string(ns)}, "made namespace %s", ns)
	return nil
}

func namespaceList(ctx context.Context, c *call) error {
	parent, err := wire.ParseNamespace(c.Arg(0))
	if err != nil {
		return err
	}
	var list []wire.Namespace
	err = c.repos.OnDatastore(ctx,
		func(r wire.Repository) error {
			s, err := c.repos.OpenPath(ctx, r, repo.Read)
			if err != nil {
				return err
			}
			defer s.Close()
			list, err = s.Namespaces(ctx, parent)
			return err
		},
		func(s *client.Client, store string) (err error) {
			list, err = namespacesOf(ctx, s, store, parent)
			return err
		})
	if err != nil {
		return repo.About("list namespaces", "", err)
	}
	rows := [][]string{{"namespace"}}
	for _, ns := range list {
		name := string(ns)
		if name == "" {
			name = "(root)"
		}
		rows = append(rows, []string{name})
		if c.UI.JSON {
			c.UI.Result(namespaceRecord{"namespace", string(ns)}, nil)
		}
	}
	c.UI.Listing(rows, "no namespaces")
	return nil
}

// namespacesOf asks a server for namespaces.
func namespacesOf(ctx context.Context, s *client.Client, store string, parent wire.Namespace) ([]wire.Namespace, error) {
	var answer []api.NamespaceItem
	err := s.Do(ctx, client.Call{
		Op: api.ListNamespaces, At: []string{store}, Params: repo.Fields("parent", string(parent)), Into: &answer,
	})
	if err != nil {
		return nil, err
	}
	var list []wire.Namespace
	for _, a := range answer {
		ns, err := wire.ParseNamespace(a.NS)
		if err != nil {
			return nil, err
		}
		list = append(list, ns)
	}
	return list, nil
}

func namespaceDelete(ctx context.Context, c *call) error {
	ns, err := c.namedNamespace()
	if err != nil {
		return err
	}
	groups := c.Flags.Bool("delete-groups")
	err = c.repos.OnDatastore(ctx,
		c.repos.ChangingPath(ctx, func(s *datastore.Store) error {
			removed, err := s.RemoveNamespace(ctx, ns, datastore.RemoveOptions{Groups: groups})
			if err == nil && removed.Protected > 0 {
				err = fmt.Errorf("%s left: %w", term.Plural(int64(removed.Protected), "protected snapshot"), wire.ErrProtected)
			}
			return err
		}),
		func(s *client.Client, store string) error {
			q := client.Call{
				Op: api.DeleteNamespace, At: []string{store},
				Params: url.Values{"ns": {string(ns)}}, Into: new(json.RawMessage),
			}
			if groups {
				q.Params.Set("delete-groups", "true")
			}
			return s.Do(ctx, q)
		})
	if err != nil {
		return fmt.Errorf("remove namespace %s: %w", ns, notEmpty(err, groups))
	}
	c.UI.Done(namespaceRecord{"namespace_removed", string(ns)}, "removed namespace %s", ns)
	return nil
}

// notEmpty tells how a namespace with backups in it is removed.
func notEmpty(err error, groups bool) error {
	if groups || !errors.Is(err, wire.ErrNotEmpty) {
		return err
	}
	return term.Hintf(err, "--delete-groups removes the backups in it, too")
}
